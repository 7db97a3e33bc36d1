"""Profile ``aes-kw`` on PKCS#11: the KEK is an AES-256 key, and everything under it stays on the token.

Functions over a session and the KEK's handle. Foreign errors pass through but where a refusal means "forged"; the
caller holds the lock and translates.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pkcs11 import Attribute, KeyType, Mechanism, PKCS11Error, SecretKey, Session

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret
from medcrypt_hsm.errors import NotAuthentic, TokenUnfit
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.pkcs11.errors import LOCK
from medcrypt_hsm.tokens.pkcs11.keys import (
    MAC,
    SEALING,
    WRAPPING,
    Pkcs11AeadKey,
    Pkcs11MacKey,
    Pkcs11WrappingKey,
    fixed_if_allowed,
    key_id,
    read_secret,
    unwrap_key,
    unwrap_readable,
    wrap_key,
)
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.secret import Secret


NEEDED = {
    Mechanism.AES_KEY_GEN: "generating AES keys (CKM_AES_KEY_GEN)",
    Mechanism.AES_KEY_WRAP: "AES key wrap (CKM_AES_KEY_WRAP)",
    Mechanism.AES_GCM: "AES-GCM (CKM_AES_GCM)",
    Mechanism.SHA256_HMAC: "HMAC-SHA-256 (CKM_SHA256_HMAC)",
}
WRAPPED = 120
_PARTS = (0, 40, 80)


def make_kek(session: Session, name: str, *, stored: bool) -> SecretKey:
    def generate(template: dict[Attribute, bool]) -> SecretKey:
        return session.generate_key(
            KeyType.AES, 256, id=key_id(name), label=name, store=stored, capabilities=WRAPPING,
            mechanism=Mechanism.AES_KEY_GEN, template=template,
        )  # fmt: skip

    return fixed_if_allowed(generate)


def wrap_keyset(place: SlotToken, session: Session, kek: SecretKey, keyset: KeysetSecret) -> bytes:
    """Three AES-KW blobs of 40 bytes: wrapping, mac, sealing."""
    return b"".join(wrap_key(place, session, kek, secret) for secret in keyset)


def unwrap_keyset(place: SlotToken, session: Session, kek: SecretKey, wrapped: bytes) -> KeysetHandles:
    """Raises NotAuthentic, TokenUnfit, TokenRemoved or TokenError."""
    made: list[SecretKey] = []
    plan = ((KeyType.AES, WRAPPING), (KeyType.GENERIC_SECRET, MAC), (KeyType.AES, SEALING))
    try:
        for part, (key_type, uses) in zip(_parts(wrapped), plan, strict=True):
            made.append(unwrap_key(place, kek, part, key_type, uses))
    except BaseException:
        for key in made:
            with contextlib.suppress(PKCS11Error), LOCK:
                key.destroy()
        raise
    wrapping, mac, sealing = made
    return KeysetHandles(
        Pkcs11WrappingKey(place, session, wrapping),
        Pkcs11MacKey(place, session, mac),
        Pkcs11AeadKey(place, session, sealing),
    )


def unwrap_to_host(place: SlotToken, session: Session, kek: SecretKey, wrapped: bytes) -> tuple[Secret, Secret, Secret]:
    """Raises NotAuthentic, TokenUnfit, TokenRemoved or TokenError."""
    secrets: list[Secret] = []
    try:
        for part in _parts(wrapped):
            secrets.append(read_secret(place, session, unwrap_readable(place, kek, part), 32))
    except BaseException:
        for secret in secrets:
            secret.wipe()
        raise
    wrapping, mac, sealing = secrets
    return wrapping, mac, sealing


def unwrap_key_to_host(place: SlotToken, session: Session, kek: SecretKey, wrapped: bytes) -> Secret:
    """Raises NotAuthentic, TokenUnfit, TokenRemoved or TokenError."""
    if len(wrapped) != 40:
        raise NotAuthentic(t("a wrapped key has 40 bytes, not {count}", count=len(wrapped)))
    return read_secret(place, session, unwrap_readable(place, kek, wrapped), 32)


def still_works(place: SlotToken, session: Session, kek: SecretKey) -> None:
    """Use the KEK. Raises PKCS11Error where it is gone."""
    with contextlib.suppress(TokenUnfit):  # a wrong length is a use all the same
        wrap_key(place, session, kek, bytes(32))


def _parts(wrapped: bytes) -> list[bytes]:
    if len(wrapped) != WRAPPED:
        raise NotAuthentic(
            t("a wrapped vault keyset has {right} bytes, not {count}", right=WRAPPED, count=len(wrapped))
        )
    return [wrapped[at : at + 40] for at in _PARTS]
