"""``VaultFile``: the SQLite store. Rows in, rows out; schema 1 is docs/spec/vault.md.

A file is opened read-only, looked at by the unlock, and only then (``transaction``) for writing: what fails to verify
is not touched. One writer at a time; readers are not disturbed. Not here: what any row means, and any cryptography.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medcrypt_hsm.errors import Failed, VaultBusy, VaultDamaged, VaultError, VaultForeign, VaultMissing
from medcrypt_hsm.vault.store.filesystem import (
    files_of,
    nobody_writes,
    refuse_network_file_system,
    refuse_planted,
    remove_files,
    sync_directory,
)
from medcrypt_hsm.vault.store.rows import EntryRow, RecordRow, SealedRow, TrustRow

APPLICATION_ID = 0x4D454443  # "MEDC"
SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE trust (kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, name)) "
    "STRICT, WITHOUT ROWID",
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, stored BLOB NOT NULL, hash BLOB NOT NULL, "
    "trust BLOB NOT NULL, signer BLOB NOT NULL, signature BLOB NOT NULL) STRICT",
    "CREATE TABLE records (purpose TEXT NOT NULL, pairing BLOB NOT NULL, month TEXT NOT NULL, "
    "sequence INTEGER NOT NULL, wrapped BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (purpose, pairing, month)) "
    "STRICT, WITHOUT ROWID",
    "CREATE TABLE sealed (purpose TEXT NOT NULL, pairing BLOB NOT NULL, lookup BLOB NOT NULL, "
    "sequence INTEGER NOT NULL, nonce BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY (purpose, pairing)) "
    "STRICT, WITHOUT ROWID",
    "CREATE INDEX sealed_lookup ON sealed (lookup)",
    "CREATE TABLE seen (pairing BLOB NOT NULL, month TEXT NOT NULL, nonce BLOB NOT NULL, digest BLOB NOT NULL, "
    "PRIMARY KEY (pairing, month, nonce)) STRICT, WITHOUT ROWID",
)
BUSY_SECONDS = 10.0
LONGEST_VALUE = 1 << 26  # an entry that lists a year of months of ten thousand patients has some 2^23
_TRUST_TYPES = (str, str, bytes)
_ENTRY_TYPES = (int, bytes, bytes, bytes, bytes, bytes)
_RECORD_TYPES = (str, bytes, str, int, bytes, bytes)
_SEALED_TYPES = (str, bytes, bytes, int, bytes, bytes)
_SEEN_TYPES = (bytes, str, bytes, bytes)
_PUT_SEEN = """
WITH RECURSIVE at(byte) AS (
    SELECT 0 WHERE length(?3) > 0 UNION ALL SELECT byte + 32 FROM at WHERE byte + 32 < length(?3)
)
{} INTO seen SELECT ?1, ?2, substr(?3, byte + 1, 16), substr(?3, byte + 17, 16) FROM at
"""


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    """What SQLite says, in the program's words."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as exc:
        raise _translate(exc, path) from exc


def _translate(exc: Exception, path: Path) -> Exception:
    code = getattr(exc, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return VaultBusy(f"the vault {path} is busy: another command is writing to it")
    if primary == sqlite3.SQLITE_FULL:
        return Failed(f"the disk that holds {path} is full", "make room and run the command again")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return Failed(f"the vault {path} cannot be written", "check its owner, its mode and the file system")
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM):
        return Failed(f"the vault {path} cannot be read or written: {exc}", "check the disk and the file's owner")
    return VaultDamaged(f"the vault {path} is damaged")


