"""Smart card readers that this process itself holds, and can let go of.

A PKCS#11 module that knows smart cards takes every reader for itself as long as it is initialised. The backends do not
know each other: the one that loads such modules says here how they are let go, and the one that finds a card taken
asks here for it.
"""

from __future__ import annotations

from collections.abc import Callable

_holders: list[Callable[[], None]] = []


def may_hold(let_go: Callable[[], None]) -> None:
    """``let_go`` gives back what its backend holds and does not use at the moment."""
    _holders.append(let_go)


def let_go() -> bool:
    """Let go of everything that may be held; False where no backend holds any."""
    for holder in _holders:
        holder()
    return bool(_holders)
