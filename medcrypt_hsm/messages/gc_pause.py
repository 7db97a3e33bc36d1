"""``no_collections``: Python's cyclic garbage collector, put off for a bounded piece of work.

A batch makes ten thousands of small tuples and no cycles. The collector would walk them all again and again, and find
nothing: of an imported chat that takes a tenth of the time. What is no longer needed goes at once, as ever.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0  # how many are, in all threads
_was_enabled = False


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Also a decorator. The first to come in turns the collector off, the last to go out on again, if it was on."""
    global _inside, _was_enabled
    with _lock:
        if not _inside:
            _was_enabled = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _was_enabled:
                gc.enable()
