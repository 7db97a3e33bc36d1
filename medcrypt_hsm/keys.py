"""The key schedule: what is derived from what, and under which context (docs/spec/vault.md, docs/spec/messages.md).

In: key handles of an unwrapped vault keyset (they may live on a token or in locked host memory; this module does not
ask). Out: rows that can be stored, and handles that came out of rows whose MAC was right. No device, no disk, no clock.
Not here: where handles come from (tokens/) and when a key may be used (messages.py, months.py).
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from medcrypt_hsm.context import ctx, lp, u64
from medcrypt_hsm.errors import NotAuthentic, VaultDamaged
from medcrypt_hsm.period import Month
from medcrypt_hsm.secret import Secret

KeysetSecret = tuple[bytes, bytes, bytes]  # wrapping, mac, sealing: 32 bytes each

MESSAGE, CHAIN, LOG, SEEN = "message", "chain", "log", "seen"  # purposes of records
_EVIDENCE = "copy the file away as evidence, then restore a backup: 'medcrypt vault restore FILE'"
PATIENT, QR, V1_SECRET = "patient", "qr", "v1-secret"  # purposes of sealed rows


class AeadKey(Protocol):
    """AES-256-GCM under one key (NIST SP 800-38D). 12-byte nonce, 16-byte tag behind the ciphertext."""

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


class RecordRow(NamedTuple):
    """A wrapped key as the file keeps it."""

    purpose: str
    pairing: bytes
    month: str
    sequence: int
    wrapped: bytes
    mac: bytes

    @property
    def ref(self) -> str:
        return record_ref(self.purpose, self.pairing, self.month)


class SealedRow(NamedTuple):
    """A sealed value as the file keeps it."""

    purpose: str
    pairing: bytes
    lookup: bytes
    sequence: int
    nonce: bytes
    body: bytes

    @property
    def ref(self) -> str:
        return sealed_ref(self.purpose, self.pairing)


def record_ref(purpose: str, pairing: bytes, month: str) -> str:
    """How audit entries name a row of ``records``."""
    return f"record:{purpose}:{pairing.hex()}:{month}"


def sealed_ref(purpose: str, pairing: bytes) -> str:
    """How audit entries name a row of ``sealed``."""
    return f"sealed:{purpose}:{pairing.hex()}"


def canonical(value: Any) -> bytes:
    """Canonical JSON (docs/spec/notation.md)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_EIGHT = (8).to_bytes(4, "big")  # the length of a u64