class VaultFile:
    """One vault file. Not thread safe; one per process and path is enough."""

    def __init__(self, path: Path, db: sqlite3.Connection, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.path = path
        self._db = db
        self._writable = False
        self._busy_seconds = busy_seconds
        self._inode = path.stat().st_ino

    @classmethod
    def open(cls, path: Path, *, busy_seconds: float = BUSY_SECONDS, in_use: bool = True) -> VaultFile:
        """Open to read. Raises VaultMissing, VaultForeign (another program's, or a newer schema) or VaultDamaged.

        A file that is not ``in_use``, such as a backup, may lie on a network file system.
        """
        try:
            if path.is_symlink():
                # SQLite would follow it, but a restore or a note would not: one vault would become two.
                raise VaultError(f"{path} is a symbolic link", "name the vault file itself")
            if not stat.S_ISREG(path.stat().st_mode):
                raise VaultMissing(f"{path} is not a file")
            if path.stat().st_size == 0:
                raise VaultDamaged(f"the vault {path} is empty")
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise VaultMissing(f"there is no vault at {path}") from exc
        except PermissionError as exc:
            raise VaultMissing(f"the vault at {path} cannot be read", "check who owns it") from exc
        if in_use:
            refuse_network_file_system(path)
        with _sqlite_errors(path):
            try:
                db = _connect_to_ours(path, busy_seconds)
            except sqlite3.OperationalError as exc:
                if nobody_writes(path):
                    db = _connect_to_ours(path, busy_seconds, "ro&immutable=1")
                elif exc.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
                    _roll_back(path, busy_seconds)
                    db = _connect_to_ours(path, busy_seconds)
                else:
                    raise
        return cls(path, db, busy_seconds=busy_seconds)

    @classmethod
    def create(cls, path: Path, first_row: TrustRow) -> VaultFile:
        """A new file with ``first_row`` as its only row. Raises VaultError if there is a file already."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_network_file_system(path.parent)
        # Built under another name, so that whatever bears the vault's name is a whole vault file.
        draft = path.with_name(path.name + "-creating")
        remove_files(draft)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _sqlite_errors(path):
            db = _connect(draft, "rw", BUSY_SECONDS)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                db.execute(statement)
            db.execute("INSERT INTO trust VALUES (?, ?, ?)", first_row)
            db.execute("COMMIT")
            db.execute("PRAGMA journal_mode = WAL")
            db.close()
        try:
            os.link(draft, path)  # unlike a rename, refuses to replace a vault that appeared meanwhile
        except FileExistsError as exc:
            raise VaultError(f"there is a vault at {path} already", "name another file with --vault") from exc
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(path.parent)
        return cls.open(path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """The one way to write: the write lock, then everything or nothing. Raises VaultBusy."""
        with _sqlite_errors(self.path):
            if not self._writable:
                db = _connect(self.path, "rw", self._busy_seconds)
                db.execute("PRAGMA journal_mode = WAL")
                self._db.close()
                self._db, self._writable = db, True
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if self.path.stat().st_ino != self._inode:
                    raise VaultBusy(f"the vault {self.path} was restored meanwhile", "run the command again")
                _check_schema(self._db, self.path)  # a trigger that came meanwhile would write along
                yield
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk makes SQLite roll back by itself
                    self._db.execute("ROLLBACK")
                raise
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment."""
        with _sqlite_errors(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()

    def write_header(self) -> None:
        """A write that changes nothing. Inside a transaction: its commit proves that the disk takes writes."""
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    # Trust state

    def trust_rows(self) -> list[TrustRow]:
        """In ascending order of (kind, name) as bytes: SQLite's BINARY collation."""
        return self._all("SELECT kind, name, value FROM trust ORDER BY kind, name", _TRUST_TYPES)

    def put_trust(self, kind: str, name: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO trust VALUES (?, ?, ?)", (kind, name, value))

    def delete_trust(self, kind: str, name: str) -> None:
        self._db.execute("DELETE FROM trust WHERE kind = ? AND name = ?", (kind, name))

    # Entries

    def newest(self) -> EntryRow | None:
        rows = self._all("SELECT * FROM entries ORDER BY sequence DESC LIMIT 1", _ENTRY_TYPES)
        return EntryRow(*rows[0]) if rows else None

    def entry(self, sequence: int) -> EntryRow | None:
        rows = self._all("SELECT * FROM entries WHERE sequence = ?", _ENTRY_TYPES, (sequence,))
        return EntryRow(*rows[0]) if rows else None

    def entries(self, after: int = 0) -> Iterator[EntryRow]:
        """In order, those behind ``after``."""
        for row in self._each("SELECT * FROM entries WHERE sequence > ? ORDER BY sequence", _ENTRY_TYPES, (after,)):
            yield EntryRow(*row)

    def stored_after(self, sequence: int) -> int:
        """Bytes of the entries behind this one, as they are stored."""
        total = "SELECT coalesce(sum(length(stored)), 0) FROM entries WHERE sequence > ?"
        return int(self._all(total, (int,), (sequence,))[0][0])

    def clear_entries(self) -> Iterator[EntryRow]:
        sql = "SELECT * FROM entries WHERE substr(stored, 1, 1) = x'00' ORDER BY sequence"
        for row in self._each(sql, _ENTRY_TYPES):
            yield EntryRow(*row)

    def has_entry_hash(self, hash_: bytes) -> bool:
        return bool(self._db.execute("SELECT 1 FROM entries WHERE hash = ?", (hash_,)).fetchone())

    def append(self, row: EntryRow) -> None:
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)

    # Records

    def record(self, purpose: str, pairing: bytes, month: str) -> RecordRow | None:
        sql = "SELECT * FROM records WHERE purpose = ? AND pairing = ? AND month = ?"
        rows = self._all(sql, _RECORD_TYPES, (purpose, pairing, month))
        return RecordRow(*rows[0]) if rows else None

    def records(self, purpose: str = "", pairing: bytes | None = None) -> list[RecordRow]:
        sql = "SELECT * FROM records WHERE (? = '' OR purpose = ?) AND (? IS NULL OR pairing = ?)"
        return [RecordRow(*row) for row in self._all(sql, _RECORD_TYPES, (purpose, purpose, pairing, pairing))]

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)

    def delete_record(self, purpose: str, pairing: bytes, month: str) -> None:
        self._db.execute(
            "DELETE FROM records WHERE purpose = ? AND pairing = ? AND month = ?", (purpose, pairing, month)
        )

    # Sealed rows

    def sealed(self, purpose: str, pairing: bytes) -> SealedRow | None:
        rows = self._all("SELECT * FROM sealed WHERE purpose = ? AND pairing = ?", _SEALED_TYPES, (purpose, pairing))
        return SealedRow(*rows[0]) if rows else None

    def all_sealed(self, purpose: str = "") -> list[SealedRow]:
        sql = "SELECT * FROM sealed WHERE ? = '' OR purpose = ? ORDER BY sequence"
        return [SealedRow(*row) for row in self._all(sql, _SEALED_TYPES, (purpose, purpose))]

    def written(self) -> Iterator[RecordRow | SealedRow]:
        """Every row that names the entry which wrote it, one at a time: records, then sealed, each by primary key."""
        for row in self._each("SELECT * FROM records ORDER BY purpose, pairing, month", _RECORD_TYPES):
            yield RecordRow(*row)
        for row in self._each("SELECT * FROM sealed ORDER BY purpose, pairing", _SEALED_TYPES):
            yield SealedRow(*row)

    def count_pairings(self) -> int:
        with _sqlite_errors(self.path):
            return int(self._db.execute("SELECT count(*) FROM sealed WHERE purpose = 'patient'").fetchone()[0])

    def sealed_of(self, lookup: bytes) -> list[SealedRow]:
        sql = "SELECT * FROM sealed WHERE lookup = ? ORDER BY sequence"
        return [SealedRow(*row) for row in self._all(sql, _SEALED_TYPES, (lookup,))]

    def put_sealed(self, row: SealedRow) -> None:
        self._db.execute("INSERT OR REPLACE INTO sealed VALUES (?, ?, ?, ?, ?, ?)", row)

    def delete_sealed(self, purpose: str, pairing: bytes) -> None:
        self._db.execute("DELETE FROM sealed WHERE purpose = ? AND pairing = ?", (purpose, pairing))

    # Seen messages

    def seen_among(self, pairing: bytes, month: str, nonces: Sequence[bytes]) -> dict[bytes, bytes]:
        """nonce → digest, of those that are there. A month may have millions of others."""
        found: dict[bytes, bytes] = {}
        for start in range(0, len(nonces), 500):
            asked = nonces[start : start + 500]
            marks = ",".join("?" * len(asked))
            sql = f"SELECT * FROM seen WHERE pairing = ? AND month = ? AND nonce IN ({marks})"  # noqa: S608 - marks
            found |= {row[2]: row[3] for row in self._all(sql, _SEEN_TYPES, (pairing, month, *asked))}
        return found

    def seen_count(self, pairing: bytes, month: str) -> int:
        sql = "SELECT count(*) FROM seen WHERE pairing = ? AND month = ?"
        return int(self._db.execute(sql, (pairing, month)).fetchone()[0])

    def all_seen(self) -> Iterator[tuple[bytes, str, bytes, bytes]]:
        yield from self._each("SELECT * FROM seen", _SEEN_TYPES)

    def put_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Each row (nonce, digest): 16 bytes and 16 bytes. In one statement: a chat brings ten thousand."""
        self._put_seen("INSERT OR REPLACE", pairing, month, rows)

    def put_new_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> bool:
        """Those rows, if none of their nonces is there and none comes twice; else none of them, and False."""
        try:
            self._put_seen("INSERT", pairing, month, rows)
        except sqlite3.IntegrityError:
            return False  # SQLite has undone the whole statement
        return True

    def _put_seen(self, insert: str, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        joined = b"".join(nonce + digest for nonce, digest in rows)
        self._db.execute(_PUT_SEEN.format(insert), (pairing, month, joined))

    def delete_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Those rows (nonce, digest) and no other text's that has come to stand at the same nonce."""
        sql = "DELETE FROM seen WHERE pairing = ? AND month = ? AND nonce = ? AND digest = ?"
        self._db.executemany(sql, [(pairing, month, nonce, digest) for nonce, digest in rows])

    def forget_month(self, month: str) -> None:
        self._db.execute("DELETE FROM seen WHERE month = ?", (month,))

    def forget_pairing(self, pairing: bytes) -> None:
        self._db.execute("DELETE FROM seen WHERE pairing = ?", (pairing,))

    # The file as a whole

    def check_integrity(self) -> None:
        """Every page, by SQLite's own account. Raises VaultDamaged."""
        with _sqlite_errors(self.path):
            if self._db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise VaultDamaged(f"the vault {self.path} is damaged")

    def copy_to(self, target: Path) -> None:
        """A consistent single-file copy, also while another process writes. ``target`` must not exist."""
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _sqlite_errors(target):
            copy = _connect(target, "rw", self._busy_seconds)
            try:
                self._db.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            finally:
                copy.close()
        fd = os.open(target, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def compact(self) -> None:
        """Write the file anew and empty the write-ahead log: nothing of a deleted row stays in either.

        Raises VaultBusy while another process reads.
        """
        with self.transaction():
            pass  # makes the connection one that writes
        with _sqlite_errors(self.path):
            self._db.execute("VACUUM")
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise VaultBusy(f"the vault {self.path} is busy: another command is reading it")

    def fold(self) -> None:
        """Bring the write-ahead log into the file, so that it is whole by itself. Raises VaultBusy."""
        with _sqlite_errors(self.path):
            self._db.execute("PRAGMA journal_mode = DELETE")

    def replace_with(self, draft: Path, check: Callable[[EntryRow | None], None]) -> None:
        """``draft`` takes this file's name, while nobody else can write here. Raises VaultBusy.

        ``check`` is shown the newest entry under the lock, and raises to stop.
        """
        with self.transaction():
            pass  # a writer at work makes this VaultBusy before anything has happened
        self.fold()  # no log of the old file may be replayed into the new one
        with _sqlite_errors(self.path):
            self._db.execute("BEGIN EXCLUSIVE")
            try:
                if any(file.exists() for file in files_of(self.path)[:-1]):
                    # A writer came between: its log would be replayed into the new file.
                    raise VaultBusy(f"the vault {self.path} is busy: another command is writing to it")
                check(self.newest())
                draft.replace(self.path)
                sync_directory(self.path.parent)
            finally:
                self._db.execute("ROLLBACK")

    def _all(self, sql: str, types: tuple[type, ...], values: Sequence[Any] = ()) -> list[Any]:
        with _sqlite_errors(self.path):
            rows = self._db.execute(sql, values).fetchall()
        for row in rows:
            _check_types(row, types, self.path)
        return rows

    def _each(self, sql: str, types: tuple[type, ...], values: Sequence[Any] = ()) -> Iterator[Any]:
        with _sqlite_errors(self.path):
            for row in self._db.execute(sql, values):
                _check_types(row, types, self.path)
                yield row


def _check_types(row: Sequence[Any], types: tuple[type, ...], path: Path) -> None:
    # STRICT is enforced when a row is written; a file made by other means can hold anything. No number of ours is
    # negative, none below here expects one, and no row has more than one.
    if tuple(map(type, row)) != types or (int in types and row[types.index(int)] < 0):
        raise VaultDamaged(f"the vault {path} is damaged: a row holds values of the wrong type")


def _connect(path: Path, mode: str, busy_seconds: float) -> sqlite3.Connection:
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
    db = _connect(path, mode, busy_seconds)
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
    with contextlib.closing(_connect(path, "rw", busy_seconds)) as db:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        raise VaultForeign(f"{path} is not a MedCrypt vault", "name the right file with --vault")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise VaultForeign(
            f"{path} has schema {version}, this program knows {SCHEMA_VERSION}",
            "install the newer medcrypt that wrote it"
            if version > SCHEMA_VERSION
            else "keep the file and ask for help",
        )
    # Exactly ours: a trigger or view could change what our statements mean.
    if sorted(sql or "" for (sql,) in db.execute("SELECT sql FROM sqlite_schema")) != sorted(SCHEMA):
        raise VaultDamaged(f"the vault {path} has a foreign schema")
