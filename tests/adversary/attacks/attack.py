"""What a row of the table is. ``Attack.do`` alters a copy of the vault file, or what a token shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medcrypt_hsm.errors import AuditBroken, MedcryptError
from tests.adversary.attacks.hand import Hand
from tests.support.store import whole

FILE = "the file"
OLDER = "the file and older copies of it"
REMOVED = "the file, older copies, and a removed token with its PIN"
OTHER_VAULT = "the file, and another vault of the same token"
TOKEN = "the file, an older copy, and the token with its PIN"

OLD_FILE = "older than the token"

Act = Callable[[Hand], object]


@dataclass(frozen=True)
class Attack:
    """``holds``: what the attacker has. ``words``: a regular expression that the error's message meets.

    ``token``: the one that the file is shown to. ``everywhere``: tried with every command.
    """

    name: str
    holds: str
    do: Act
    error: type[MedcryptError]
    words: str
    token: str = "doctor"
    everywhere: bool = False

    def __str__(self) -> str:
        return self.name


def whole_file(name: str) -> Act:
    """Another file in its place."""
    return lambda hand: whole(hand.scene.files[name], hand.path)


def trusted(name: str, do: Act, holds: str = FILE, *, everywhere: bool = False) -> Attack:
    """Found because the newest head signs the trust state's rows."""
    return Attack(name, holds, do, AuditBroken, "trust state is not the one", everywhere=everywhere)