class VaultKeyset:
    """The three keys of a vault, unwrapped, and everything that is done with them."""

    def __init__(self, handles: KeysetHandles, vault_id: bytes) -> None:
        self._wrapping = handles.wrapping
        self._mac = handles.mac
        self._sealing = handles.sealing
        self._vault_id = vault_id
        self._record_heads: dict[str, bytes] = {}  # what the MAC of every record of a purpose begins with

    # Records: keys under ``wrapping``

    def wrap(self, purpose: str, pairing: bytes, month: str, sequence: int, key: Secret) -> RecordRow:
        wrapped = self._wrapping.wrap(key.value)
        return RecordRow(
            purpose, pairing, month, sequence, wrapped, self._record_mac(purpose, pairing, month, sequence, wrapped)
        )

    def aead_key(self, row: RecordRow) -> AeadKey:
        """The message key or log key in ``row``. Raises VaultDamaged."""
        return self._wrapping.unwrap_aead(self._checked(row))

    def chain_key(self, row: RecordRow) -> ChainKey:
        """Raises VaultDamaged."""
        return ChainKey(self._wrapping.unwrap_mac(self._checked(row)), row.pairing)

    def passing_key(self, key: Secret) -> AeadKey:
        """A handle on a key that is not kept: the next month's, within clock skew."""
        return self._wrapping.unwrap_aead(self._wrapping.wrap(key.value))

    def _checked(self, row: RecordRow) -> bytes:
        expected = self._record_mac(row.purpose, row.pairing, row.month, row.sequence, row.wrapped)
        if not hmac.compare_digest(expected, row.mac):
            raise VaultDamaged(f"the stored {row.purpose} key of {row.month} was altered", _EVIDENCE)
        return row.wrapped

    def _record_mac(self, purpose: str, pairing: bytes, month: str, sequence: int, wrapped: bytes) -> bytes:
        head = self._record_heads.get(purpose)
        if head is None:
            head = self._record_heads[purpose] = ctx("medcrypt/record", purpose, self._vault_id)
        # The rest of the ctx, joined by hand: a re-key makes a hundred thousand of these.
        rest = lp(pairing) + lp(month.encode()) + _EIGHT + u64(sequence) + lp(wrapped)
        return self._mac.mac(head + rest)

    def check_record(self, row: RecordRow) -> None:
        """Raises VaultDamaged if the row is not as it was written."""
        self._checked(row)

    # Sealed rows: values under ``sealing``

    def seal(self, purpose: str, pairing: bytes, sequence: int, value: Any, *, lookup: bytes = b"") -> SealedRow:
        nonce = os.urandom(12)
        aad = self._sealed_aad(purpose, pairing, lookup, sequence)
        return SealedRow(purpose, pairing, lookup, sequence, nonce, self._sealing.seal(nonce, canonical(value), aad))

    def open(self, row: SealedRow) -> Any:
        """Raises VaultDamaged."""
        aad = self._sealed_aad(row.purpose, row.pairing, row.lookup, row.sequence)
        try:
            return json.loads(self._sealing.open(row.nonce, row.body, aad))
        except NotAuthentic as exc:
            raise VaultDamaged(f"a stored {row.purpose} row was altered", _EVIDENCE) from exc

    def carry_sealed(self, row: SealedRow, into: VaultKeyset) -> SealedRow:
        """The same value, of the same audit entry, under the other keyset. Raises VaultDamaged."""
        value = self.open(row)
        lookup = into.lookup(value["id"]) if row.purpose == PATIENT else b""
        return into.seal(row.purpose, row.pairing, row.sequence, value, lookup=lookup)

    def _sealed_aad(self, purpose: str, pairing: bytes, lookup: bytes, sequence: int) -> bytes:
        return ctx("medcrypt/sealed", purpose, self._vault_id, pairing, lookup, u64(sequence))

    def lookup(self, patient_id: str) -> bytes:
        """What the file is searched by instead of a patient's id."""
        return self._mac.mac(ctx("medcrypt/lookup", self._vault_id, patient_id))

    def seen_root(self, row: RecordRow) -> SeenRoot:
        """Raises VaultDamaged."""
        return SeenRoot(self._wrapping.unwrap_mac(self._checked(row)), self._vault_id)

    def destroy(self) -> None:
        for handle in (self._wrapping, self._mac, self._sealing):
            handle.destroy()

    def __repr__(self) -> str:
        return "VaultKeyset(…)"


class ChainKey:
    """C(m) of one v2 pairing as a handle: yields the next month's chain key, one way."""

    def __init__(self, handle: MacKey, pairing: bytes) -> None:
        self._handle = handle
        self._pairing = pairing

    def step(self, next_month: Month) -> Secret:
        """C(m+1), in host memory for as long as it takes to wrap it."""
        return Secret(self._handle.mac(_chain_info(self._pairing, next_month)))

    def destroy(self) -> None:
        self._handle.destroy()


def step_chain(chain_key: Secret, pairing: bytes, next_month: Month) -> Secret:
    """C(m+1) from a C(m) that is in host memory."""
    return Secret(_hmac(chain_key, _chain_info(pairing, next_month)))


def derive_message_key(chain_key: Secret, pairing: bytes, month: Month) -> Secret:
    """M(m) from C(m)."""
    return Secret(_hmac(chain_key, ctx("medcrypt/v2/message", pairing, str(month)) + b"\x01"))


def check_code(chain_key: Secret, pairing: bytes) -> str:
    """Six digits that both sides compare, from the chain key of the month of pairing."""
    head = _hmac(chain_key, ctx("medcrypt/v2/check", pairing) + b"\x01")[:8]
    return f"{int.from_bytes(head, 'big') % 1_000_000:06}"


def _chain_info(pairing: bytes, next_month: Month) -> bytes:
    return ctx("medcrypt/v2/chain", pairing, str(next_month)) + b"\x01"


def _hmac(key: Secret, info_and_counter: bytes) -> bytes:
    """HKDF-Expand to at most 32 bytes is one HMAC over info || 0x01 (RFC 5869 section 2.3)."""
    return hmac.digest(key.value, info_and_counter, "sha256")


_NONCE_HEAD = lp(b"medcrypt/seen/nonce") + (12).to_bytes(4, "big")
_READ_HEAD = lp(b"medcrypt/seen/read")
_SENT_HEAD = lp(b"medcrypt/seen/sent")
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class SeenRoot:
    """From which the keys come by which seen texts are recognised; kept when the vault is re-keyed."""

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
        """Of each text behind ``head`` the first 16 bytes of the HMAC (RFC 2104 section 5)."""
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
