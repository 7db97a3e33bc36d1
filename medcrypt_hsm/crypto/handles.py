"""Key handles: what can be done with a key that nobody sees. It lives on a token, or in locked host memory.

The protocols that everything above is written against; crypto/hostkeys.py and tokens/pkcs11/keys.py fulfil them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from medcrypt_hsm.errors import NotAuthentic

KeysetSecret = tuple[bytes, bytes, bytes]  # wrapping, mac, sealing: 32 bytes each


class AeadKey(Protocol):
    """AES-256-GCM under one key (NIST SP 800-38D). 12-byte nonce, 16-byte tag after the ciphertext."""

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes: ...
    def open(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        """Raises NotAuthentic."""
        ...

    def destroy(self) -> None: ...


class OpensMany(Protocol):
    """An ``AeadKey`` that opens several texts in less time than one after the other."""

    def open_many(self, texts: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]: ...


def open_each(key: AeadKey, texts: Sequence[tuple[bytes, bytes, bytes]]) -> Iterator[bytes | None]:
    """Each (nonce, sealed, aad) opened, in order; None for one that is not authentic."""
    several: OpensMany | None = key if hasattr(key, "open_many") else None  # type: ignore[assignment]
    if several is not None:
        yield from several.open_many(texts)
        return
    for nonce, sealed, aad in texts:
        try:
            yield key.open(nonce, sealed, aad)
        except NotAuthentic:
            yield None


class MacKey(Protocol):
    """HMAC-SHA-256 under one key; 32 bytes come out to the host."""

    def mac(self, data: bytes) -> bytes: ...
    def destroy(self) -> None: ...


class WrappingKey(Protocol):
    """AES key wrap (RFC 3394) under one key. What is unwrapped serves the one purpose named, unreadable."""

    def wrap(self, key: bytes) -> bytes:
        """32 bytes of key from host memory → 40 bytes."""
        ...

    def unwrap_aead(self, wrapped: bytes) -> AeadKey:
        """Raises NotAuthentic."""
        ...

    def unwrap_mac(self, wrapped: bytes) -> MacKey:
        """Raises NotAuthentic."""
        ...

    def destroy(self) -> None: ...


class KeysetHandles(NamedTuple):
    """The three keys of an unwrapped vault keyset."""

    wrapping: WrappingKey
    mac: MacKey
    sealing: AeadKey
