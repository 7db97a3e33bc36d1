"""Profile ``p256-hpke`` apart from any token: what is sealed to a KEK's public key (docs/spec/tokens.md).

The token's part is one ECDH, which its backend hands in. A vault keyset takes 177 bytes: ``enc`` 65, three keys and
a tag; a single key 113.
"""

from __future__ import annotations

from medcrypt_hsm.crypto import hpke
from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.sentences import t

WRAPPED = hpke.ENC + 3 * 32 + hpke.TAG
WRAPPED_KEY = hpke.ENC + 32 + hpke.TAG


def wrap_keyset(spki: bytes, keyset: KeysetSecret, info: bytes) -> bytes:
    """177 bytes for the KEK whose public key is ``spki`` (DER SubjectPublicKeyInfo). No token is needed."""
    if any(len(key) != 32 for key in keyset):
        raise ValueError("the keys of a keyset have 32 bytes")
    with Secret(b"".join(keyset)) as joined:
        return hpke.seal(spki, info, joined.value)


def unwrap_keyset(ecdh: hpke.Ecdh, spki: bytes, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
    """The three keys. Raises NotAuthentic, and what ``ecdh`` raises. The caller wipes them."""
    if len(wrapped) != WRAPPED:
        raise NotAuthentic(
            t("a wrapped vault keyset has {right} bytes, not {count}", right=WRAPPED, count=len(wrapped))
        )
    with hpke.open_with(ecdh, hpke.point_of(spki), info, wrapped) as joined:
        wrapping, mac, sealing = (Secret(joined.value[at : at + 32]) for at in (0, 32, 64))
    return wrapping, mac, sealing


def wrap_key(spki: bytes, key: bytes, info: bytes) -> bytes:
    """113 bytes for the KEK whose public key is ``spki``."""
    if len(key) != 32:
        raise ValueError("a key to wrap has 32 bytes")
    return hpke.seal(spki, info, key)


def unwrap_key(ecdh: hpke.Ecdh, spki: bytes, wrapped: bytes, info: bytes) -> Secret:
    """The key. Raises NotAuthentic, and what ``ecdh`` raises. The caller wipes it."""
    if len(wrapped) != WRAPPED_KEY:
        raise NotAuthentic(t("a wrapped key has {right} bytes, not {count}", right=WRAPPED_KEY, count=len(wrapped)))
    return hpke.open_with(ecdh, hpke.point_of(spki), info, wrapped)
