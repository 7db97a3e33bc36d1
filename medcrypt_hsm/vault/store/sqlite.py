"""``SqliteStore``: a vault in a SQLite file. Schema 1 is docs/spec/vault.md; what is guaranteed is in store.py.

A file is opened read-only, looked at by the unlock, and only then (``transaction``) for writing: what fails to verify
is not touched. In: a ``Location`` that is a path. Out: the store. Not here: how a file comes to be (sqlite_new.py), and
what others keep beside it (surroundings.py).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from medcrypt_hsm.errors import Failed, VaultBusy, VaultDamaged, VaultError, VaultForeign, VaultMissing
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.rows import BUSY_SECONDS, EntryRow, Location, RecordRow, SealedRow, TrustRow
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
def sqlite_errors(location: Location) -> Iterator[None]:
    """What SQLite says, in the program's words."""
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeDecodeError) as exc:
        raise _translated(exc, location) from exc


def _translated(exc: Exception, location: Location) -> Exception:
    code = getattr(exc, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return VaultBusy(t("the vault {location} is busy: another command is writing to it", location=location))
    if primary == sqlite3.SQLITE_FULL:
        return Failed(
            t("the disk that holds {location} is full", location=location), "make room and run the command again"
        )
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return Failed(
            t("the vault {location} cannot be written", location=location),
            "check its owner, its mode and the file system",
        )
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM):
        return Failed(
            t("the vault {location} cannot be read or written: {reason}", location=location, reason=exc),
            "check the disk and the file's owner",
        )
    return VaultDamaged(t("the vault {location} is damaged", location=location))


