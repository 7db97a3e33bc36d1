"""Where a part of an open vault's methods stands: ``Vault.breakglass``, ``Vault.chats`` and ``Vault.files``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from threading import RLock
from typing import Protocol

from medcrypt_hsm.months import MonthsOpened
from medcrypt_hsm.unlocked import Unlocked


class Owner(Protocol):
    """The vault that a desk is of."""

    opened_month: MonthsOpened | None
    _lock: RLock
    _closed: bool
    _unlocked: Unlocked

    def _work(self) -> AbstractContextManager[None]: ...


class Desk:
    """Its methods are ``one_at_a_time``, and so take turns with the vault's own."""

    def __init__(self, vault: Owner) -> None:
        self._vault = vault

    @property
    def _lock(self) -> RLock:
        return self._vault._lock

    @property
    def _closed(self) -> bool:
        return self._vault._closed

    @property
    def _unlocked(self) -> Unlocked:
        return self._vault._unlocked
