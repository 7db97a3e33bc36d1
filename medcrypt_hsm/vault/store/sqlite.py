"""``SqliteStore``: a vault in a SQLite file; what is guaranteed is in store.py, the tables are in sqlite_rows.py.

A file is opened read-only, looked at by the unlock, and only then (``transaction``) for writing: what fails to verify
is not touched. In: a ``Location`` that is a path. Out: the store. Not here: how a file comes to be (sqlite_new.py), and
what others keep beside it (surroundings.py).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from medcrypt_hsm.errors import VaultBusy, VaultDamaged, VaultError, VaultForeign, VaultMissing
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.rows import BUSY_SECONDS, EntryRow, Location
from medcrypt_hsm.vault.store.sqlite_rows import (
    APPLICATION_ID,
    LONGEST_VALUE,
    SCHEMA,
    SCHEMA_VERSION,
    TREE,
    UNBOUND,
    SqliteRows,
    sqlite_errors,
)
from medcrypt_hsm.vault.store.surroundings import (
    Surroundings,
    files_of,
    nobody_writes,
    refuse_journal,
    refuse_network_file_system,
    refuse_planted,
    surroundings_of,
    sync_directory,
)


class SqliteStore(SqliteRows):
    """One vault file. Not thread safe; one per process and file is enough."""

    def __init__(self, location: Location, db: sqlite3.Connection, *, busy_seconds: float = BUSY_SECONDS) -> None:
        super().__init__(location, db)
        self._path = Path(location.text)
        self._writable = False
        self._busy_seconds = busy_seconds
        self._inode = self._path.stat().st_ino

    @classmethod
    def open(
        cls,
        location: Location,
        *,
        busy_seconds: float = BUSY_SECONDS,
        in_use: bool = True,
        as_found: bool = False,
    ) -> Self:
        """Open to read. A file that is not ``in_use``, such as a backup, may lie on a network file system."""
        path = Path(location.text)
        try:
            if path.is_symlink():
                # SQLite would follow it, but a restore or a note would not: one vault would become two.
                raise VaultError(t("{path} is a symbolic link", path=path), "name the vault file itself")
            if not stat.S_ISREG(path.stat().st_mode):
                raise VaultMissing(t("{path} is not a file", path=path))
            if path.stat().st_size == 0:
                raise VaultDamaged(t("the vault {path} is empty", path=path))
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise VaultMissing(t("there is no vault at {path}", path=path)) from exc
        except PermissionError as exc:
            raise VaultMissing(t("the vault at {path} cannot be read", path=path), "check who owns it") from exc
        if in_use:
            refuse_network_file_system(path)
        if as_found:
            refuse_journal(path)
        with sqlite_errors(location):
            try:
                db = _connect_to_ours(path, busy_seconds)
            except sqlite3.OperationalError as exc:
                if nobody_writes(path):
                    db = _connect_to_ours(path, busy_seconds, "ro&immutable=1")
                elif exc.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK and not as_found:
                    _roll_back(path, busy_seconds)
                    db = _connect_to_ours(path, busy_seconds)
                else:
                    raise
        return cls(location, db, busy_seconds=busy_seconds)

    @property
    def surroundings(self) -> Surroundings:
        return surroundings_of(self.location)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with self.surroundings.turn(self._busy_seconds), self._alone_in_the_file():
            yield

    @contextlib.contextmanager
    def _alone_in_the_file(self) -> Iterator[None]:
        with sqlite_errors(self.location):
            if not self._writable:
                db = connect(self._path, "rw", self._busy_seconds)
                db.execute("PRAGMA journal_mode = WAL")
                self._db.close()
                self._db, self._writable = db, True
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if not self.is_in_place():
                    raise VaultBusy(
                        t("the vault {vault} was restored meanwhile", vault=self.location), "run the command again"
                    )
                _check_schema(self._db, self._path)  # a trigger that was added meanwhile would write too
                self._in_transaction = True
                yield
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk makes SQLite roll back by itself
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._in_transaction = False
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        with sqlite_errors(self.location):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def is_in_place(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    @property
    def steady(self) -> bool:
        return self._db.in_transaction

    @property
    def writing(self) -> bool:
        return self._in_transaction

    def close(self) -> None:
        self._db.close()

    def write_nothing(self) -> None:
        version = SCHEMA_VERSION if self.has_tree else UNBOUND
        self._write(f"PRAGMA user_version = {version}", ())  # the file's header

    # The file as a whole

    def check_integrity(self) -> None:
        """Every page, by SQLite's own account."""
        with sqlite_errors(self.location):
            if self._db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise VaultDamaged(t("the vault {vault} is damaged", vault=self.location))

    def copy_to(self, target: Location) -> None:
        from medcrypt_hsm.vault.store.atomic import new_file

        path = Path(target.text)
        new_file(path).close()
        with sqlite_errors(target):
            copy = connect(path, "rw", self._busy_seconds)
            try:
                self._db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            finally:
                copy.close()
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def compact(self) -> None:
        """Write the file anew and empty the write-ahead log."""
        with self.transaction():
            pass  # makes the connection one that writes
        with self.surroundings.turn(self._busy_seconds), sqlite_errors(self.location):
            self._db.execute("VACUUM")
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise VaultBusy(t("the vault {vault} is busy: another command is reading it", vault=self.location))

    def _fold(self) -> None:
        """Bring the write-ahead log into the file, so that it is whole by itself. Raises VaultBusy."""
        with sqlite_errors(self.location):
            self._db.execute("PRAGMA journal_mode = DELETE")

    def _give_way(self, draft: Path, check: Callable[[EntryRow | None], None]) -> None:
        """``draft`` takes this file's name, while nobody else can write here. Raises VaultBusy."""
        with self.surroundings.turn(self._busy_seconds):
            with self._alone_in_the_file():
                pass  # a writer at work makes this VaultBusy before anything has happened
            self._fold()  # no log of the old file may be replayed into the new one
            self._exchange(draft, check)

    def _exchange(self, draft: Path, check: Callable[[EntryRow | None], None]) -> None:
        with sqlite_errors(self.location):
            self._db.execute("BEGIN EXCLUSIVE")
            try:
                if any(file.exists() for file in files_of(self._path)[:-1]):
                    # A writer came between: its log would be replayed into the new file.
                    raise VaultBusy(
                        t("the vault {vault} is busy: another command is writing to it", vault=self.location)
                    )
                check(self.newest())
                draft.replace(self._path)
                sync_directory(self._path.parent)
            finally:
                self._db.execute("ROLLBACK")


