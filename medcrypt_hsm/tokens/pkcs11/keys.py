"""Templates, and the handles of unwrapped keys.

What a key may do is stated here, attribute by attribute, because modules differ in what they assume: SoftHSM2 unwraps
readable keys unless told not to, and others ignore what they are told. So unwrapped keys are read back.

``AeadKey.open`` runs thousands of times in a row: no context manager, no name looked up twice.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error, SecretKey, Session

from medcrypt_hsm.errors import NotAuthentic, TokenError, TokenUnfit
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.pkcs11 import cryptoki
from medcrypt_hsm.tokens.pkcs11.errors import GCM_ERRORS, LOCK, Place, translate
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.secret import Secret


# Names of the module, not attributes of a class: looked up once at import instead of at every call.
_AES_GCM = Mechanism.AES_GCM
_AES_KEY_WRAP = Mechanism.AES_KEY_WRAP
_SHA256_HMAC = Mechanism.SHA256_HMAC
_SECRET_KEY = ObjectClass.SECRET_KEY
_AES, _GENERIC = KeyType.AES, KeyType.GENERIC_SECRET
_TAG = 16
WRAPPING = MechanismFlag.WRAP | MechanismFlag.UNWRAP
SEALING = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
SIGNING = MechanismFlag.SIGN | MechanismFlag.VERIFY  # of a pair: the private key gets SIGN, the public one VERIFY
MAC = MechanismFlag.SIGN
DERIVING = MechanismFlag.DERIVE
NO_USE = MechanismFlag(0)
GUARDED = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
READABLE = {Attribute.PRIVATE: True, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
FIXED = {Attribute.MODIFIABLE: False}
_REFUSALS = (
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.TemplateInconsistent,
)
Made = TypeVar("Made")
USES = {
    Attribute.ENCRYPT: MechanismFlag.ENCRYPT,
    Attribute.DECRYPT: MechanismFlag.DECRYPT,
    Attribute.WRAP: MechanismFlag.WRAP,
    Attribute.UNWRAP: MechanismFlag.UNWRAP,
    Attribute.SIGN: MechanismFlag.SIGN,
    Attribute.VERIFY: MechanismFlag.VERIFY,
    Attribute.DERIVE: MechanismFlag.DERIVE,
}
_READ_BACK = [*GUARDED, Attribute.TOKEN, *USES]


def expected(uses: MechanismFlag) -> dict[Attribute, bool]:
    """What an unwrapped key must say of itself."""
    return {**GUARDED, Attribute.TOKEN: False, **{attribute: bool(flag & uses) for attribute, flag in USES.items()}}


_EXPECTED = {uses: expected(uses) for uses in (WRAPPING, SEALING, MAC)}


def fixed_if_allowed(generate: Callable[[dict[Attribute, bool]], Made]) -> Made:
    """Generate with attributes that cannot be changed later, or without that where the token refuses it."""
    try:
        return generate(GUARDED | FIXED)
    except _REFUSALS:
        return generate(dict(GUARDED))


def key_id(name: str) -> bytes:
    """CKA_ID, by which other programs join a key pair's halves. This one goes by the label."""
    return hashlib.sha256(name.encode()).digest()[:8]


def generate_pair(
    session: Session, name: str, uses: MechanismFlag, *, stored: bool
) -> tuple[pkcs11.PublicKey, pkcs11.PrivateKey]:
    """A P-256 pair of which the private half is for ``uses`` alone. Foreign errors pass through."""
    from medcrypt_hsm.tokens.pkcs11 import p256

    def generate(template: dict[Attribute, bool]) -> tuple[pkcs11.PublicKey, pkcs11.PrivateKey]:
        curve = {Attribute.EC_PARAMS: p256.PARAMETERS}
        public = {Attribute.PRIVATE: False, Attribute.DERIVE: False}
        domain = session.create_domain_parameters(KeyType.EC, curve, local=True)
        return domain.generate_keypair(
            id=key_id(name), label=name, store=stored, capabilities=uses, mechanism=Mechanism.EC_KEY_PAIR_GEN,
            public_template=public | {key: template[key] for key in template.keys() & FIXED},
            private_template=template,
        )  # fmt: skip

    return fixed_if_allowed(generate)


def read_secret(place: SlotToken, session: Any, key: Any, length: int) -> Secret:
    """The value of a readable session key, which is destroyed. Foreign errors pass through; raises TokenUnfit."""
    from medcrypt_hsm.crypto.secret import Secret

    secret = Secret(bytes(length))
    try:
        try:
            got = cryptoki.read_value(place.module.path, session.handle, key.handle, secret)
        finally:
            key.destroy()
        if got != length:
            raise TokenUnfit(
                t(
                    "{token} gave a secret of {count} bytes instead of {right}",
                    token=place.title,
                    count=got,
                    right=length,
                )
            )
    except pkcs11.AttributeSensitive as exc:
        secret.wipe()
        raise TokenUnfit(
            t("{token} does not let the host read a secret that was made to be read", token=place.title)
        ) from exc
    except BaseException:
        secret.wipe()
        raise
    return secret


