"""What every method of ``Vault`` and its parts has in common: ``working``, in which each does its work.

In: an unlocked vault, and who is told of months that opened. Out: that vault, for one call at a time. Not here: what is
done with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypedDict

from medcrypt_hsm.errors import MedcryptError, VaultBusy
from medcrypt_hsm.messages import months
from medcrypt_hsm.messages.months import MonthsOpened
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.opening import this_user
from medcrypt_hsm.vault.unlocked import Unlocked

OnMonthOpened = Callable[[MonthsOpened], object]
"""Told of a month that opened by itself: at once, in the thread whose call opened it, before that call goes on.

The vault is not free for other threads meanwhile: what is called here must not wait for one that uses it. What it
raises stops the call, which has done nothing yet but open the month, so that no result is lost; the month stays open,
and ``vault.log.checkpoint`` signs another checkpoint.
"""


class OpenOptions(TypedDict, total=False):
    """What a vault takes from outside, wherever it is opened or made. All of it may be left out."""

    actor: str | None
    """Who the log says it was. Left out, this user of the operating system."""
    clock: Clock
    """Left out, the machine's."""
    on_month_opened: OnMonthOpened
    """Left out, nobody is told, and nobody keeps the checkpoint of a month that opens by itself."""


def nobody_is_told(opened: MonthsOpened) -> None: ...


def taken(
    actor: str | None = None, clock: Clock = system_clock, on_month_opened: OnMonthOpened = nobody_is_told
) -> tuple[str, Clock, OnMonthOpened]:
    """The ``OpenOptions`` that were given, and the defaults for the others."""
    return actor or this_user(), clock, on_month_opened


class OpenVault:
    """One open vault, as ``Vault`` and its parts share it. Calls of several threads take turns."""

    def __init__(self, unlocked: Unlocked, on_month_opened: OnMonthOpened) -> None:
        self.unlocked = unlocked
        self._on_month_opened = on_month_opened
        self._lock = threading.RLock()
        self._closed = False

    @contextmanager
    def working(self, *, anchor: bool = True) -> Iterator[Unlocked]:
        """Around everything that is done with the vault.

        Raises RuntimeError when it was closed, VaultBusy where another process re-keyed it meanwhile. Afterwards the
        token's anchor is at most a day old; ``anchor=False`` where nothing is written, or an anchor in any case.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("this vault is locked; open it again")
            try:
                yield self.unlocked
                if anchor and self.unlocked.anchor_is_due():
                    # What was done is recorded and must be handed out; the anchor is due again next time.
                    with suppress(VaultBusy):
                        self.unlocked.write_anchor()
            except MedcryptError as exc:
                if isinstance(exc, VaultBusy) or not self.unlocked.was_rekeyed():
                    raise
                # Rows that another keyset wrote look forged to this one, or are not found.
                raise VaultBusy("the vault was re-keyed meanwhile", "run the command again") from exc

    def open_month_if_due(self) -> None:
        """Inside ``working``, before anything else is done there. Raises MonthsBehind if several are due."""
        if (opened := months.open_if_due(self.unlocked)) is not None:
            self._on_month_opened(opened)

    def close(self) -> None:
        """Lock it and log out of the token, once."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self.unlocked.lock()
                self.unlocked.file.close()


class Part:
    """One part of an open vault's methods, ``Vault.patients`` for example."""

    def __init__(self, vault: OpenVault) -> None:
        self._vault = vault
