"""What a vault asks of the file system: a local disk, nothing planted beside its file, durable names.

Paths in; errors by name. Not here: what is in the file (sqlite.py), and who else is at work there (surroundings.py).
"""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

from medcrypt_hsm.errors import Failed, VaultError
from medcrypt_hsm.sentences import t

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "ncpfs", "coda", "gfs2", "ocfs2"})


def files_of(path: Path) -> tuple[Path, ...]:
    """What SQLite keeps beside a database, and the database itself: in the order in which to remove them.

    A log that outlived its database would be replayed into the next one of that name.
    """
    return (*(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")), path)


def remove_files(path: Path) -> None:
    """A database and what lies beside it, as far as they are there."""
    for file in files_of(path):
        file.unlink(missing_ok=True)


def refuse_planted(path: Path) -> None:
    """Raises VaultError for what SQLite would follow out of the directory: it believes what lies beside a database.

    A journal that ends with this magic names a file of a transaction over several databases, which ours never are, and
    SQLite would remove that file, wherever it is.
    """
    for beside in files_of(path)[:-1]:
        try:
            mode = beside.lstat().st_mode
            if not stat.S_ISREG(mode):
                raise VaultError(
                    t("{path} is not a file of its own", path=beside), "see who put it there, and remove it"
                )
            if not beside.name.endswith("-journal"):
                continue
            with beside.open("rb") as journal:
                journal.seek(max(journal.seek(0, os.SEEK_END) - len(_JOURNAL_MAGIC), 0))
                if journal.tell() and journal.read() == _JOURNAL_MAGIC:
                    raise VaultError(t("{path} names another file", path=beside), "see who put it there, and remove it")
        except FileNotFoundError:
            continue
        except PermissionError as exc:
            raise VaultError(t("{path} cannot be read", path=beside), "check who owns it") from exc


def nobody_writes(path: Path) -> bool:
    """Is it a whole file on a read-only file system? SQLite cannot put files beside it, which it wants even to read."""
    return not os.access(path.parent, os.W_OK) and not any(file.exists() for file in files_of(path)[:-1])


def refuse_network_file_system(path: Path) -> None:
    """Raises VaultError: SQLite's locks do not hold across a network, and two writers would fork the log."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    real = str(path.resolve())
    best, kind = "", ""
    for line in mounts:
        fields = line.split(" ")
        point = fields[4].replace("\\040", " ")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    if kind in _NETWORK or kind in ("fuse.sshfs", "fuse.rclone", "fuse.glusterfs", "fuse.s3fs"):
        raise VaultError(
            t("{path} lies on a network file system ({kind})", path=path, kind=kind), "keep the vault on a local disk"
        )


def clear_the_way(path: Path, *, ours: bool) -> None:
    """Make room for a file that the program names by itself. Raises Failed.

    What is ``ours`` is removed; a link, a directory or anybody else's file is renamed: not followed, not lost.
    """
    try:
        if ours and stat.S_ISREG(path.lstat().st_mode):
            path.unlink()
        elif os.path.lexists(path):
            found = (path.with_name(f"{path.name}-found-{number}") for number in itertools.count(1))
            path.rename(next(other for other in found if not os.path.lexists(other)))
    except FileNotFoundError:
        return
    except OSError as exc:
        raise Failed(
            t("{path} is in the way: {reason}", path=path, reason=exc.strerror), "see who put it there, and remove it"
        ) from exc


def sync_directory(directory: Path) -> None:
    """Make a rename or a new name in ``directory`` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
