"""What is left of a session that ends: an entry in the vault's log, or a note beside the vault where that cannot be.

In: the token, still open, and why the session ends. The vault file is opened for this alone; a session holds no file.
"""

from __future__ import annotations

from contextlib import suppress

from medcrypt_hsm.errors import MedcryptError, VaultError
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.session import place
from medcrypt_hsm.vault import notes
from medcrypt_hsm.vault.audit.actions import SESSION_END
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.store.rows import Location, Named
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.store.surroundings import surroundings_of
from medcrypt_hsm.vault.unlock import unlock

KILLED = "killed"


def record(vault: Named, token: Token, name: str, actor: str, why: str) -> None:
    """The entry ``session.end``. Closes the token. Raises what kept it from being written."""
    file = open_store(Location.parse(vault))
    try:
        unlocked = unlock(file, token, name, actor=actor)
        try:
            unlocked.record(SESSION_END, name, {"why": why})
        finally:
            unlocked.lock()
    finally:
        file.close()


def leave_note(vault: Named, name: str, actor: str, why: str, clock: Clock = system_clock) -> None:
    """For the next unlock to enter. Never fails: the session must end."""
    with suppress(VaultError, MedcryptError, OSError):
        notes.write(Location.parse(vault), SESSION_END, timestamp(clock()), token=name, actor=actor, why=why)


def note_killed(vault: Location, actor: str, clock: Clock) -> None:
    """Where an agent was killed, whoever comes next says so."""
    if place.clear_dead(surroundings_of(vault)):
        leave_note(vault, "", actor, KILLED, clock)
