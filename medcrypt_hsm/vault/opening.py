"""From a name and a PIN to an ``Unlocked``: which token, what a failure leaves noted, what earlier runs left to end.

In: what a caller of the library gives. Out: an unlocked vault whose token is open, or over the session that runs for
it. Not here: what must hold before anything is unwrapped (unlock.py), and how a session is started (api/session.py).
"""

from __future__ import annotations

import getpass
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
    SessionEnded,
    TokenRemoved,
    TokenUnfit,
    VaultError,
    WrongPin,
)
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.tokens import Token, Touch
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.vault.audit.trust import TrustState, finished_state
from medcrypt_hsm.vault.choosing import choose_token, uri_to_open
from medcrypt_hsm.vault.clock import Clock
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import Store, open_store
from medcrypt_hsm.vault.unlock import unlock
from medcrypt_hsm.vault.unlocked import Unlocked

R = TypeVar("R")


def open_vault(
    vault: Location,
    access: TokenAccess,
    token: str | None,
    *,
    actor: str,
    clock: Clock,
    session: bool,
    settle: Callable[[Unlocked], R],
) -> tuple[Unlocked, R | None]:
    """See ``Vault.open``, and what ``settle`` made: it ends what an interrupted run left, if there is anything."""
    file = open_store(vault)
    try:
        with file.snapshot():
            state = finished_state(file)
        unlocked = _in_session(file, state, token, access.touch, actor, clock) if session else None
        if unlocked is None:
            registered = choose_token(state, token, access.modules)
            uri = uri_to_open(registered, token)
            with noted(vault, registered.name, clock):
                opened = access.named(registered.name).open(uri)
            with closed_on_failure(opened), noted(vault, registered.name, clock):
                unlocked = unlock(file, opened, registered.name, actor=actor, clock=clock)
        with closed_on_failure(unlocked.token):
            made = None
            with suppress(MonthsBehind, ClockBehind):  # they wait: 'rotate' and 'status' need this very vault first
                _enter_notes(unlocked)
                if unlocked.state.rekey is not None or unlocked.state.doomed:
                    made = settle(unlocked)
            return unlocked, made
    except BaseException:
        file.close()
        raise


def _enter_notes(unlocked: Unlocked) -> None:
    """Where there are any: it is seldom that something has failed since the last unlock."""
    if unlocked.file.surroundings.notes.pending():
        from medcrypt_hsm.vault import notes

        notes.enter(unlocked)


def _in_session(
    file: Store, state: TrustState, wanted: str | None, touch: Touch, actor: str, clock: Clock
) -> Unlocked | None:
    """With the token that a session keeps open; None where none does, and where the PIN has to be asked for after all.

    What a re-key has left to do takes the token itself: a session makes and destroys no keys.
    """
    if not file.surroundings.may_have_session():
        return None
    from medcrypt_hsm.tokens.session import client
    from medcrypt_hsm.vault import session_end

    remote = client.find(file.surroundings, touch)
    if remote is None:
        session_end.note_killed(file.location, actor, clock)
        return None
    named = wanted is None or (remote.name in state.tokens and choose_token(state, wanted).name == remote.name)
    left_to_do = state.rekey is not None or any(doomed.token == remote.name for doomed in state.doomed)
    if not named or left_to_do or remote.vault_id != state.vault_id or remote.name not in state.tokens:
        remote.close()
        return None
    try:
        with closed_on_failure(remote), noted(file.location, remote.name, clock):
            return unlock(file, remote, remote.name, actor=actor, clock=clock)
    except (SessionEnded, TokenRemoved, TokenUnfit):
        return None  # nothing was done yet: what is wrong, if anything, is found out with the PIN


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
    """Who runs this process, by the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