def connect(path: Path, mode: str, busy_seconds: float) -> sqlite3.Connection:
    refuse_planted(path)
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    if mode == "rw":
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
    return db


def _connect_to_ours(path: Path, busy_seconds: float, mode: str = "ro") -> sqlite3.Connection:
    db = connect(path, mode, busy_seconds)
    try:
        _check_schema(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _roll_back(path: Path, busy_seconds: float) -> None:
    """Finish what a kill interrupted while the file changed its journal mode: the pages in its journal go back.

    That is a write before anything is verified, but whoever could plant a journal could have written the file itself.
    """
    with contextlib.closing(connect(path, "rw", busy_seconds)) as db:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        raise VaultForeign(t("{path} is not a MedCrypt vault", path=path), "name the right file with --vault")
    if db.execute("PRAGMA encoding").fetchone() != ("UTF-8",):  # order and digests are those of the text's UTF-8
        raise VaultDamaged(t("the vault {path} keeps its text in another encoding than UTF-8", path=path))
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (UNBOUND, SCHEMA_VERSION):
        raise VaultForeign(
            t(
                "{path} has schema {schema}, this program knows {known}",
                path=path,
                schema=version,
                known=SCHEMA_VERSION,
            ),
            "install the newer medcrypt that wrote it"
            if version > SCHEMA_VERSION
            else "keep the file and ask for help",
        )
    # Exactly ours: a trigger or view could change what our statements mean.
    wanted = SCHEMA if version == UNBOUND else SCHEMA + TREE
    if sorted(sql or "" for (sql,) in db.execute("SELECT sql FROM sqlite_schema")) != sorted(wanted):
        raise VaultDamaged(t("the vault {path} has a foreign schema", path=path))