def host_key_template(key: bytes) -> dict[Attribute, Any]:
    """A session key made of host bytes, for nothing but to be wrapped and destroyed."""
    return {
        Attribute.CLASS: _SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
        Attribute.TOKEN: False,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: True,
        Attribute.VALUE: key,
    }


def wrap_key(place: Place, session: Session, kek: SecretKey, key: bytes) -> bytes:
    """AES-KW of 32 host bytes under ``kek``: 40 bytes (RFC 3394). Foreign errors pass through."""
    if len(key) != 32:
        raise ValueError("a key to wrap has 32 bytes")
    carrier = session.create_object(host_key_template(key))
    try:
        wrapped: bytes = kek.wrap_key(carrier, mechanism=_AES_KEY_WRAP)  # type: ignore[attr-defined]
    finally:
        carrier.destroy()
    if len(wrapped) != 40:
        raise TokenUnfit(
            t(
                "{token} wraps a 32-byte key into {count} bytes; AES key wrap gives 40",
                token=place.title,
                count=len(wrapped),
            )
        )
    return wrapped


def unwrap_key(
    place: Place, kek: SecretKey, wrapped: bytes, key_type: KeyType, uses: MechanismFlag, *, read_back: bool = True
) -> SecretKey:
    """A session key for ``uses`` alone. Raises NotAuthentic, TokenUnfit, TokenRemoved or TokenError."""
    if len(wrapped) != 40:
        raise NotAuthentic(t("a wrapped key has 40 bytes, not {count}", count=len(wrapped)))
    try:
        with LOCK:
            key: SecretKey = kek.unwrap_key(  # type: ignore[attr-defined]
                _SECRET_KEY, key_type, wrapped, mechanism=_AES_KEY_WRAP, capabilities=uses, template=GUARDED
            )
            claims = key.get_attributes(_READ_BACK) if read_back else _EXPECTED[uses]
    except GCM_ERRORS as exc:
        raise translate(exc, place, t("unwrapping a key"), opening=True) from exc
    if claims != _EXPECTED[uses]:
        with contextlib.suppress(PKCS11Error), LOCK:
            key.destroy()
        raise TokenUnfit(
            t(
                "{token} unwraps keys otherwise than asked: {differences}",
                token=place.title,
                differences=_differences(claims, _EXPECTED[uses]),
            )
        )
    return key


def unwrap_readable(place: Place, kek: SecretKey, wrapped: bytes) -> SecretKey:
    """A session key that the host may read: to wrap a keyset for another token, or to re-key.

    Errors as in ``unwrap_key``.
    """
    try:
        with LOCK:
            key: SecretKey = kek.unwrap_key(  # type: ignore[attr-defined]
                _SECRET_KEY, _GENERIC, wrapped, mechanism=_AES_KEY_WRAP, capabilities=NO_USE, template=READABLE
            )
    except GCM_ERRORS as exc:
        raise translate(exc, place, t("unwrapping a key"), opening=True) from exc
    return key


def _differences(claims: Mapping[Attribute, Any], wanted: Mapping[Attribute, bool]) -> str:
    wrong = (attribute for attribute, value in wanted.items() if claims.get(attribute) is not value)
    return ", ".join(
        t("{attribute} is {value}", attribute=attribute.name, value=str(claims.get(attribute, "missing")).lower())
        for attribute in wrong
    )


