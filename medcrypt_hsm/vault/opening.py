"""From a name and a PIN to an ``Unlocked``: which token, notes of what fails, and the end of interrupted runs.

In: what a caller of the library gives. Out: an unlocked vault whose token is open. Not here: what must hold before
anything is unwrapped (unlock.py), and who keeps a vault unlocked for others (session/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from medcrypt_hsm.errors import (
    ClockBehind,
    LastTry,
    MonthsBehind,
    NotAuthentic,
    NotTouched,
    PinLocked,
    TokenRemoved,
    VaultError,
    WrongPin,
)
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.vault import actor as actors
from medcrypt_hsm.vault.audit.trust import finished_state
from medcrypt_hsm.vault.choosing import choose_token, uri_to_open
from medcrypt_hsm.vault.clock import Clock
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.unlock import prove, unlock
from medcrypt_hsm.vault.unlocked import Unlocked

R = TypeVar("R")


def open_vault(
    vault: Location,
    access: TokenAccess,
    token: str | None,
    *,
    actor: str,
    clock: Clock,
    settle: Callable[[Unlocked], R],
    proven: bool = True,
) -> tuple[Unlocked, R | None]:
    """See ``Vault.open``. Also gives what ``settle`` returned, which ends what an interrupted run left.

    ``proven=False``: the caller proves the audit key (``unlock``).
    """
    file = open_store(vault)
    try:
        with file.snapshot():
            state = finished_state(file)
        registered = choose_token(state, token, access.modules)
        uri = uri_to_open(registered, token)
        with noted(vault, registered.name, clock):
            opened = access.named(registered.name).open(uri)
        with closed_on_failure(opened), noted(vault, registered.name, clock):
            unlocked = unlock(file, opened, registered.name, actor=actor, clock=clock, proven=proven)
            if unlocked.state.rekey is not None or unlocked.state.doomed or file.surroundings.notes.pending():
                prove(unlocked)  # before anything is done for the file below
        with closed_on_failure(unlocked.token):
            made = None
            with suppress(MonthsBehind, ClockBehind):  # the notes wait: 'rotate' and 'status' must be able to open it
                _enter_notes(unlocked)
                if unlocked.state.rekey is not None or unlocked.state.doomed:
                    made = settle(unlocked)
            return unlocked, made
    except BaseException:
        file.close()
        raise


def _enter_notes(unlocked: Unlocked) -> None:
    """Enter notes, if there are any: seldom has something failed since the last unlock."""
    if unlocked.file.surroundings.notes.pending():
        from medcrypt_hsm.vault import notes

        notes.enter(unlocked)


@contextmanager
def closed_on_failure(token: Token) -> Iterator[None]:
    try:
        yield
    except BaseException:
        token.close()
        raise


@contextmanager
def noted(vault: Location, token: str, clock: Clock) -> Iterator[None]:
    """What fails before the unlock leaves a note beside the vault."""
    try:
        yield
    except (WrongPin, PinLocked, LastTry, NotTouched, TokenRemoved, NotAuthentic, VaultError) as exc:
        from medcrypt_hsm.vault import notes

        with suppress(VaultError):  # the reason for the note matters more than the note
            notes.write(vault, exc.name, timestamp(clock()), token=token, actor=this_user())
        raise


def this_user() -> str:
    """Who runs this process, by the kernel and the user database."""
    return actors.of_this_process()
