"""AES-256-GCM (NIST SP 800-38D) over buffers, for texts too long to be copied about.

In: a key in host memory, 12-byte nonces, chunks. Out: bytes in the caller's buffer, or NotAuthentic.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.errors import NotAuthentic

TAG_BYTES = 16  # they follow the ciphertext


class Gcm:
    """One key, for a few chunks: made anew for each batch, since OpenSSL keeps the expanded key in memory that is not
    locked for as long as this lives."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal_into(self, nonce: bytes, plaintext: memoryview, aad: bytes, into: memoryview) -> int:
        """The bytes written: as many as the plaintext has, and TAG_BYTES."""
        return self._cipher.encrypt_into(nonce, plaintext, aad, into)

    def open_into(self, nonce: bytes, sealed: memoryview, aad: bytes, into: memoryview) -> int:
        """The bytes written: TAG_BYTES fewer than ``sealed`` has. Raises NotAuthentic."""
        try:
            return self._cipher.decrypt_into(nonce, sealed, aad, into)
        except InvalidTag as exc:
            raise NotAuthentic("the text was altered, or its key is another") from exc

    def is_authentic(self, nonce: bytes, sealed: memoryview, aad: bytes) -> bool:
        """Would it open?"""
        try:
            self._cipher.decrypt(nonce, sealed, aad)
        except InvalidTag:
            return False
        return True
