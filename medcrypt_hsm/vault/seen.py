"""Seen texts: how the program knows what it read or wrote before, without the file telling it (docs/spec/vault.md).

In: the vault's seen key as a handle, texts and nonces. Out: 16 bytes for each, which the file keeps instead of it. Not
here: what is done about a text or a nonce that was there before (messages/record.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from medcrypt_hsm.crypto.handles import MacKey
from medcrypt_hsm.notation import ctx, lp

_NONCE_HEAD = lp(b"medcrypt/seen/nonce") + (12).to_bytes(4, "big")
_READ_HEAD = lp(b"medcrypt/seen/read")
_SENT_HEAD = lp(b"medcrypt/seen/sent")
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class SeenRoot:
    """The key that gives the keys by which seen texts are recognised; kept when the vault is re-keyed."""

    def __init__(self, handle: MacKey, vault_id: bytes) -> None:
        self._handle = handle
        self._vault_id = vault_id

    def key(self, pairing: bytes, month: str) -> SeenKey:
        return SeenKey(self._handle.mac(ctx("medcrypt/seen", self._vault_id, pairing, month)))

    def destroy(self) -> None:
        self._handle.destroy()


class SeenKey:
    """Recognises texts under one message key without the file telling anybody else what was read.

    HMAC-SHA-256 by its definition (RFC 2104 section 2): the two hashes that begin with the key are made once and copied
    for each text. A pasted chat asks twenty thousand times, and copies of an ``hmac`` object take half as long again.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
        self._inner, self._outer = sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))

    def mac16(self, head: bytes, texts: Iterable[bytes]) -> list[bytes]:
        """The first 16 bytes of the HMAC of ``head`` and each text (RFC 2104 section 5)."""
        inner, outer = self._inner.copy(), self._outer
        inner.update(head)
        macs: list[bytes] = []
        for text in texts:
            begun, ended = inner.copy(), outer.copy()
            begun.update(text)
            ended.update(begun.digest())
            macs.append(ended.digest()[:16])
        return macs

    def nonces(self, nonces: Iterable[bytes]) -> list[bytes]:
        return self.mac16(_NONCE_HEAD, nonces)

    def read(self, texts: Iterable[str | bytes]) -> list[bytes]:
        """Of messages' wire texts, or of files' headers."""
        return self.mac16(_READ_HEAD, map(_with_length, texts))

    def sent(self, texts: Iterable[str | bytes]) -> list[bytes]:
        """The same, where one's own program wrote them."""
        return self.mac16(_SENT_HEAD, map(_with_length, texts))


def _with_length(text: str | bytes) -> bytes:
    return lp(text.encode() if isinstance(text, str) else text)
