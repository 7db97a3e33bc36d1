"""What a process that is to hold secrets asks of the kernel: no core dump, and no other process that looks in.

The command line and a session's agent ask for it in their first line, since a PIN may stand in their environment. The
library leaves the process of whoever imports it as it is.
"""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4  # prctl(2)


def protect_memory() -> None:
    """From now on no core dump, and no other process of this user may read this one's memory or trace it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Refused under some sandboxes; the limit above stands all the same.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
