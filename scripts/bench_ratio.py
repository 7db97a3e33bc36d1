"""What every row of scripts/bench is made with: two pieces of work measured in turns, and their ratio."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

MODULE = "/usr/lib/softhsm/libsofthsm2.so"


def in_turns(rounds: int, *runs: Callable[[], float]) -> list[float]:
    """The median of each, having run them one after the other ``rounds`` times."""
    times = [[run() for run in runs] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(what: str, ours: float, bare: float, ratio: float, aim: str) -> None:
    print(f"{what:<58} {ours * 1000:>10.1f} ms {bare * 1000:>10.1f} ms {ratio:>7.2f}   {aim}")


def session_key(session: Any, **uses: bool) -> Any:
    """A session key with a value from here, for the bare loops."""
    from pkcs11 import Attribute, KeyType, ObjectClass

    kind = KeyType.GENERIC_SECRET if "SIGN" in uses else KeyType.AES
    return session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: kind,
            Attribute.VALUE: os.urandom(32),
            Attribute.TOKEN: False,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: True,
        }
        | {Attribute[name]: value for name, value in uses.items()}
    )
