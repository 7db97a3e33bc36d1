"""``Scratch``: temporary storage in a SQLite database without a name, so that memory does not grow with the log.

SQLite keeps it in its cache and, past that, in a file that has no name from the start and goes with the process. What
lies there is references to rows and values of HMAC, as in the vault file itself: no key, no text, no patient.

``Parts`` is such a room for the parts of long messages in an imported chat: their wire texts, and who sent them when.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple

from medcrypt_hsm.errors import Failed
from medcrypt_hsm.sentences import t

CACHE_KIB = 16 << 10
_UNWRITTEN = 1 << 15  # references, of some 150 bytes each
_SCHEMA = (
    "CREATE TABLE rows (ref TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE seen (pairing TEXT NOT NULL, month TEXT NOT NULL, nonce BLOB NOT NULL, digest BLOB NOT NULL, "
    "PRIMARY KEY (pairing, month, nonce)) STRICT, WITHOUT ROWID",
)
_PARTS = (
    "CREATE TABLE parts (message TEXT NOT NULL, text TEXT NOT NULL, number INTEGER NOT NULL, origin TEXT NOT NULL, "
    "taken INTEGER NOT NULL, PRIMARY KEY (message, text)) STRICT, WITHOUT ROWID"
)


class Scratch:
    """Expected rows of a vault, by reference, and expected seen texts. Close it, or use it as a context manager.

    Every method raises Failed where there is no room for temporary files.
    """

    def __init__(self, *, cache_kib: int = CACHE_KIB) -> None:
        self._db = _nameless(_SCHEMA, cache_kib)
        self._unwritten: dict[str, int | None] = {}  # newer than the rows in the database; None: the row is gone

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Rows

    def put_rows(self, refs: Iterable[str], sequence: int) -> None:
        self._note_rows(refs, sequence)

    def drop_rows(self, refs: Iterable[str]) -> None:
        self._note_rows(refs, None)

    def _note_rows(self, refs: Iterable[str], sequence: int | None) -> None:
        # Every month's chain keys go when the next month's come, so most of them never reach the database.
        self._unwritten |= dict.fromkeys(refs, sequence)
        if len(self._unwritten) > _UNWRITTEN:
            self._write_rows()

    def _write_rows(self) -> None:
        gone = [(ref,) for ref, sequence in self._unwritten.items() if sequence is None]
        there = [row for row in self._unwritten.items() if row[1] is not None]
        with _no_room():
            self._db.executemany("DELETE FROM rows WHERE ref = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", there)
        self._unwritten.clear()

    def rows(self) -> Generator[tuple[str, int], None, None]:
        """Reference and sequence of each, in ascending order of the references' bytes. Close it before this closes."""
        self._write_rows()
        with _no_room():
            yield from self._db.execute("SELECT ref, sequence FROM rows ORDER BY ref")

    def has_row(self, ref: str) -> bool:
        self._write_rows()
        with _no_room():
            return self._db.execute("SELECT 1 FROM rows WHERE ref = ?", (ref,)).fetchone() is not None

    # Seen texts

    def put_seen(self, pairing: str, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Each row (nonce, digest); a pairing is in hex."""
        with _no_room():
            self._db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", _under(pairing, month, rows))

    def drop_seen(self, pairing: str, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Those rows, but not a row of another text with the same nonce."""
        sql = "DELETE FROM seen WHERE pairing = ? AND month = ? AND nonce = ? AND digest = ?"
        with _no_room():
            self._db.executemany(sql, _under(pairing, month, rows))

    def drop_seen_of_pairing(self, pairing: str) -> None:
        with _no_room():
            self._db.execute("DELETE FROM seen WHERE pairing = ?", (pairing,))

    def drop_seen_of_month(self, month: str) -> None:
        with _no_room():
            self._db.execute("DELETE FROM seen WHERE month = ?", (month,))

    def take_seen(self, pairing: str, month: str, nonce: bytes) -> bytes | None:
        """The digest, once: it is gone then."""
        sql = "DELETE FROM seen WHERE pairing = ? AND month = ? AND nonce = ? RETURNING digest"
        with _no_room():
            found = self._db.execute(sql, (pairing, month, nonce)).fetchall()
        return bytes(found[0][0]) if found else None

    def count_seen(self) -> int:
        with _no_room():
            return int(self._db.execute("SELECT count(*) FROM seen").fetchone()[0])


class Part(NamedTuple):
    """A part as the chat has it: its number among the chat's messages of ours, its wire text, who sent it when."""

    number: int
    text: str
    origin: str
    taken: bool


class Parts:
    """Parts of messages by what they have in common. A text that comes again counts once, where it came first."""

    def __init__(self) -> None:
        self._db = _nameless((_PARTS, "CREATE INDEX by_number ON parts (number)"), CACHE_KIB)
        self._taken_before = 0

    def close(self) -> None:
        self._db.close()

    def put(self, message: str, number: int, text: str, origin: str) -> None:
        with _no_room():
            sql = "INSERT OR IGNORE INTO parts VALUES (?, ?, ?, ?, 0)"
            self._db.execute(sql, (message, text, number, origin))

    def of(self, message: str, most: int) -> list[Part]:
        """At most ``most``, in the chat's order."""
        sql = "SELECT number, text, origin, taken FROM parts WHERE message = ? ORDER BY number LIMIT ?"
        with _no_room():
            rows = self._db.execute(sql, (message, most)).fetchall()
        return [Part(number, text, origin, bool(taken)) for number, text, origin, taken in rows]

    def take(self, numbers: Iterable[int] = (), *, before: int = 0) -> None:
        """These were read, and all that came before a number, which never decreases."""
        with _no_room():
            self._db.executemany("UPDATE parts SET taken = 1 WHERE number = ?", [(number,) for number in numbers])
            sql = "UPDATE parts SET taken = 1 WHERE number >= ? AND number < ?"
            self._db.execute(sql, (self._taken_before, before))
        self._taken_before = max(self._taken_before, before)


def _nameless(schema: Iterable[str], cache_kib: int) -> sqlite3.Connection:
    with _no_room():
        db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        db.execute(f"PRAGMA cache_size = -{cache_kib}")
        db.execute("PRAGMA temp_store = FILE")
        db.execute("PRAGMA journal_mode = OFF")  # nothing is ever rolled back
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        for statement in schema:
            db.execute(statement)
    return db


def _under(pairing: str, month: str, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str, bytes, bytes]]:
    return ((pairing, month, nonce, digest) for nonce, digest in rows)


@contextlib.contextmanager
def _no_room() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise Failed(
            t("there is no room for temporary files: {reason}", reason=exc),
            "make room in /var/tmp, or name another directory in SQLITE_TMPDIR",
        ) from exc
