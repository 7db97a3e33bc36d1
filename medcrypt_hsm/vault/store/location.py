"""``Location``: what a vault is called. A value, and not a path: today a vault is a file, later it may be on a server.

In: what a person typed, or a program's ``Path``. Out: the name by which messages call the vault, and from which
``open_store``, ``create_store``, ``open_draft`` and ``surroundings_of`` find it. Whether anything is there is not here.

There is one form today: the path of a SQLite file. Another one, ``scheme://…``, is to be told apart in ``parse``, which
is why a command line passes on what was typed and makes no ``Path`` of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Location:
    """Made by ``parse``. Equal where the names are equal; whether two names mean one vault, only its id can tell."""

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
