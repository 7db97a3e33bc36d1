"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    pass

TrustRow = tuple[str, str, bytes]  # kind, name, value


class EntryRow(NamedTuple):
    """An entry and its head as the file keeps them."""

    sequence: int
    stored: bytes
    hash: bytes
    trust: bytes
    signer: bytes
    signature: bytes


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
