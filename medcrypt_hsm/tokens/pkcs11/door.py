"""A lock for each PKCS#11 module: one process at a time finds a token or logs in.

SoftHSM2 rewrites a token's own file at every login, and for that moment every other process finds no token there. So
the short steps of finding and logging in take turns between processes, by an advisory lock on the module's file, which
needs no file of ours. Nobody waits for a person: the lock is not held while a PIN is asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence

PATIENCE = 10.0  # seconds; a lock that is kept for longer is not this program's, and we go on without it
_PAUSE = 0.005
_held: set[str] = set()  # by this process; every caller holds the one lock of all PKCS#11 calls


@contextlib.contextmanager
def one_at_a_time(paths: Sequence[str]) -> Iterator[None]:
    """Hold the locks of the modules at ``paths``. Never fails: without a lock a token may be missed."""
    with contextlib.ExitStack() as stack:
        for path in sorted({os.path.realpath(path) for path in paths} - _held):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                _lock(fd)
                _held.add(path)
                stack.callback(_held.discard, path)
        yield


def _lock(fd: int) -> None:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_PAUSE)
