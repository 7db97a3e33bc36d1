"""``Objects``: what of ours lies on a PKCS#11 token, by the names that are its labels.

In: a logged-in session and names. Out: handles of keys, values of small objects; what was destroyed is proven to be
gone. A handle found once is kept for the life of the session, since finding by label reads every object on some tokens.
Not here: what a key is made and used for (token.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import pkcs11
from pkcs11 import Attribute, Mechanism, ObjectClass, PKCS11Error

from medcrypt_hsm.errors import TokenError, TokenRemoved
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.pkcs11 import aes_kw
from medcrypt_hsm.tokens.pkcs11.errors import GONE, LOCK, token_errors
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken

T = TypeVar("T")
PREFIX = "medcrypt "
APPLICATION = "medcrypt"
SECRET, PRIVATE, PUBLIC = ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY
_KEYS = (SECRET, PRIVATE, PUBLIC)
_CLASSES = (*_KEYS, ObjectClass.DATA)


class Objects:
    """The keys and small objects of one session. ``stored``: on the token, or in the session alone."""

    def __init__(self, place: SlotToken, session: pkcs11.Session, *, stored: bool) -> None:
        self._place = place
        self._session = session
        self._stored = stored
        self._found: dict[tuple[ObjectClass, str], Any] = {}

    # Keys

    def key(self, name: str, object_class: ObjectClass) -> Any:
        """The one key of that name and class. Raises KeyError, and TokenError where there are two."""
        if (key := self._found.get((object_class, name))) is not None:
            return key
        found = self.find(name, object_class)
        if len(found) > 1:
            raise self.duplicate(name)
        if not found:
            raise KeyError(name)
        return self.keep(name, object_class, found[0])

    def keep(self, name: str, object_class: ObjectClass, key: Any) -> Any:
        """Know it from now on without looking for it."""
        self._found[object_class, name] = key
        return key

    def kept(self, name: str, object_class: ObjectClass) -> Any | None:
        return self._found.get((object_class, name))

    @contextmanager
    def using(self, name: str, object_class: ObjectClass, doing: str) -> Iterator[None]:
        """Like ``token_errors``; a key that another program destroyed meanwhile is a KeyError, like any absent one."""
        try:
            with token_errors(self._place, doing):
                yield
        except TokenError as exc:
            if isinstance(exc.__cause__, GONE) and not isinstance(exc, TokenRemoved):
                self._found.pop((object_class, name), None)
                raise KeyError(name) from exc
            raise

    def refuse_taken(self, name: str) -> None:
        """Raises TokenError for a name that a key has."""
        check_name(name)
        if any(self.find(name, object_class) for object_class in _KEYS):
            raise TokenError(
                t("{token} has a key {key!r} already", token=self._place.title, key=name),
                "use another token or destroy that key",
            )

    def duplicate(self, name: str) -> TokenError:
        # Choosing one silently would wrap or sign with a key that somebody else may have put there.
        return TokenError(
            t("{token} has more than one key {key!r}", token=self._place.title, key=name),
            "find out who made the other, and destroy that one",
        )

    # Small objects

    def put(self, name: str, value: bytes) -> None:
        check_name(name)
        older = self.find(name, ObjectClass.DATA)
        with token_errors(self._place, t("writing an object")):
            # New first: an interruption leaves two, never none.
            self._session.create_object(
                {
                    Attribute.CLASS: ObjectClass.DATA,
                    Attribute.APPLICATION: APPLICATION,
                    Attribute.LABEL: name,
                    Attribute.PRIVATE: True,
                    Attribute.TOKEN: self._stored,
                    Attribute.VALUE: value,
                }
            )
            for data in older:
                data.destroy()

    def read(self, name: str) -> Sequence[bytes]:
        for _ in range(5):  # SoftHSM2 finds neither the old nor the new one if it is replaced at the wrong moment
            with token_errors(self._place, t("reading an object")):
                values = _steadily(partial(self._values, name))
            if values:
                return values
        self._refuse_vanished("reading an object")
        return ()

    def _values(self, name: str) -> tuple[bytes, ...]:
        return tuple(data[Attribute.VALUE] for data in self._search(ObjectClass.DATA, name))

    # All of them

    def names(self) -> Sequence[str]:
        with token_errors(self._place, t("listing its objects")):
            names = _steadily(self._names)
        self._refuse_vanished("listing its objects")
        return sorted(name for name in names if name.startswith(PREFIX))

    def _names(self) -> set[str]:
        names = set()
        for object_class in _CLASSES:
            for item in self._search(object_class):
                try:
                    names.add(item[Attribute.LABEL])
                except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, UnicodeDecodeError):
                    continue  # another program's object
        return names

    def find(self, name: str, object_class: ObjectClass) -> list[Any]:
        """All of that name and class, looked for on the token."""
        with token_errors(self._place, t("looking for an object")):
            found = _steadily(partial(self._search, object_class, name))
        if not found:
            self._refuse_vanished("looking for an object")
        return found

    def _search(self, object_class: ObjectClass, name: str | None = None) -> list[Any]:
        """An unfinished search would block the next, hence a list. Foreign errors pass through."""
        template: dict[Attribute, Any] = {Attribute.CLASS: object_class, Attribute.TOKEN: self._stored}
        return list(self._session.get_objects(template if name is None else {**template, Attribute.LABEL: name}))

    def _refuse_vanished(self, doing: str) -> None:
        # SoftHSM2 answers "nothing found", without an error, for a token whose directory is gone.
        if not self._place.closed and not self._place.present():
            raise TokenRemoved(t("{token} was removed while {doing}", token=self._place.title, doing=doing))

    # Destroying

    def destroy(self, name: str) -> None:
        check_name(name)
        old = [item for object_class in _CLASSES for item in self.find(name, object_class)]
        for object_class in _CLASSES:
            self._found.pop((object_class, name), None)
        with token_errors(self._place, t("destroying a key")):
            for item in old:
                item.destroy()
        if old and any(self.find(name, object_class) for object_class in _CLASSES):
            raise TokenError(
                t("{token} still shows {object!r} after destroying it", token=self._place.title, object=name),
                "do not count on it",
            )
        for item in old:
            if self.still_works(item):
                raise TokenError(
                    t("{token} still uses {key!r} after destroying it", token=self._place.title, key=name),
                    "do not count on it",
                )

    def still_works(self, item: Any) -> bool:
        """Whether a destroyed object's handle is still good for anything: the proof that it is gone."""
        with LOCK:
            try:
                if hasattr(item, "wrap_key"):
                    aes_kw.still_works(self._place, self._session, item)
                elif hasattr(item, "derive_key"):
                    from medcrypt_hsm.tokens.pkcs11 import p256_hpke

                    p256_hpke.still_works(self._place, self._session, item)
                elif hasattr(item, "sign"):
                    item.sign(bytes(32), mechanism=Mechanism.ECDSA)
                else:
                    item.get_attributes([Attribute.LABEL])
            except PKCS11Error as exc:
                if not isinstance(exc, GONE) and not self._place.present():
                    raise TokenRemoved(
                        t("{token} was removed while destroying a key", token=self._place.title)
                    ) from exc
                return False
        return True

    def forget(self) -> None:
        """The session ends, and every handle with it."""
        self._found.clear()


def _steadily(search: Callable[[], T]) -> T:
    """``search``, and again where another program destroyed an object between its being found and being looked at."""
    for _ in range(99):
        with suppress(*GONE):
            return search()
    return search()


def check_name(name: str) -> None:
    # An empty label is a wildcard of sorts: it fits every object without one.
    if not name.startswith(PREFIX):
        raise ValueError(f"names on a token begin with {PREFIX!r}")