def _destroyed(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("this key was destroyed")


class _Unwrapped:
    """A session key's handle. It shows no value, and dies with the session."""

    __slots__ = ("_key", "_place")

    def __init__(self, place: SlotToken, key: SecretKey) -> None:
        self._place = place
        self._key: SecretKey | None = key

    def __repr__(self) -> str:
        return f"{type(self).__name__}(on {self._place.title})"

    def destroy(self) -> None:
        """Destroy it on the token; a second time, or after the token was closed, there is nothing to do."""
        key, self._key = self._key, None
        self._disarm()
        if key is not None and not self._place.closed:
            try:
                with LOCK:
                    key.destroy()
            except PKCS11Error as exc:
                raise translate(exc, self._place, t("destroying a key")) from exc

    def _live_key(self, doing: str) -> SecretKey:
        """For calls by its handle, which may be another key's once this one is gone. Call it with the lock held."""
        if self._place.closed:
            raise RuntimeError(f"{self._place.title} was closed before {doing}")
        return self._key or _destroyed()

    def _disarm(self) -> None: ...


class Pkcs11AeadKey(_Unwrapped):
    """``AeadKey`` on the token."""

    __slots__ = ("_decrypt", "_encrypt", "_session")

    def __init__(self, place: SlotToken, session: Any, key: SecretKey) -> None:
        super().__init__(place, key)
        self._session = session
        # What ``encrypt`` and ``decrypt`` call for bytes. Those lose the buffer size on the way, and 8 KiB for every
        # message take a sixth of the whole call.
        self._encrypt: Callable[..., bytes] = key._encrypt  # type: ignore[attr-defined]
        self._decrypt: Callable[..., bytes] = key._decrypt  # type: ignore[attr-defined]

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        if len(nonce) != 12:
            raise ValueError("a nonce has 12 bytes")
        try:
            with LOCK:
                return self._encrypt(
                    plaintext,
                    buffer_size=len(plaintext) + _TAG,
                    mechanism=_AES_GCM,
                    mechanism_param=GCMParams(nonce, aad),
                )
        except GCM_ERRORS as exc:
            raise translate(exc, self._place, t("sealing")) from exc

    def open(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        if len(nonce) != 12:
            raise ValueError("a nonce has 12 bytes")
        if len(sealed) < _TAG:
            # Modules answer anything to less than a tag, and python-pkcs11 may overflow on it.
            raise NotAuthentic("not authentic: shorter than its tag")
        try:
            with LOCK:
                return self._decrypt(
                    sealed, buffer_size=len(sealed), mechanism=_AES_GCM, mechanism_param=GCMParams(nonce, aad)
                )
        except GCM_ERRORS as exc:
            raise translate(exc, self._place, t("opening a message"), opening=True) from exc

    def open_many(self, texts: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        with LOCK:
            key: Any = self._live_key("opening messages")
        opened: list[bytes | None] = []
        with cryptoki.gcm_opener(self._place.module.path, self._session.handle, key.handle) as open_:
            for nonce, sealed, aad in texts:
                text = None
                if len(nonce) == 12 and _TAG <= len(sealed) <= cryptoki.LONGEST:
                    with LOCK:
                        self._live_key("opening messages")
                        text = open_(nonce, sealed, aad)
                if text is None:  # too long for that, or refused: ``open`` says why
                    with contextlib.suppress(NotAuthentic):
                        text = self.open(nonce, sealed, aad)
                opened.append(text)
        return opened

    def _disarm(self) -> None:
        self._encrypt = self._decrypt = _destroyed


class Pkcs11MacKey(_Unwrapped):
    """``MacKey`` on the token."""

    __slots__ = ("_hmac", "_session")

    def __init__(self, place: SlotToken, session: Any, key: SecretKey) -> None:
        super().__init__(place, key)
        self._session = session
        self._hmac = cryptoki.sha256_hmac(place.module.path)

    def mac(self, data: bytes) -> bytes:
        try:
            with LOCK:
                key: Any = self._live_key("computing an HMAC")
                tag = self._hmac(self._session.handle, key.handle, data)
                if tag is None:  # it says why, or does it after all
                    tag = key.sign(data, buffer_size=32, mechanism=_SHA256_HMAC)
        except GCM_ERRORS as exc:
            raise translate(exc, self._place, t("computing an HMAC")) from exc
        if len(tag) != 32:
            raise TokenError(
                t("{token} gave an HMAC of {count} bytes instead of 32", token=self._place.title, count=len(tag))
            )
        return tag


class Pkcs11WrappingKey(_Unwrapped):
    """``WrappingKey`` on the token."""

    __slots__ = ("_proven", "_session")

    def __init__(self, place: SlotToken, session: Session, key: SecretKey) -> None:
        super().__init__(place, key)
        self._session = session
        # Uses whose template the token was seen to honour in this session. A module that ignores templates ignores
        # them every time, so one reading of each kind is enough, and it costs an eighth of an unwrap.
        self._proven: set[MechanismFlag] = set()

    def wrap(self, key: bytes) -> bytes:
        kek = self._key or _destroyed()
        try:
            with LOCK:
                return wrap_key(self._place, self._session, kek, key)
        except GCM_ERRORS as exc:
            raise translate(exc, self._place, t("wrapping a key")) from exc

    def unwrap_aead(self, wrapped: bytes) -> Pkcs11AeadKey:
        return Pkcs11AeadKey(self._place, self._session, self._unwrap(wrapped, _AES, SEALING))

    def unwrap_mac(self, wrapped: bytes) -> Pkcs11MacKey:
        return Pkcs11MacKey(self._place, self._session, self._unwrap(wrapped, _GENERIC, MAC))

    def _unwrap(self, wrapped: bytes, key_type: KeyType, uses: MechanismFlag) -> SecretKey:
        kek = self._key or _destroyed()
        read_back = uses not in self._proven
        key = unwrap_key(self._place, kek, wrapped, key_type, uses, read_back=read_back)
        if read_back:
            self._proven.add(uses)
        return key
