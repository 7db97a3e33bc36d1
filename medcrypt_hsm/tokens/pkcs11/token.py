"""``Pkcs11Token``: the ``Token`` protocol over one logged-in PKCS#11 session (docs/spec/tokens.md).

Names are CKA_LABEL. A KEK is an AES-256 secret key, a signing key a P-256 pair, a small object a private CKO_DATA. A
handle found once is kept for the life of the session, since finding by label reads every object on some tokens.

``trial()`` is the same token with nothing stored: what check.py uses to prove the profile without a trace.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error

from medcrypt_hsm.errors import NotAuthentic, TokenError, TokenRemoved, TokenUnfit
from medcrypt_hsm.keys import KeysetHandles, KeysetSecret
from medcrypt_hsm.secret import Secret
from medcrypt_hsm.tokens import AES_KW, Evidence, PinPrompt
from medcrypt_hsm.tokens.pkcs11 import p256
from medcrypt_hsm.tokens.pkcs11.errors import GONE, LOCK, token_errors
from medcrypt_hsm.tokens.pkcs11.evidence import CLAIMS, KEK_SHOULD, SIGNING_KEY_SHOULD, problems
from medcrypt_hsm.tokens.pkcs11.keys import (
    FIXED,
    GUARDED,
    MAC,
    SEALING,
    SIGNING,
    WRAPPING,
    Pkcs11AeadKey,
    Pkcs11MacKey,
    Pkcs11WrappingKey,
    unwrap_key,
    wrap_key,
)
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken, find
from medcrypt_hsm.tokens.uri import TokenUri

PREFIX = "medcrypt "
APPLICATION = "medcrypt"

_SECRET, _PRIVATE, _PUBLIC = ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY
_CLASSES = (_SECRET, _PRIVATE, _PUBLIC, ObjectClass.DATA)
_NEEDED = {
    Mechanism.AES_KEY_GEN: "generating AES keys (CKM_AES_KEY_GEN)",
    Mechanism.AES_KEY_WRAP: "AES key wrap (CKM_AES_KEY_WRAP)",
    Mechanism.AES_GCM: "AES-GCM (CKM_AES_GCM)",
    Mechanism.SHA256_HMAC: "HMAC-SHA-256 (CKM_SHA256_HMAC)",
    Mechanism.EC_KEY_PAIR_GEN: "generating P-256 key pairs (CKM_EC_KEY_PAIR_GEN)",
    Mechanism.ECDSA: "ECDSA signatures (CKM_ECDSA)",
}
_REFUSALS = (
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.TemplateInconsistent,
)

Made = TypeVar("Made")


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

    def __repr__(self) -> str:
        return f"Pkcs11Token({self.info.uri})"

    def __enter__(self) -> Pkcs11Token:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Log out. Session keys die with the session; a second close does nothing."""
        self._found.clear()
        if self._stored and not self._place.closed:
            self._place.logout(self._session)

    def trial(self) -> Pkcs11Token:
        """This token for throw-away objects: what it makes lives in the session alone, and nothing else is seen."""
        return Pkcs11Token(self._place, self._session, stored=False)

    # What it can do

    def profiles(self) -> Sequence[str]:
        return () if self.missing(AES_KW) else (AES_KW,)

    def missing(self, profile: str) -> Sequence[str]:
        with token_errors(self._place, "listing its mechanisms"):
            offered = self._place.token.slot.get_mechanisms()
        return tuple(words for mechanism, words in _NEEDED.items() if mechanism not in offered)

    # The KEK

    def make_kek(self, name: str, profile: str, *, touch: str = "never") -> None:
        if profile != AES_KW:
            raise TokenUnfit(f"{self._place.title} makes no {profile!r} keys in this version", f"use {AES_KW}")
        self._refuse_taken(name, _SECRET)

        def generate(template: dict[Attribute, bool]) -> pkcs11.SecretKey:
            return self._session.generate_key(
                KeyType.AES, 256, id=_id(name), label=name, store=self._stored, capabilities=WRAPPING,
                mechanism=Mechanism.AES_KEY_GEN, template=template,
            )  # fmt: skip

        with token_errors(self._place, "making a KEK"):
            self._found[_SECRET, name] = _fixed_if_allowed(generate, GUARDED)
        self._refuse_unfit(name)

    def wrap_keyset(self, kek: str, keyset: KeysetSecret, info: bytes) -> bytes:
        """Three AES-KW blobs of 40 bytes: wrapping, mac, sealing. AES-KW has no room for ``info``."""
        key = self._key(kek, _SECRET)
        with self._using(kek, _SECRET, "wrapping a vault keyset"):
            return b"".join(wrap_key(self._place, self._session, key, secret) for secret in keyset)

    def unwrap_keyset(self, kek: str, wrapped: bytes, info: bytes) -> KeysetHandles:
        if len(wrapped) != 120:
            raise NotAuthentic(f"a wrapped vault keyset has 120 bytes, not {len(wrapped)}")
        key = self._key(kek, _SECRET)
        made: list[pkcs11.SecretKey] = []
        plan = ((KeyType.AES, WRAPPING), (KeyType.GENERIC_SECRET, MAC), (KeyType.AES, SEALING))
        try:
            with self._using(kek, _SECRET, "unwrapping the vault keyset"):
                for at, (key_type, uses) in enumerate(plan):
                    made.append(unwrap_key(self._place, key, wrapped[40 * at : 40 * at + 40], key_type, uses))
        except BaseException:
            self._destroy_quietly(made)
            raise
        wrapping, mac, sealing = made
        return KeysetHandles(
            Pkcs11WrappingKey(self._place, self._session, wrapping),
            Pkcs11MacKey(self._place, mac),
            Pkcs11AeadKey(self._place, sealing),
        )

    def unwrap_keyset_to_host(self, kek: str, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        raise NotImplementedError

    def attestation(self, name: str) -> Sequence[bytes]:
        return ()

    # The signing key

    def make_signing_key(self, name: str) -> bytes:
        self._refuse_taken(name, _PRIVATE, _PUBLIC)
        curve = {Attribute.EC_PARAMS: p256.PARAMETERS}

        def generate(template: dict[Attribute, bool]) -> tuple[pkcs11.PublicKey, pkcs11.PrivateKey]:
            domain = self._session.create_domain_parameters(KeyType.EC, curve, local=True)
            return domain.generate_keypair(
                id=_id(name), label=name, store=self._stored, capabilities=SIGNING, mechanism=Mechanism.EC_KEY_PAIR_GEN,
                public_template={Attribute.PRIVATE: False} | {key: template[key] for key in template.keys() & FIXED},
                private_template=template,
            )  # fmt: skip

        with token_errors(self._place, "making a signing key"):
            self._found[_PUBLIC, name], self._found[_PRIVATE, name] = _fixed_if_allowed(generate, GUARDED)
        self._refuse_unfit(name)
        return self.public_key(name)

    def public_key(self, name: str) -> bytes:
        key = self._key(name, _PUBLIC)
        with self._using(name, _PUBLIC, "reading a public key"):
            parameters, point = key[Attribute.EC_PARAMS], key[Attribute.EC_POINT]
        if (spki := p256.spki(parameters, point)) is None:
            raise TokenUnfit(f"the public key {name!r} on {self._place.title} is not a P-256 key")
        return spki

    def sign(self, name: str, data: bytes) -> bytes:
        key = self._key(name, _PRIVATE)
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
        found = self._find(name, ObjectClass.DATA)
        with token_errors(self._place, "reading an object"):
            return tuple(data[Attribute.VALUE] for data in found)

    # All of them

    def names(self) -> Sequence[str]:
        names: set[str] = set()
        with token_errors(self._place, "listing its objects"):
            for object_class in _CLASSES:
                for item in list(self._session.get_objects(self._template(object_class))):
                    try:
                        names.add(item[Attribute.LABEL])
                    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, UnicodeDecodeError):
                        continue  # another program's object
        self._refuse_vanished("listing its objects")
        return sorted(name for name in names if name.startswith(PREFIX))

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
        secret, private = self._find(name, _SECRET), self._find(name, _PRIVATE)
        if len(secret) + len(private) > 1:
            raise self._duplicate(name)
        if not secret and not private:
            raise KeyError(name)
        with token_errors(self._place, "reading a key's attributes"):
            read = (secret or private)[0].get_attributes(CLAIMS)
        claims = {attribute.name.lower(): bool(read[attribute]) for attribute in CLAIMS if attribute in read}
        found = list(problems(claims, KEK_SHOULD if secret else SIGNING_KEY_SHOULD))
        if private and not self._find(name, _PUBLIC):
            found.append("its public key is not on the token")
        return Evidence(name, claims, tuple(found))

    # Finding

    def _template(self, object_class: ObjectClass, name: str | None = None) -> dict[Attribute, Any]:
        template: dict[Attribute, Any] = {Attribute.CLASS: object_class, Attribute.TOKEN: self._stored}
        return template if name is None else {**template, Attribute.LABEL: name}

    def _find(self, name: str, object_class: ObjectClass) -> list[Any]:
        """All of that name and class. An unfinished search would block the next, hence a list."""
        with token_errors(self._place, "looking for an object"):
            found = list(self._session.get_objects(self._template(object_class, name)))
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

    def _refuse_unfit(self, name: str) -> None:
        found = self.evidence(name).problems
        if found:
            self.destroy(name)
            raise TokenUnfit(f"{self._place.title} made {name!r} otherwise than asked: {'; '.join(found)}")

    def _destroy_quietly(self, keys: Sequence[pkcs11.SecretKey]) -> None:
        for key in keys:
            with contextlib.suppress(PKCS11Error), LOCK:
                key.destroy()

    def _still_works(self, item: Any) -> bool:
        """Whether a destroyed object's handle is still good for anything: the proof that it is gone."""
        with LOCK:
            try:
                if hasattr(item, "wrap_key"):
                    wrap_key(self._place, self._session, item, bytes(32))
                elif hasattr(item, "sign"):
                    item.sign(bytes(32), mechanism=Mechanism.ECDSA)
                else:
                    item.get_attributes([Attribute.LABEL])
            except PKCS11Error as exc:
                if not isinstance(exc, GONE) and not self._place.present():
                    raise TokenRemoved(f"{self._place.title} was removed while destroying a key") from exc
                return False
        return True


def _fixed_if_allowed(generate: Callable[[dict[Attribute, bool]], Made], template: dict[Attribute, bool]) -> Made:
    """Generate with attributes that cannot be changed later, or without that where the token refuses it."""
    try:
        return generate(template | FIXED)
    except _REFUSALS:
        return generate(dict(template))


def _id(name: str) -> bytes:
    """CKA_ID, by which other programs join a key pair's halves. This one goes by the label."""
    return hashlib.sha256(name.encode()).digest()[:8]


def _check_name(name: str) -> None:
    # An empty label is a wildcard of sorts: it fits every object without one.
    if not name.startswith(PREFIX):
        raise ValueError(f"names on a token begin with {PREFIX!r}")
