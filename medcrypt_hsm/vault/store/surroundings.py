"""``Surroundings``: everything that is kept beside a vault, and not in it.

    vault.db                              the vault
    vault.db-creating, -restoring         drafts: whole vaults before they have their name
    vault.db-notes, -notes-HASH           notes of what failed before an unlock (vault/notes.py)
    vault.db-backup-N, -certificate-N.*   what re-key N made of itself (lifecycle/settle.py)
    vault.db-session/                     where a session's agent is met (session/place.py)
    the directory itself, locked          one command at a time makes, replaces or re-keys a vault (flock); writers
                                          queue (ADR 0026), on bytes of it that are each vault's own

In: a ``Location``. Out: paths of ordinary files (a backup is a file, wherever its vault is), notes, a lock. Nobody else
derives a name from a vault's. A vault on a server is to have a directory of this computer's own for all of it, and a
lock of the server's. Also what a vault asks of the disk that it lies on: a local one, and names that nobody has taken.
Not here: what SQLite itself keeps beside its file (sqlite.py), and what the files hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import itertools
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from medcrypt_hsm.errors import Failed, VaultBusy, VaultError
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.rows import Location


def surroundings_of(location: Location) -> Surroundings:
    """Nothing has to be there yet, neither the vault nor its directory."""
    return Surroundings(location)


class Surroundings:
    """Of a vault that is a file: its directory, and names that begin with the file's own."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._vault = Path(location.text)

    # The directory

    def make(self) -> None:
        """The directory, of this user alone, where there is none. Raises OSError."""
        self._vault.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def alone(self) -> AbstractContextManager[None]:
        """Nobody else makes, replaces or re-keys a vault here meanwhile. Raises VaultBusy; a kill lets go by itself."""
        return _alone(self._vault.parent)

    def lie_in(self, directory: Path) -> bool:
        """Is it the directory of the vault, by whatever path?"""
        try:
            return directory.samefile(self._vault.parent)
        except OSError:
            return False

    def turn(self, seconds: float) -> AbstractContextManager[None]:
        """Writers of this vault one after another, as they came. Raises VaultBusy; a kill lets go by itself."""
        return _turn(self._vault, seconds)

    @property
    def vault_exists(self) -> bool:
        """Is anything there by the vault's name?"""
        return self._vault.exists()

    def file_open_to_others(self) -> Path | None:
        """The vault's file, where other users may read or write it. Raises OSError."""
        return _open_to_others(self._vault)

    def directory_open_to_others(self) -> Path | None:
        """Its directory, where other users may look into it. Raises OSError."""
        return _open_to_others(self._vault.parent)

    # Files

    def draft(self, purpose: str) -> Path:
        """Where a vault is made that will get this one's name. Every process uses the same path, so under ``alone``."""
        return self._named(f"-{purpose}")

    def backup(self, generation: int) -> Path:
        """The backup that the re-key to this generation makes of itself."""
        return self._named(f"-backup-{generation}")

    def generation_of(self, backup: str) -> int | None:
        """The generation in the name of a backup; None for a name that ``backup`` never gives."""
        found = re.fullmatch(re.escape(self._vault.name) + r"-backup-([0-9]+)", backup)
        return None if found is None else int(found[1])

    def certificate(self, generation: int) -> Path:
        """What the names of that re-key's certificate begin with: ``.json`` and ``.md`` follow."""
        return self._named(f"-certificate-{generation}")

    def _named(self, ending: str) -> Path:
        return self._vault.with_name(f"{self._vault.name}{ending}")

    # Notes

    @property
    def notes(self) -> Notes:
        return Notes(self._named("-notes"))


