"""The rows of a vault, as every store keeps them (docs/spec/vault.md), and how audit entries name them.

Values alone: what is in their bytes is not known here.
"""

from __future__ import annotations

from typing import NamedTuple

TrustRow = tuple[str, str, bytes]  # kind, name, value


class EntryRow(NamedTuple):
    """An entry and its head as the store keeps them."""

    sequence: int
    stored: bytes
    hash: bytes
    trust: bytes
    signer: bytes
    signature: bytes


class RecordRow(NamedTuple):
    """A wrapped key as the store keeps it."""

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
    """A sealed value as the store keeps it."""

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
