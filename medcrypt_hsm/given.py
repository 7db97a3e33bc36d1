"""``read_given``: the content of a file that a person named. In: a path, and how much such a file can hold. Out: bytes.

Nothing is waited for, and no more is read than that: the file may be a pipe that nobody writes, or endless.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def read_given(path: str | Path, most: int) -> bytes:
    """At most ``most`` bytes, one more of a file that has more. Raises OSError, also for what is no regular file."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        return file.read(most + 1)
