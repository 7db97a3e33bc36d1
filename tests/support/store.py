"""A vault's store, asked by a test; and its SQLite file, treated by hand. Plain code without pytest.

What a store can tell, a test asks of ``open_at``. The rest is for tests whose subject is the file: what lies in it, and
what somebody does to it who has the file and sqlite3. Other tests do not import sqlite3 (tests/vault/store).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import Store, open_store
from medcrypt_hsm.vault.store.surroundings import Surroundings, surroundings_of

TABLES = ("trust", "entries", "records", "sealed", "seen")
Database = sqlite3.Connection
RowRefused = sqlite3.IntegrityError
"""By SQLite: a key that is there already, or a value of another type than its column's."""


def open_at(path: Path, *, in_use: bool = True) -> Store:
    """As the program opens it. The caller closes it."""
    return open_store(Location.parse(path), in_use=in_use)


def beside(path: Path) -> Surroundings:
    """What the program keeps beside the vault at ``path``."""
    return surroundings_of(Location.parse(path))


def rows(path: Path, table: str) -> list[tuple[Any, ...]]:
    """As they lie in the file, in a fixed order."""
    return select(path, f"SELECT * FROM {table} ORDER BY 1, 2, 3")


def select(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def dump(path: Path) -> str:
    """The whole file as SQL: text as it is, bytes in hex."""
    with closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump())


@contextmanager
def by_hand(path: Path) -> Iterator[Database]:
    """One transaction. It need not outlive this computer."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA synchronous = OFF")
        yield db


def tamper(path: Path, *statements: str, change: Callable[[Database], object] | None = None) -> Path:
    """Change a file as somebody with the file and sqlite3 would."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
        if change:
            change(db)
    return path


@contextmanager
def statements(path: Path) -> Iterator[Callable[..., object]]:
    """Each is run at once, and nobody closes the file between them: what they have begun is still going on."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db.execute


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Held, as by another command in the middle of its commit."""
    with statements(path) as run:
        run("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            run("ROLLBACK")


def fold(path: Path) -> None:
    """The write-ahead log into the file, so that a copy of it is the whole vault."""
    with statements(path) as run:
        run("PRAGMA journal_mode = DELETE")


def whole(source: Path, target: Path) -> Path:
    """A copy of a vault file without a write-ahead log."""
    shutil.copy(source, target)
    with statements(target) as run:
        run("PRAGMA wal_checkpoint(TRUNCATE)")
    return target
