"""A new file that is whole or not there: written under a partial name, given its own at the end, never over another.

In: the name that a person chose. Out: the partial name to write under. A kill leaves that one, and the next run for the
same name takes it away. Not here: what is written (backups.py, exporting.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.filesystem import remove_files, sync_directory


def check_new(target: Path) -> None:
    """Raises UsageError, before anything is recorded, if there can be no new file of this name."""
    if not target.name:
        raise UsageError(f"{target} is a directory", "name a new file in it")
    if target.exists():
        partial = partial_of(target)
        if partial.exists() and partial.samefile(target):
            partial.unlink()  # of a run that was killed when its file had just been named
        raise _exists(target)
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}", "make it first, with mode 0700")
    try:
        target.name.encode()
    except UnicodeEncodeError as exc:  # the audit log is to name it
        raise UsageError(f"the name {target.name!a} is not UTF-8", "name the file in ASCII") from exc


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """The partial name; ``target`` once the body is through. Raises UsageError if a file of that name appeared."""
    partial = partial_of(target)
    remove_files(partial)  # of a database also its journal, which would be rolled back into the next one
    try:
        yield partial
        _give_name(partial, target)
    except FileExistsError as exc:
        raise _exists(target) from exc
    finally:
        remove_files(partial)
    sync_directory(target.parent)


def write_new(target: Path, content: bytes) -> None:
    """A new file of mode 0600, on the disk when this returns. Raises UsageError."""
    check_new(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with written_whole(target) as partial, open(os.open(partial, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def partial_of(target: Path) -> Path:
    """What it is called until it is whole."""
    return target.with_name(target.name + ".partial")


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target} exists already", "name a new file; none is ever overwritten")


def _give_name(partial: Path, target: Path) -> None:
    """Give a whole file its name, never over a file that appeared meanwhile. Raises FileExistsError."""
    try:
        os.link(partial, target)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # FAT, as on most memory sticks, knows no links: the next best, not quite atomic.
        if target.exists():
            raise FileExistsError(target) from exc
        partial.replace(target)
