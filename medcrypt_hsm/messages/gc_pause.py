"""``no_collections``: Python's cyclic garbage collector, put off for a bounded piece of work.

A batch makes ten thousands of small tuples and no cycles. The collector would walk them all again and again and find
nothing, which takes a tenth of the time of an import. Objects without cycles are freed at once all the same.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0  # calls that are inside at the moment, in all threads
_was_enabled = False


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Also a decorator. The first to enter turns the collector off; the last to leave turns it on, if it was on."""
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
