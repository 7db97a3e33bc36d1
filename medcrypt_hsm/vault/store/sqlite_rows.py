"""``SqliteRows``: the tables of a vault in a SQLite file. Schema 2 is docs/spec/vault.md; schema 1, of before, has no
table of digests.

In: rows. Out: rows, as they were written. Not here: files, transactions, and who may write (sqlite.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from medcrypt_hsm.errors import Failed, VaultBusy, VaultDamaged
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.rows import EntryRow, Location, LookupRow, RecordRow, SealedRow, TrustRow

APPLICATION_ID = 0x4D454443  # "MEDC"
UNBOUND, SCHEMA_VERSION = 1, 2
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
TREE = (
    "CREATE TABLE tree (name TEXT NOT NULL, prefix TEXT NOT NULL, digests BLOB NOT NULL, PRIMARY KEY (name, prefix)) "
    "STRICT, WITHOUT ROWID",
    "CREATE INDEX records_month ON records (purpose, month, pairing)",
)
LONGEST_VALUE = 1 << 26  # an entry that lists a year of months of ten thousand patients has some 2^23


_TRUST_TYPES = (str, str, bytes)
_ENTRY_TYPES = (int, bytes, bytes, bytes, bytes, bytes)
_RECORD_TYPES = (str, bytes, str, int, bytes, bytes)
_SEALED_TYPES = (str, bytes, bytes, int, bytes, bytes)
_LOOKUP_TYPES = (bytes, str, bytes)
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

    def entries(self, after: int = 0) -> Generator[EntryRow, None, None]:
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

    # Rows by the digits of their keys, and the table of digests over them

    @property
    def has_tree(self) -> bool:
        return self._number("PRAGMA user_version") != UNBOUND

    def add_tree(self) -> None:
        for statement in (*TREE, f"PRAGMA user_version = {SCHEMA_VERSION}"):
            self._write(statement, ())

    def record_groups(self, purpose: str = "") -> list[tuple[str, str]]:
        sql = "SELECT DISTINCT purpose, month FROM records INDEXED BY records_month {} ORDER BY purpose, month"
        if purpose:
            return self._all(sql.format("WHERE purpose = ?"), (str, str), (purpose,))
        return self._all(sql.format(""), (str, str))

    def sealed_purposes(self) -> list[str]:
        return [purpose for (purpose,) in self._all("SELECT DISTINCT purpose FROM sealed ORDER BY purpose", (str,))]

    def records_between(self, purpose: str, month: str, low: bytes, high: bytes, most: int = -1) -> list[RecordRow]:
        sql = (
            "SELECT * FROM records INDEXED BY records_month WHERE purpose = ? AND month = ? "
            "AND pairing BETWEEN ? AND ? ORDER BY pairing LIMIT ?"
        )
        return [RecordRow(*row) for row in self._all(sql, _RECORD_TYPES, (purpose, month, low, high, most))]

    def sealed_between(self, purpose: str, low: bytes, high: bytes, most: int = -1) -> list[SealedRow]:
        sql = "SELECT * FROM sealed WHERE purpose = ? AND pairing BETWEEN ? AND ? ORDER BY pairing LIMIT ?"
        return [SealedRow(*row) for row in self._all(sql, _SEALED_TYPES, (purpose, low, high, most))]

    def lookups_between(self, low: bytes, high: bytes, most: int = -1) -> list[LookupRow]:
        sql = (
            "SELECT lookup, purpose, pairing FROM sealed WHERE lookup > x'' AND lookup BETWEEN ? AND ? "
            "ORDER BY lookup, purpose, pairing LIMIT ?"
        )
        return [LookupRow(*row) for row in self._all(sql, _LOOKUP_TYPES, (low, high, most))]

    def nodes(self, name: str, prefixes: Sequence[str]) -> dict[str, bytes]:
        marks = ",".join("?" * len(prefixes))
        sql = f"SELECT prefix, digests FROM tree WHERE name = ? AND prefix IN ({marks})"  # noqa: S608 - marks
        return dict(self._all(sql, (str, bytes), (name, *prefixes)))

    def put_nodes(self, name: str, nodes: Iterable[tuple[str, bytes]]) -> None:
        self._write_each("INSERT OR REPLACE INTO tree VALUES (?, ?, ?)", [(name, *node) for node in nodes])

    def delete_nodes(self, name: str, prefix: str) -> None:
        self._write("DELETE FROM tree WHERE name = ? AND prefix BETWEEN ? AND ?", (name, prefix, prefix + "g"))

    def clear_tree(self) -> None:
        self._write("DELETE FROM tree", ())

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
