"""``Pkcs11Token``: the ``Token`` protocol over one logged-in PKCS#11 session (docs/spec/tokens.md).

Names are CKA_LABEL. A KEK is an AES-256 secret key (aes_kw.py) or a P-256 pair (p256_hpke.py), and tells by what it is
which profile it serves. A signing key is a P-256 pair, a small object a private CKO_DATA. A handle found once is kept
for the life of the session, since finding by label reads every object on some tokens.

``trial()`` is the same token with nothing stored: what check.py uses to prove a profile without a trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pkcs11
from pkcs11 import Attribute, Mechanism, ObjectClass, PKCS11Error

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret
from medcrypt_hsm.crypto.p256 import P256_SPKI
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import TokenError, TokenRemoved, TokenUnfit
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, TOUCH_POLICIES, Evidence, PinPrompt
from medcrypt_hsm.tokens.pkcs11 import aes_kw
from medcrypt_hsm.tokens.pkcs11.errors import GONE, LOCK, token_errors
from medcrypt_hsm.tokens.pkcs11.keys import SIGNING, generate_pair, wrap_key
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken, find
from medcrypt_hsm.tokens.uri import TokenUri

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.hostkeys import HostKeys

T = TypeVar("T")
PREFIX = "medcrypt "
APPLICATION = "medcrypt"
_SECRET, _PRIVATE, _PUBLIC = ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY
_CLASSES = (_SECRET, _PRIVATE, _PUBLIC, ObjectClass.DATA)
_PROFILES = (AES_KW, P256_HPKE)  # best first


def _needed(profile: str) -> dict[Mechanism, str]:
    """The mechanisms of a profile, in words."""
    from medcrypt_hsm.tokens.pkcs11 import p256_hpke

    needed = aes_kw.NEEDED if _known(profile) == AES_KW else p256_hpke.NEEDED
    return needed | {
        Mechanism.EC_KEY_PAIR_GEN: "generating P-256 key pairs (CKM_EC_KEY_PAIR_GEN)",
        Mechanism.ECDSA: "ECDSA signatures (CKM_ECDSA)",
    }


def open_pkcs11(
    uri: TokenUri, prompt: PinPrompt, *, last_try: bool = False, modules: Sequence[str] = ()
) -> Pkcs11Token:
    """Find the token, ask for its PIN, log in."""
    place = find(uri, modules)
    session, _ = place.login(prompt, last_try=last_try)
    return Pkcs11Token(place, session)


class Pkcs11Token:
    """An open PKCS#11 token. See the ``Token`` protocol for what each method promises."""

    def __init__(self, place: SlotToken, session: pkcs11.Session, *, stored: bool = True) -> None:
        self.info = place.info
        self._place = place
        self._session = session
        self._stored = stored
        self._found: dict[tuple[ObjectClass, str], Any] = {}
        self._host: HostKeys | None = None  # made with the first keyset of a p256-hpke KEK

    def __repr__(self) -> str:
        return f"Pkcs11Token({self.info.uri})"

    def __enter__(self) -> Pkcs11Token:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Log out. Session keys die with the session, host keys are wiped; a second close does nothing."""
        self._found.clear()
        if self._host is not None:
            self._host.wipe()
        if self._stored and not self._place.closed:
            self._place.logout(self._session)

    def refuse_gone(self) -> None:
        if not self._place.present():
            raise TokenRemoved(f"{self._place.title} was removed")

    def trial(self) -> Pkcs11Token:
        """This token for throw-away objects: what it makes lives in the session alone, and nothing else is seen."""
        return Pkcs11Token(self._place, self._session, stored=False)

    # What it can do

    def profiles(self) -> Sequence[str]:
        return tuple(profile for profile in _PROFILES if not self.missing(profile))

    def missing(self, profile: str) -> Sequence[str]:
        needed = _needed(profile)
        with token_errors(self._place, "listing its mechanisms"):
            offered = self._place.token.slot.get_mechanisms()
        return tuple(words for mechanism, words in needed.items() if mechanism not in offered)

    # The KEK

    def make_kek(self, name: str, profile: str, *, touch: str = "never") -> None:
        from medcrypt_hsm.tokens.pkcs11 import p256_hpke

        _known(profile)
        if touch not in TOUCH_POLICIES:
            raise ValueError(f"{touch!r} is no touch policy")
        if touch != "never":
            raise TokenUnfit(f"{self._place.title} cannot wait for a touch", "leave '--touch' out for this token")
        self._refuse_taken(name, _SECRET, _PRIVATE, _PUBLIC)
        with token_errors(self._place, "making a KEK"):
            if profile == AES_KW:
                self._found[_SECRET, name] = aes_kw.make_kek(self._session, name, stored=self._stored)
            else:
                pair = p256_hpke.make_kek(self._session, name, stored=self._stored)
                self._found[_PUBLIC, name], self._found[_PRIVATE, name] = pair
        self._refuse_unfit(name, profile)
        if profile == P256_HPKE:
            try:
                self.public_key(name)  # proves on the way that it agrees on secrets and lets the host have them
            except TokenUnfit:
                self.destroy(name)
                raise

    def wrap_keyset(self, kek: str, keyset: KeysetSecret, info: bytes) -> bytes:
        """120 bytes under an AES KEK, which have no room for ``info``; 177 under a pair (docs/spec/tokens.md)."""
        kind, key = self._kek(kek)
        if kind is _PRIVATE:
            from medcrypt_hsm.tokens.p256_hpke import wrap_keyset

            return wrap_keyset(self.public_key(kek), keyset, info)
        with self._using(kek, _SECRET, "wrapping a vault keyset"):
            return aes_kw.wrap_keyset(self._place, self._session, key, keyset)

    def unwrap_keyset(self, kek: str, wrapped: bytes, info: bytes) -> KeysetHandles:
        kind, key = self._kek(kek)
        if kind is _SECRET:
            with self._using(kek, _SECRET, "unwrapping the vault keyset"):
                return aes_kw.unwrap_keyset(self._place, self._session, key, wrapped)
        from medcrypt_hsm.crypto.hostkeys import HostKeys

        if self._host is None:
            self._host = HostKeys()
        return self._host.handles(self._agreed_keyset(kek, key, wrapped, info))

    def unwrap_keyset_to_host(self, kek: str, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        kind, key = self._kek(kek)
        if kind is _PRIVATE:
            return self._agreed_keyset(kek, key, wrapped, info)
        with self._using(kek, _SECRET, "unwrapping the vault keyset"):
            return aes_kw.unwrap_to_host(self._place, self._session, key, wrapped)

    def wrap_key(self, kek: str, key: bytes, info: bytes) -> bytes:
        """40 bytes under an AES KEK, which have no room for ``info``; 113 under a pair."""
        kind, handle = self._kek(kek)
        if kind is _PRIVATE:
            from medcrypt_hsm.tokens.p256_hpke import wrap_key as seal_key

            return seal_key(self.public_key(kek), key, info)
        with self._using(kek, _SECRET, "wrapping a key"):
            return wrap_key(self._place, self._session, handle, key)

    def unwrap_key(self, kek: str, wrapped: bytes, info: bytes) -> Secret:
        kind, handle = self._kek(kek)
        if kind is _PRIVATE:
            from medcrypt_hsm.tokens.p256_hpke import unwrap_key

            return unwrap_key(self._ecdh(kek, handle), P256_SPKI + self._point(kek), wrapped, info)
        with self._using(kek, _SECRET, "unwrapping a key"):
            return aes_kw.unwrap_key_to_host(self._place, self._session, handle, wrapped)

    def _agreed_keyset(self, kek: str, private: Any, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        from medcrypt_hsm.tokens.p256_hpke import unwrap_keyset

        return unwrap_keyset(self._ecdh(kek, private), P256_SPKI + self._point(kek), wrapped, info)

    def _ecdh(self, kek: str, private: Any) -> Callable[[bytes], Secret]:
        from medcrypt_hsm.tokens.pkcs11 import p256_hpke

        def ecdh(point: bytes) -> Secret:
            with self._using(kek, _PRIVATE, "unwrapping with a KEK"):
                return p256_hpke.ecdh(self._place, self._session, private, point)

        return ecdh

    def _kek(self, name: str) -> tuple[ObjectClass, Any]:
        """The class of the KEK's key, which tells its profile, and its handle."""
        known = [(kind, self._found[kind, name]) for kind in (_SECRET, _PRIVATE) if (kind, name) in self._found]
        # Both kinds are looked for: without a PIN anybody who reaches a token can put a key of their own beside ours.
        found = known or [(kind, key) for kind in (_SECRET, _PRIVATE) for key in self._find(name, kind)]
        if len(found) > 1:
            raise self._duplicate(name)
        if not found:
            raise KeyError(name)
        kind, key = found[0]
        if not hasattr(key, "unwrap_key" if kind is _SECRET else "derive_key"):
            raise TokenUnfit(f"the key {name!r} on {self._place.title} is no KEK: it neither unwraps nor derives")
        self._found[kind, name] = key
        return kind, key

    def attestation(self, name: str) -> Sequence[bytes]:
        return ()

    # The signing key

    def make_signing_key(self, name: str) -> bytes:
        self._refuse_taken(name, _SECRET, _PRIVATE, _PUBLIC)
        with token_errors(self._place, "making a signing key"):
            pair = generate_pair(self._session, name, SIGNING, stored=self._stored)
            self._found[_PUBLIC, name], self._found[_PRIVATE, name] = pair
        self._refuse_unfit(name, "signing")
        return self.public_key(name)

    def public_key(self, name: str) -> bytes:
        """Of a KEK it is proven first to be the private key's: the next thing that happens is sealing to it."""
        point, private = self._point(name), self._key(name, _PRIVATE)
        if hasattr(private, "derive_key"):
            from medcrypt_hsm.tokens.pkcs11 import p256_hpke

            with self._using(name, _PRIVATE, "proving a public key"):
                p256_hpke.prove_public(self._place, self._session, private, point)
        return P256_SPKI + point

    def _point(self, name: str) -> bytes:
        from medcrypt_hsm.tokens.pkcs11 import p256

        key = self._key(name, _PUBLIC)
        with self._using(name, _PUBLIC, "reading a public key"):
            parameters, point = key[Attribute.EC_PARAMS], key[Attribute.EC_POINT]
        if (found := p256.point(parameters, point)) is None:
            raise TokenUnfit(f"the public key {name!r} on {self._place.title} is not a P-256 key")
        return found

    def sign(self, name: str, data: bytes) -> bytes:
        key = self._key(name, _PRIVATE)
        if not hasattr(key, "sign"):
            raise TokenUnfit(f"the key {name!r} on {self._place.title} is no signing key")
        with self._using(name, _PRIVATE, "signing"):
            signature: bytes = key.sign(hashlib.sha256(data).digest(), mechanism=Mechanism.ECDSA)
        if len(signature) != 64:
            raise TokenError(f"{self._place.title} gave a signature of {len(signature)} bytes instead of 64")
        return signature

    # Small objects

    def put_object(self, name: str, value: bytes) -> None:
        _check_name(name)
        older = self._find(name, ObjectClass.DATA)
        with token_errors(self._place, "writing an object"):
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

    def read_objects(self, name: str) -> Sequence[bytes]:
        for _ in range(5):  # SoftHSM2 finds neither the old nor the new one if it is replaced at the wrong moment
            with token_errors(self._place, "reading an object"):
                values = _steadily(partial(self._values, name))
            if values:
                return values
        self._refuse_vanished("reading an object")
        return ()

    def _values(self, name: str) -> tuple[bytes, ...]:
        return tuple(data[Attribute.VALUE] for data in self._search(ObjectClass.DATA, name))

    # All of them

    def names(self) -> Sequence[str]:
        with token_errors(self._place, "listing its objects"):
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

    def destroy(self, name: str) -> None:
        _check_name(name)
        doomed = [item for object_class in _CLASSES for item in self._find(name, object_class)]
        for object_class in _CLASSES:
            self._found.pop((object_class, name), None)
        with token_errors(self._place, "destroying a key"):
            for item in doomed:
                item.destroy()
        if doomed and any(self._find(name, object_class) for object_class in _CLASSES):
            raise TokenError(f"{self._place.title} still shows {name!r} after destroying it", "do not count on it")
        for item in doomed:
            if self._still_works(item):
                raise TokenError(f"{self._place.title} still uses {name!r} after destroying it", "do not count on it")

    def evidence(self, name: str) -> Evidence:
        return self._judged(name, None)

    def _judged(self, name: str, kind: str | None) -> Evidence:
        """``kind``: what it was made to be, as in ``evidence.SHOULD``; None: what its class and its uses say it is."""
        from medcrypt_hsm.tokens.pkcs11.evidence import CLAIMS, SHOULD, problems

        secret, private = self._find(name, _SECRET), self._find(name, _PRIVATE)
        if len(secret) + len(private) > 1:
            raise self._duplicate(name)
        if not secret and not private:
            raise KeyError(name)
        with token_errors(self._place, "reading a key's attributes"):
            read = (secret or private)[0].get_attributes(CLAIMS)
        claims = {attribute.name.lower(): bool(read[attribute]) for attribute in CLAIMS if attribute in read}
        if kind is None:
            agrees = claims.get("derive", False) and not claims.get("sign", False)
            kind = AES_KW if secret else P256_HPKE if agrees else "signing"
        found = list(problems(claims, SHOULD[kind]))
        if private and not self._find(name, _PUBLIC):
            found.append("its public key is not on the token")
        return Evidence(name, claims, tuple(found))

    # Finding

    def _template(self, object_class: ObjectClass, name: str | None = None) -> dict[Attribute, Any]:
        template: dict[Attribute, Any] = {Attribute.CLASS: object_class, Attribute.TOKEN: self._stored}
        return template if name is None else {**template, Attribute.LABEL: name}

    def _search(self, object_class: ObjectClass, name: str | None = None) -> list[Any]:
        """An unfinished search would block the next, hence a list. Foreign errors pass through."""
        return list(self._session.get_objects(self._template(object_class, name)))

    def _find(self, name: str, object_class: ObjectClass) -> list[Any]:
        """All of that name and class."""
        with token_errors(self._place, "looking for an object"):
            found = _steadily(partial(self._search, object_class, name))
        if not found:
            self._refuse_vanished("looking for an object")
        return found

    def _key(self, name: str, object_class: ObjectClass) -> Any:
        if (key := self._found.get((object_class, name))) is not None:
            return key
        found = self._find(name, object_class)
        if len(found) > 1:
            raise self._duplicate(name)
        if not found:
            raise KeyError(name)
        self._found[object_class, name] = found[0]
        return found[0]

    @contextmanager
    def _using(self, name: str, object_class: ObjectClass, doing: str) -> Iterator[None]:
        """Like ``token_errors``; a key that another program destroyed meanwhile is a KeyError, like any absent one."""
        try:
            with token_errors(self._place, doing):
                yield
        except TokenError as exc:
            if isinstance(exc.__cause__, GONE) and not isinstance(exc, TokenRemoved):
                self._found.pop((object_class, name), None)
                raise KeyError(name) from exc
            raise

    def _refuse_vanished(self, doing: str) -> None:
        # SoftHSM2 answers "nothing found", without an error, for a token whose directory is gone.
        if not self._place.closed and not self._place.present():
            raise TokenRemoved(f"{self._place.title} was removed while {doing}")

    def _refuse_taken(self, name: str, *classes: ObjectClass) -> None:
        _check_name(name)
        if any(self._find(name, object_class) for object_class in classes):
            raise TokenError(f"{self._place.title} has a key {name!r} already", "use another token or destroy that key")

    def _duplicate(self, name: str) -> TokenError:
        # Choosing one silently would wrap or sign with a key that somebody else may have put there.
        return TokenError(
            f"{self._place.title} has more than one key {name!r}", "find out who made the other, and destroy that one"
        )

    # Making and destroying

    def _refuse_unfit(self, name: str, kind: str) -> None:
        found = self._judged(name, kind).problems
        if found:
            self.destroy(name)
            raise TokenUnfit(f"{self._place.title} made {name!r} otherwise than asked: {'; '.join(found)}")

    def _still_works(self, item: Any) -> bool:
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
                    raise TokenRemoved(f"{self._place.title} was removed while destroying a key") from exc
                return False
        return True


def _steadily(search: Callable[[], T]) -> T:
    """``search``, and again where another program destroyed an object between its being found and being looked at."""
    for _ in range(99):
        with suppress(*GONE):
            return search()
    return search()


def _known(profile: str) -> str:
    if profile not in _PROFILES:
        raise ValueError(f"{profile!r} is no profile of a PKCS#11 token")
    return profile


def _check_name(name: str) -> None:
    # An empty label is a wildcard of sorts: it fits every object without one.
    if not name.startswith(PREFIX):
        raise ValueError(f"names on a token begin with {PREFIX!r}")
