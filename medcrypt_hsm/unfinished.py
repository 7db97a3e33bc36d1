"""A file that is being written and does not know its name yet, or is long to write: ``Unfinished``.

In: the directory where it will stay. Out: something to write into, under a name that says that it is not whole; then
its own name, never over another. Whoever writes it holds a lock on it, so what a killed run left can be told from
what a running one writes, and ``clear`` takes it away. Not here: what is written (files.py), names from outside
(filenames.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from medcrypt_hsm.errors import Failed
from medcrypt_hsm.filenames import UNFINISHED
from medcrypt_hsm.filesystem import sync_directory
from medcrypt_hsm.newfile import give_name

_OURS = re.compile(rf"{UNFINISHED}[0-9a-f]{{8}}\.partial", re.ASCII)


class Unfinished:
    """Use as a context manager: what has no name of its own when the block ends is gone.

    ``out`` is the file; it must have been written through before ``name``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        clear(directory)
        self.path, fd = _made(directory)
        self.out: BinaryIO = os.fdopen(fd, "wb")

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *exc: object) -> None:
        self.path.unlink(missing_ok=True)  # before the lock goes, or another run's name could be hit
        with contextlib.suppress(OSError):  # on a full disk what was not written yet is tried again here
            self.out.close()

    def name(self, names: Iterable[str]) -> Path:
        """Whole: on the disk, and under the first of ``names`` that is free. Raises FileExistsError if none is."""
        self.out.flush()
        os.fsync(self.out.fileno())
        for name in names:
            target = self.directory / name
            try:
                give_name(self.path, target)
            except FileExistsError:
                continue
            self.path.unlink(missing_ok=True)
            sync_directory(self.directory)
            return target
        raise FileExistsError(f"no name is free in {self.directory}")


def clear(directory: Path) -> None:
    """Take away what killed runs left in ``directory``: what bears such a name, is ours, and is written by nobody."""
    with os.scandir(directory) as entries:
        left = [Path(entry.path) for entry in entries if _OURS.fullmatch(entry.name)]
    for path in left:
        with contextlib.suppress(OSError):  # somebody else's, or being written, or gone by now
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                found = os.fstat(fd)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(fd)


def _made(directory: Path) -> tuple[Path, int]:
    for _ in range(100):
        path = directory / f"{UNFINISHED}{os.urandom(4).hex()}.partial"
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_nlink:
                    return path, fd
            except BlockingIOError:
                pass  # another run is clearing the directory, and came between the two calls
            os.close(fd)
    raise Failed(f"no file can be made in {directory}: others take them away", "see who else writes there")
