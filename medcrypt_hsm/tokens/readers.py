"""What this process itself keeps of the smart card readers, and can let go of.

A PKCS#11 module that knows smart cards takes every reader for itself as long as it is initialised. The backends do not
know each other: who loads such modules says here how they are let go, and who finds a card taken asks here.
"""

from __future__ import annotations

from collections.abc import Callable

_holders: list[Callable[[], None]] = []


def may_hold(let_go: Callable[[], None]) -> None:
    """``let_go`` gives back what its backend holds and does not use at the moment."""
    _holders.append(let_go)


def let_go() -> bool:
    """Everything that may be held; False where nothing can be."""
    for holder in _holders:
        holder()
    return bool(_holders)
