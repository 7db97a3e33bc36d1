"""New files. ``new_file`` makes one and never opens another's; the rest makes files that are whole or not there.

A whole file is written under a partial name and given its own at the end, never over another. In: the name that a
person chose. Out: the partial name to write under. A kill leaves that one, and the next run for the same name takes it
away. Everybody who makes a file makes it here. Not here: what is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from medcrypt_hsm.errors import Failed, UsageError
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.surroundings import remove_files, sync_directory


def new_file(path: Path, mode: int = 0o600) -> BinaryIO:
    """Made by this very call, to be closed by the caller: never one that is there, nor one behind a link.

    Raises FileExistsError, OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, mode), "wb")


def write_through(file: IO[Any]) -> None:
    """What was written to it is on the disk when this returns."""
    file.flush()
    os.fsync(file.fileno())


def check_new(target: Path) -> None:
    """Raises UsageError, before anything is recorded, if there can be no new file of this name."""
    if not target.name:
        raise UsageError(t("{path} is a directory", path=target), "name a new file in it")
    if target.exists():
        partial = partial_of(target)
        if partial.exists() and partial.samefile(target):
            partial.unlink()  # of a run that was killed when its file had just been named
        raise taken(target)
    if not target.parent.is_dir():
        raise UsageError(
            t("there is no directory {directory}", directory=target.parent), "make it first, with mode 0700"
        )
    try:
        target.name.encode()
    except UnicodeEncodeError as exc:  # the audit log is to name it
        raise UsageError(t("the name {name!a} is not UTF-8", name=target.name), "name the file in ASCII") from exc


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """The partial name; ``target`` once the body is through. Raises UsageError if a file of that name appeared."""
    partial = partial_of(target)
    remove_files(partial)  # of a database also its journal, which would be rolled back into the next one
    try:
        yield partial
        give_name(partial, target)
    except FileExistsError as exc:
        raise taken(target) from exc
    finally:
        remove_files(partial)
    sync_directory(target.parent)


def write_new(target: Path, content: bytes) -> None:
    """A new file of mode 0600, on the disk when this returns. Raises UsageError."""
    check_new(target)
    with written_whole(target) as partial, new_file(partial) as file:
        file.write(content)
        write_through(file)


def partial_of(target: Path) -> Path:
    """What it is called until it is whole."""
    return target.with_name(target.name + ".partial")


def taken(target: Path) -> UsageError:
    return UsageError(t("{path} exists already", path=target), "name a new file; none is ever overwritten")


def give_name(partial: Path, target: Path) -> None:
    """Give a whole file its name, never over a file that appeared meanwhile. Raises FileExistsError."""
    try:
        os.link(partial, target)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # FAT, as on most memory sticks, knows no links: the next best, not quite atomic.
        if os.path.lexists(target):
            raise FileExistsError(target) from exc
        partial.replace(target)


UNFINISHED = "medcrypt-not-whole-"  # what is not whole begins with it, and nothing else does
_OURS = re.compile(rf"{UNFINISHED}[0-9a-f]{{8}}\.partial", re.ASCII)


class Unfinished:
    """Use as a context manager: what has no name of its own when the block ends is gone.

    ``out`` is the file; it must have been written through before ``name``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        clear(directory)
        self.path, self.out = _made(directory)

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *exc: object) -> None:
        self.path.unlink(missing_ok=True)  # before the lock goes, or another run's name could be hit
        with contextlib.suppress(OSError):  # on a full disk what was not written yet is tried again here
            self.out.close()

    def name(self, names: Iterable[str]) -> Path:
        """Whole: on the disk, and under the first of ``names`` that is free. Raises FileExistsError if none is."""
        write_through(self.out)
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


def _made(directory: Path) -> tuple[Path, BinaryIO]:
    for _ in range(100):
        path = directory / f"{UNFINISHED}{os.urandom(4).hex()}.partial"
        with contextlib.suppress(FileExistsError):
            file = new_file(path)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_nlink:
                    return path, file
            except BlockingIOError:
                pass  # another run is clearing the directory, and came between the two calls
            file.close()
    raise Failed(
        t("no file can be made in {directory}: others take them away", directory=directory), "see who else writes there"
    )
