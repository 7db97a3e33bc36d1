"""One caller at a time in an unlocked vault: a transaction and a token session are no more than one caller's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from threading import RLock
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from medcrypt_hsm.errors import MedcryptError, VaultBusy
from medcrypt_hsm.unlocked import Unlocked

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
