"""HPKE base mode (RFC 9180) of one more suite: X-Wing (KEM 0x647a, MLKEM768-X25519), HKDF-SHA256, AES-256-GCM.

It outlasts a quantum computer, and breaks only where ML-KEM-768 and X25519 both do (docs/spec/breakglass.md, "The
break-glass key"). No token speaks it: the private key is a seed of 32 bytes in host memory, and all else is the
cryptography package. Not here: where a seed comes from, and who may be believed; base mode authenticates nobody.

    seed ─SHAKE-256─▶ d || z ─▶ ML-KEM-768 private key ┐
                      and 32 bytes ─▶ X25519 private key ┴─▶ public key, or the opened text

The seed's expansion and the plaintext are each in a ``Secret``; the two private keys are the package's, and OpenSSL's,
which clears them when they are freed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hpke
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SEED = 32
PUBLIC = 1216  # bytes of a public key: 1,184 of ML-KEM-768, then 32 of X25519
ENC = 1120  # bytes of an encapsulated key: 1,088 of ML-KEM-768, then 32 of X25519
TAG = 16
_PUBLIC_M = 1184


def public_key(seed: bytes) -> bytes:
    """The 1,216 bytes of the public key that belongs to a seed. The seed stays the caller's."""
    mlkem, x25519 = _private_keys(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def seal(public_key: bytes, info: bytes, plaintext: bytes) -> bytes:
    """``enc || ct``, 1,136 bytes more than the plaintext, single-shot with empty AAD (section 6.1).

    Raises NotAuthentic for what is no public key, because such a key always comes out of a file.
    """
    from cryptography.hazmat.primitives import hpke
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

    try:
        key = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(public_key[:_PUBLIC_M]),
            x25519.X25519PublicKey.from_public_bytes(public_key[_PUBLIC_M:]),
        )
        return _suite().encrypt(plaintext, key, info)
    except ValueError as exc:  # sealing raises it too: some X25519 keys give the shared secret 0 with any private key
        raise NotAuthentic("not authentic: it is not an X-Wing public key") from exc


def open_with_seed(seed: Secret | bytes, info: bytes, sealed: bytes) -> Secret:
    """The plaintext of ``enc || ct``. The seed stays the caller's, unwiped.

    Raises NotAuthentic where the text does not open. A plaintext has at least 16 bytes.
    """
    from cryptography.hazmat.primitives import hpke

    if len(sealed) < ENC + TAG + 16:
        raise NotAuthentic("not authentic: shorter than anything that was sealed")
    key = hpke.MLKEM768X25519PrivateKey(*_private_keys(seed.value if isinstance(seed, Secret) else seed))
    try:
        return Secret(_suite().decrypt(sealed, key, info))
    except InvalidTag as exc:
        raise NotAuthentic("not authentic: it was sealed for another key or purpose, or was altered") from exc


def _private_keys(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """expandDecapsulationKey of the draft. Raises ValueError, which is misuse, for a seed of another length."""
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

    if len(seed) != SEED:
        raise ValueError("a seed has 32 bytes")
    with Secret(hashlib.shake_256(seed).digest(96)) as expanded, memoryview(expanded.value) as view:  # no copies
        return (
            mlkem.MLKEM768PrivateKey.from_seed_bytes(view[:64]),
            x25519.X25519PrivateKey.from_private_bytes(view[64:]),
        )


def _suite() -> hpke.Suite:
    from cryptography.hazmat.primitives import hpke

    return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
