"""What goes into a store and comes out of it: rows (docs/spec/vault.md), and the ``Location`` of a vault.

Values alone: how audit entries name rows is here, what is in their bytes is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

BUSY_SECONDS = 60.0  # for which a writer waits for the others
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


class LookupRow(NamedTuple):
    """By what a patient's sealed row is found."""

    lookup: bytes
    purpose: str
    pairing: bytes


def record_ref(purpose: str, pairing: bytes, month: str) -> str:
    """How audit entries name a row of ``records``."""
    return f"record:{purpose}:{pairing.hex()}:{month}"


def sealed_ref(purpose: str, pairing: bytes) -> str:
    """How audit entries name a row of ``sealed``."""
    return f"sealed:{purpose}:{pairing.hex()}"


class Location(NamedTuple):
    """What a vault is called: a value, and not a path, for one day a vault is in a file, another day on a server.

    There is one form today, the path of a SQLite file. Another one, ``scheme://…``, is to be told apart in ``parse``,
    which is why a command line passes on what was typed.

    Made by ``parse``. Equal where the names are equal; whether two names mean one vault, only its id can tell.
    """

    text: str

    @classmethod
    def parse(cls, named: Named) -> Location:
        """The path as it was given, but for what ``Path`` leaves out: "./vault.db" is "vault.db"."""
        return named if isinstance(named, Location) else cls(str(Path(named)))

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """Its last part, which a person types to agree that this vault be replaced."""
        return Path(self.text).name

    def absolute(self) -> Location:
        """The same vault, for a process that stands in another directory."""
        return Location(str(Path(self.text).absolute()))


Named = str | Path | Location
"""How a user of the library may name a vault."""
