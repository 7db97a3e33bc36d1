"""From a path and a PIN to an ``Unlocked``: which token, what a failure leaves noted, what earlier runs left to end.

In: what a caller of the library gives. Out: an unlocked vault whose token is open. Not here: what must hold before
anything is unwrapped (unlock.py).
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from medcrypt_hsm import notes, tokens
from medcrypt_hsm.certificate import Certificate
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
from medcrypt_hsm.inspection import choose_token, peek, uri_to_open
from medcrypt_hsm.rekey import settle
from medcrypt_hsm.tokens import PinPrompt, Token, Touch
from medcrypt_hsm.unlock import unlock
from medcrypt_hsm.unlocked import Clock, Unlocked, timestamp
from medcrypt_hsm.vault import VaultFile


def open_vault(
    path: Path,
    pin: PinPrompt,
    token: str | None,
    last_try: bool,
    modules: Sequence[str],
    touch: Touch,
    actor: str | None,
    clock: Clock,
) -> tuple[Unlocked, Certificate | None]:
    """See ``Vault.open``. Also the certificate of a re-key that was interrupted and finished now."""
    file = VaultFile.open(path)
    try:
        registered = choose_token(peek(file), token, modules)
        uri = uri_to_open(registered, token)
        with noted(path, registered.name, clock):
            opened = tokens.open_token(uri, pin, last_try=last_try, modules=modules, touch=touch)
        with closed_on_failure(opened):
            with noted(path, registered.name, clock):
                unlocked = unlock(file, opened, registered.name, actor=actor or user(), clock=clock)
            made = None
            with suppress(MonthsBehind, ClockBehind):  # they wait: 'rotate' and 'status' need this very vault first
                notes.enter(unlocked)
                made = settle(unlocked)
            return unlocked, made
    except BaseException:
        file.close()
        raise


@contextmanager
def closed_on_failure(token: Token) -> Iterator[None]:
    try:
        yield
    except BaseException:
        token.close()
        raise


@contextmanager
def noted(path: Path, token: str, clock: Clock) -> Iterator[None]:
    """What fails before the unlock leaves a note beside the vault."""
    try:
        yield
    except (WrongPin, PinLocked, LastTry, NotTouched, TokenRemoved, NotAuthentic, VaultError) as exc:
        with suppress(VaultError):  # the reason for the note matters more than the note
            notes.write(path, exc.name, timestamp(clock()), token=token, actor=user())
        raise


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