class SqliteRows:
    """A vault's tables. Writes are refused outside a transaction."""

    def __init__(self, location: Location, db: sqlite3.Connection) -> None:
        self.location = location
        self._db = db
        self._in_transaction = False

    # Trust state

    def trust_rows(self) -> list[TrustRow]:
        return self._all("SELECT kind, name, value FROM trust ORDER BY kind, name", _TRUST_TYPES)

    def put_trust(self, kind: str, name: str, value: bytes) -> None:
        self._write("INSERT OR REPLACE INTO trust VALUES (?, ?, ?)", (kind, name, value))

    def delete_trust(self, kind: str, name: str) -> None:
        self._write("DELETE FROM trust WHERE kind = ? AND name = ?", (kind, name))

    # Entries

    def newest(self) -> EntryRow | None:
        rows = self._all("SELECT * FROM entries ORDER BY sequence DESC LIMIT 1", _ENTRY_TYPES)
        return EntryRow(*rows[0]) if rows else None

    def entry(self, sequence: int) -> EntryRow | None:
        rows = self._all("SELECT * FROM entries WHERE sequence = ?", _ENTRY_TYPES, (sequence,))
        return EntryRow(*rows[0]) if rows else None

    def entries(self, after: int = 0) -> Iterator[EntryRow]:
        for row in self._each("SELECT * FROM entries WHERE sequence > ? ORDER BY sequence", _ENTRY_TYPES, (after,)):
            yield EntryRow(*row)

    def stored_after(self, sequence: int) -> int:
        return self._number("SELECT coalesce(sum(length(stored)), 0) FROM entries WHERE sequence > ?", (sequence,))

    def clear_entries(self) -> Iterator[EntryRow]:
        sql = "SELECT * FROM entries WHERE substr(stored, 1, 1) = x'00' ORDER BY sequence"
        for row in self._each(sql, _ENTRY_TYPES):
            yield EntryRow(*row)

    def has_entry_hash(self, hash_: bytes) -> bool:
        return self._number("SELECT EXISTS (SELECT 1 FROM entries WHERE hash = ?)", (hash_,)) == 1

    def append(self, row: EntryRow) -> None:
        self._write("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)

    # Records

    def record(self, purpose: str, pairing: bytes, month: str) -> RecordRow | None:
        sql = "SELECT * FROM records WHERE purpose = ? AND pairing = ? AND month = ?"
        rows = self._all(sql, _RECORD_TYPES, (purpose, pairing, month))
        return RecordRow(*rows[0]) if rows else None

    def records(self, purpose: str = "", pairing: bytes | None = None) -> list[RecordRow]:
        sql = (
            "SELECT * FROM records WHERE (? = '' OR purpose = ?) AND (? IS NULL OR pairing = ?) "
            "ORDER BY purpose, pairing, month"
        )
        return [RecordRow(*row) for row in self._all(sql, _RECORD_TYPES, (purpose, purpose, pairing, pairing))]

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        self._write_each("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)

    def delete_record(self, purpose: str, pairing: bytes, month: str) -> None:
        sql = "DELETE FROM records WHERE purpose = ? AND pairing = ? AND month = ?"
        self._write(sql, (purpose, pairing, month))

    # Sealed rows

    def sealed(self, purpose: str, pairing: bytes) -> SealedRow | None:
        rows = self._all("SELECT * FROM sealed WHERE purpose = ? AND pairing = ?", _SEALED_TYPES, (purpose, pairing))
        return SealedRow(*rows[0]) if rows else None

    def all_sealed(self, purpose: str = "") -> list[SealedRow]:
        sql = "SELECT * FROM sealed WHERE ? = '' OR purpose = ? ORDER BY sequence, purpose, pairing"
        return [SealedRow(*row) for row in self._all(sql, _SEALED_TYPES, (purpose, purpose))]

    def written(self) -> Iterator[RecordRow | SealedRow]:
        for row in self._each("SELECT * FROM records ORDER BY purpose, pairing, month", _RECORD_TYPES):
            yield RecordRow(*row)
        for row in self._each("SELECT * FROM sealed ORDER BY purpose, pairing", _SEALED_TYPES):
            yield SealedRow(*row)

    def count_pairings(self) -> int:
        return self._number("SELECT count(*) FROM sealed WHERE purpose = 'patient'")

    def sealed_of(self, lookup: bytes) -> list[SealedRow]:
        sql = "SELECT * FROM sealed WHERE lookup = ? ORDER BY sequence, purpose, pairing"
        return [SealedRow(*row) for row in self._all(sql, _SEALED_TYPES, (lookup,))]

    def put_sealed(self, row: SealedRow) -> None:
        self._write("INSERT OR REPLACE INTO sealed VALUES (?, ?, ?, ?, ?, ?)", row)

    def delete_sealed(self, purpose: str, pairing: bytes) -> None:
        self._write("DELETE FROM sealed WHERE purpose = ? AND pairing = ?", (purpose, pairing))

    # Seen messages

    def seen_among(self, pairing: bytes, month: str, nonces: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for start in range(0, len(nonces), 500):
            asked = nonces[start : start + 500]
            marks = ",".join("?" * len(asked))
            sql = f"SELECT * FROM seen WHERE pairing = ? AND month = ? AND nonce IN ({marks})"  # noqa: S608 - marks
            found |= {row[2]: row[3] for row in self._all(sql, _SEEN_TYPES, (pairing, month, *asked))}
        return found

    def seen_count(self, pairing: bytes, month: str) -> int:
        return self._number("SELECT count(*) FROM seen WHERE pairing = ? AND month = ?", (pairing, month))

    def all_seen(self) -> Iterator[tuple[bytes, str, bytes, bytes]]:
        yield from self._each("SELECT * FROM seen", _SEEN_TYPES)

    def put_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._write(_PUT_SEEN.format("INSERT OR REPLACE"), (pairing, month, _joined(rows)))

    def put_new_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> bool:
        self._refuse_outside_transaction()
        with sqlite_errors(self.location):
            try:
                self._db.execute(_PUT_SEEN.format("INSERT"), (pairing, month, _joined(rows)))
            except sqlite3.IntegrityError:
                return False  # SQLite has undone the whole statement
        return True

    def delete_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        sql = "DELETE FROM seen WHERE pairing = ? AND month = ? AND nonce = ? AND digest = ?"
        self._write_each(sql, [(pairing, month, nonce, digest) for nonce, digest in rows])

    def forget_month(self, month: str) -> None:
        self._write("DELETE FROM seen WHERE month = ?", (month,))

    def forget_pairing(self, pairing: bytes) -> None:
        self._write("DELETE FROM seen WHERE pairing = ?", (pairing,))

    # Statements

    def _all(self, sql: str, types: tuple[type, ...], values: Sequence[Any] = ()) -> list[Any]:
        with sqlite_errors(self.location):
            rows = self._db.execute(sql, values).fetchall()
        for row in rows:
            self._check_types(row, types)
        return rows

    def _each(self, sql: str, types: tuple[type, ...], values: Sequence[Any] = ()) -> Iterator[Any]:
        with sqlite_errors(self.location):
            for row in self._db.execute(sql, values):
                self._check_types(row, types)
                yield row

    def _number(self, sql: str, values: Sequence[Any] = ()) -> int:
        return int(self._all(sql, (int,), values)[0][0])

    def _check_types(self, row: Sequence[Any], types: tuple[type, ...]) -> None:
        # STRICT is enforced when a row is written; a file made by other means can hold anything. No number of ours is
        # negative, none below here expects one, and no row has more than one.
        if tuple(map(type, row)) != types or (int in types and row[types.index(int)] < 0):
            raise VaultDamaged(
                t("the vault {vault} is damaged: a row holds values of the wrong type", vault=self.location)
            )

    def _write(self, sql: str, values: Sequence[Any]) -> None:
        self._refuse_outside_transaction()
        with sqlite_errors(self.location):
            self._db.execute(sql, values)

    def _write_each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._refuse_outside_transaction()
        with sqlite_errors(self.location):
            self._db.executemany(sql, rows)

    def _refuse_outside_transaction(self) -> None:
        if not self._in_transaction:
            raise RuntimeError("a row is written outside a transaction")


def _joined(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(nonce + digest for nonce, digest in rows)


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
                if self._path.stat().st_ino != self._inode:
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

    def close(self) -> None:
        self._db.close()

    def write_nothing(self) -> None:
        self._write(f"PRAGMA user_version = {SCHEMA_VERSION}", ())  # the file's header

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
    if version != SCHEMA_VERSION:
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
    if sorted(sql or "" for (sql,) in db.execute("SELECT sql FROM sqlite_schema")) != sorted(SCHEMA):
        raise VaultDamaged(t("the vault {path} has a foreign schema", path=path))
