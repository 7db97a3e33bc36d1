"""Where a part of an open vault's methods stands: ``Vault.breakglass``, ``Vault.chats`` and ``Vault.files``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from threading import RLock
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from medcrypt_hsm.errors import MedcryptError, VaultBusy
from medcrypt_hsm.messages.months import MonthsOpened
from medcrypt_hsm.vault.unlocked import Unlocked


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


P = ParamSpec("P")
R = TypeVar("R")


class Shared(Protocol):
    """What has methods that take turns."""

    @property
    def _lock(self) -> RLock: ...
    @property
    def _closed(self) -> bool: ...
    @property
    def _unlocked(self) -> Unlocked: ...


S = TypeVar("S", bound=Shared)


def one_at_a_time(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Raises RuntimeError when the vault is locked, VaultBusy where another process re-keyed it meanwhile."""

    @functools.wraps(method)
    def called(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            if self._closed:
                raise RuntimeError("this vault is locked; open it again")
            try:
                return method(self, *args, **kwargs)
            except MedcryptError as exc:
                if isinstance(exc, VaultBusy) or not self._unlocked.was_rekeyed():
                    raise
                # Rows that another keyset wrote look forged to this one, or are not found.
                raise VaultBusy("the vault was re-keyed meanwhile", "run the command again") from exc

    return called


class Later:
    """A module of this package, not loaded yet."""

    def __init__(self, name: str) -> None:
        self._name = f"medcrypt_hsm.{name}"

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
