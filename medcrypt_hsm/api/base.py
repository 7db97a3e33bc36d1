"""What every method of ``Vault`` and its parts has in common: ``working``, in which each does its work.

In: an unlocked vault, and who is told of months that opened. Out: that vault, for one call at a time. Not here: what is
done with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypedDict

from medcrypt_hsm.errors import MedcryptError, TokenError, VaultBusy
from medcrypt_hsm.messages import months
from medcrypt_hsm.messages.months import MonthsOpened
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.opening import noted, this_user
from medcrypt_hsm.vault.unlock import prove
from medcrypt_hsm.vault.unlocked import Unlocked

OnMonthOpened = Callable[[MonthsOpened], object]
"""Told of a month that opened by itself: at once, in the thread whose call opened it, before that call goes on.

The vault is not free for other threads meanwhile: what is called here must not wait for one that uses it. What it
raises stops the call, which has done nothing yet but open the month, so that no result is lost; the month stays open,
and ``vault.log.checkpoint`` signs another checkpoint.
"""


EndSession = Callable[[], object]
"""Called when a re-key begins, and again before old root keys go: whoever keeps the vault unlocked must stop."""


class OpenOptions(TypedDict, total=False):
    """What a vault takes from outside, wherever it is opened or made. All of it may be left out."""

    actor: str | None
    """Who the log says it was. Left out, this user of the operating system."""
    clock: Clock
    """Left out, the machine's."""
    on_month_opened: OnMonthOpened
    """Left out, nobody is told, and nobody keeps the checkpoint of a month that opens by itself."""
    end_session: EndSession
    """Left out, a session that keeps the vault unlocked ends when it notices that it was re-keyed."""


def nobody_is_told(opened: MonthsOpened) -> None: ...


def nothing_to_end() -> None: ...


def taken(
    actor: str | None = None,
    clock: Clock = system_clock,
    on_month_opened: OnMonthOpened = nobody_is_told,
    end_session: EndSession = nothing_to_end,
) -> tuple[str, Clock, OnMonthOpened, EndSession]:
    """The ``OpenOptions`` that were given, and the defaults for the others."""
    return actor or this_user(), clock, on_month_opened, end_session


class OpenVault:
    """One open vault, as ``Vault`` and its parts share it. Calls of several threads take turns."""

    def __init__(self, unlocked: Unlocked, on_month_opened: OnMonthOpened) -> None:
        self._unlocked = unlocked
        self._on_month_opened = on_month_opened
        self._lock = threading.RLock()
        self._closed = False

    @property
    def unlocked(self) -> Unlocked:
        """The vault, once the token has proven its audit key."""
        with self._lock:
            self._prove()
        return self._unlocked

    def _prove(self) -> None:
        """Before anything that the file says leaves the program. Raises VaultRolledBack, and leaves a note."""
        if not self._unlocked.proven and not self._closed:
            vault = self._unlocked
            with noted(vault.file.location, vault.registered.name, vault.clock.machine):
                prove(vault)

    @contextmanager
    def working(self, *, anchor: bool = True, entry_first: bool = False) -> Iterator[Unlocked]:
        """Around everything that is done with the vault.

        Raises RuntimeError when it was closed, VaultBusy where another process re-keyed it meanwhile. Afterwards the
        token's anchor is at most a day old; ``anchor=False`` where nothing is written, or an anchor in any case.

        The token proves its audit key before; with ``entry_first`` the signature of the first entry is that proof, and
        where there was none, results and errors wait for a challenge (ADR 0024).
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("this vault is locked; open it again")
            if not entry_first:
                self._prove()
            try:
                try:
                    yield self._unlocked
                except TokenError:
                    raise  # that is the token's word, not the file's
                except (MedcryptError, LookupError):
                    self._prove()
                    raise
                self._prove()
                if anchor and self.unlocked.anchor_is_due():
                    # What was done is recorded and must be handed out; the anchor is due again next time.
                    with suppress(VaultBusy):
                        self.unlocked.write_anchor()
            except MedcryptError as exc:
                if isinstance(exc, VaultBusy) or not self._unlocked.was_rekeyed():
                    raise
                # Rows that another keyset wrote look forged to this one, or are not found.
                raise VaultBusy("the vault was re-keyed meanwhile", "run the command again") from exc

    @contextmanager
    def acting_as(self, actor: str) -> Iterator[None]:
        """For one call: who the log says it was. The vault is not free for other threads meanwhile."""
        with self._lock, self.unlocked.acting_as(actor):
            yield

    def open_month_if_due(self) -> None:
        """Inside ``working``, before anything else is done there. Raises MonthsBehind if several are due."""
        if (opened := months.open_if_due(self._unlocked)) is not None:
            self._on_month_opened(opened)

    def close(self) -> None:
        """Lock it and log out of the token, once."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._unlocked.lock()
                self._unlocked.file.close()


class Part:
    """One part of an open vault's methods, ``Vault.patients`` for example."""

    def __init__(self, vault: OpenVault) -> None:
        self._vault = vault