class Notes:
    """Lines that wait to be entered in the log: a file to which they are added, and files that a killed run has left.

    A file takes the hash of its entry into its name before the commit, and is removed after it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, line: bytes) -> None:
        """On the disk when this returns. Raises VaultError where something else has the file's name, OSError."""
        with self._locked() as fd:
            os.write(fd, line + b"\n")
            os.fsync(fd)

    def pending(self) -> bool:
        """Is there anything to enter, or to be removed?"""
        return self._path.exists() or bool(self._leftovers())

    @contextlib.contextmanager
    def files(self) -> Iterator[list[NoteFile]]:
        """Those that killed runs left, and last the one that has not been touched. Nobody adds any meanwhile.

        Raises VaultError, OSError.
        """
        with self._locked():
            yield [NoteFile(path, self._path) for path in (*self._leftovers(), self._path)]

    def _leftovers(self) -> list[Path]:
        found = self._path.parent.glob(f"{glob.escape(self._path.name)}-{'[0-9a-f]' * 64}")
        return sorted(file for file in found if file.is_file() and not file.is_symlink())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The notes file, open for appending, ours alone."""
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            except OSError as exc:
                raise VaultError(
                    t("the notes file {path} cannot be opened: {reason}", path=self._path, reason=exc.strerror),
                    "see who put it there, and remove it",
                ) from exc
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise VaultError(t("{path} is not a file", path=self._path), "see who put it there, and remove it")
                fcntl.flock(fd, fcntl.LOCK_EX)
                try:
                    same = os.fstat(fd).st_ino == self._path.stat().st_ino
                except FileNotFoundError:
                    same = False
                if same:  # otherwise it was entered and removed while we waited
                    yield fd
                    return
            finally:
                os.close(fd)


class NoteFile:
    """One file of notes, to be entered as one entry."""

    def __init__(self, path: Path, untouched: Path) -> None:
        self._path = path
        self._untouched = untouched

    @property
    def entry(self) -> bytes | None:
        """The hash of the entry that was to hold it, where a run had come that far; None: of no entry yet."""
        return None if self._path == self._untouched else bytes.fromhex(self._path.name.rsplit("-", 1)[1])

    def lines(self, longest: int) -> Iterator[bytes]:
        """At most ``longest`` bytes of each line, and never more than that in memory."""
        with self._path.open("rb") as file:
            whole = True
            while line := file.readline(longest):
                if whole:
                    yield line
                whole = line.endswith(b"\n")

    def name_by(self, entry: bytes) -> None:
        """Before the commit of the entry with this hash: whoever finds the file can ask the log for that entry."""
        self._path = self._path.rename(self._untouched.with_name(f"{self._untouched.name}-{entry.hex()}"))

    def remove(self) -> None:
        self._path.unlink()


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise VaultBusy(
                t("another command is making, restoring or re-keying a vault in {directory}", directory=directory),
                "wait for it; try again in a moment",
            ) from exc
        yield
    finally:
        os.close(fd)


_TICKETS = 1 << 30  # of one vault; they begin again at 1 whenever nobody waits
_POLL = 0.003  # seconds; a signature of a slow token takes thirty times as long


@contextlib.contextmanager
def _turn(vault: Path, seconds: float) -> Iterator[None]:
    """Tickets are shared locks on single bytes of the directory, which has no bytes, but takes locks like a file.

    Nothing but the kernel keeps them: no file, nothing to clear away after a kill. This is about fairness alone; that
    there is one writer is SQLite's lock. So whoever cannot queue, on a file system without such locks, goes on.
    """
    fd = os.open(vault.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        first = zlib.crc32(os.fsencode(vault.name)) * _TICKETS + 1  # two vaults of one directory: two queues
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            mine = _ticket(fd, first)
            while mine > first and _held(fd, first, mine - first) is not None:
                if time.monotonic() >= deadline:
                    raise VaultBusy(t("the vault {location} is busy: other commands are writing to it", location=vault))
                time.sleep(_POLL)
        yield
    finally:
        os.close(fd)


def _ticket(fd: int, first: int) -> int:
    """Behind all who wait. Raises OSError."""
    while True:
        mine, held = first, _held(fd, first, _TICKETS - 1)
        while held is not None:
            mine = held + 1
            held = _held(fd, mine, first + _TICKETS - 1 - mine)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, mine, 1))
        if _held(fd, mine, 1) is None:
            return mine
        # Shared locks: two that looked at once have the same number. Both may give it back, and one is first next time.
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, mine, 1))
        time.sleep(_POLL * int.from_bytes(os.urandom(1)) / 256)


def _held(fd: int, start: int, length: int) -> int | None:
    """The last byte of some ticket that another has among these. Raises OSError."""
    if length <= 0:
        raise OSError("no ticket is left")
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, start, length))
    kind, _, at, size, _ = struct.unpack("hhqqi4x", answer)
    return None if kind == fcntl.F_UNLCK else at + size - 1


def _flock(kind: int, start: int, length: int) -> bytes:
    """``struct flock`` (fcntl.h), its offset from the beginning."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def _open_to_others(path: Path) -> Path | None:
    return path if path.stat().st_mode & 0o077 else None


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


def refuse_journal(path: Path) -> None:
    """Raises VaultError where SQLite may have to roll something back: who only reads must not change the file."""
    journal = path.with_name(path.name + "-journal")
    try:
        size = journal.lstat().st_size
    except FileNotFoundError:
        return
    if size:
        raise VaultError(
            t("{path} lies beside the vault: to read it, the vault would have to be changed", path=journal),
            "copy both away as evidence; a command with the vault's token ends what was interrupted, if it was that",
        )


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
