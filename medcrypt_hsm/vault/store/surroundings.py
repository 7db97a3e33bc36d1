"""``Surroundings``: everything that is kept beside a vault, and not in it.

    vault.db                              the vault
    vault.db-creating, -restoring         drafts: whole vaults before they have their name
    vault.db-notes, -notes-HASH           notes of what failed before an unlock (vault/notes.py)
    vault.db-backup-N, -certificate-N.*   what re-key N made of itself (lifecycle/settle.py)
    vault.db-session/                     where a session listens, on a machine without XDG_RUNTIME_DIR
    the directory itself, locked          one command at a time makes, replaces or re-keys a vault

In: a ``Location``. Out: paths of ordinary files (a backup is a file, wherever its vault is), notes, a lock. Nobody else
derives a name from a vault's. A vault on a server is to have a directory of this computer's own for all of it, and a
lock of the server's. Not here: what SQLite itself keeps beside its file (sqlite.py), and what the files hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from medcrypt_hsm.errors import VaultBusy, VaultError
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.location import Location


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

    # A session

    @property
    def session_key(self) -> bytes:
        """A name that no other vault of this computer has: the same whatever path leads to the vault."""
        return os.fsencode(self._vault.resolve())

    @property
    def session_directory(self) -> Path:
        """Where its session listens if there is no better place."""
        real = self._vault.resolve()
        return real.with_name(real.name + "-session")

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


def _open_to_others(path: Path) -> Path | None:
    return path if path.stat().st_mode & 0o077 else None
