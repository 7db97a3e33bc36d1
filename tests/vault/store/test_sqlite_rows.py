"""What SQLite says of a file that is not as it should be, in the words of the program."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.errors import VaultDamaged
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.sqlite_rows import SCHEMA, TREE
from medcrypt_hsm.vault.store.store import Store, open_store
from tests.support.eventful_vault import COLUMNS
from tests.support.store import select, statements

# table: every way in which its rows are read, and of its column ``sequence``
READS: dict[str, tuple[Callable[[Store], object], ...]] = {
    "trust": (lambda store: store.trust_rows(),),
    "entries": (
        lambda store: store.newest(),
        lambda store: list(store.entries(-2)),
    ),
    "records": (
        lambda store: store.records(),
        lambda store: list(store.written()),
    ),
    "sealed": (
        lambda store: store.all_sealed(),
        lambda store: list(store.written()),
    ),
    "seen": (lambda store: list(store.all_seen()),),
}


WRONG = {"TEXT": ("7", "7.5", "x'00'", "CAST(x'ff' AS TEXT)"), "BLOB": ("7", "7.5", "NULL", "'text'")}


WRONG |= {"INTEGER": ("'text'", "7.5", "x'00'", "-1")}


def table_of(name: str) -> str:
    (sql,) = [sql for sql in SCHEMA if sql.startswith(f"CREATE TABLE {name} ")]
    return sql


def kind_of(table: str, column: str) -> str:
    return table_of(table).partition(f"{column} ")[2].split()[0]


def lax(path: Path, table: str, column: str, value: str) -> None:
    """STRICT is enforced where a row is written: so it is written without, and the schema's text put right after."""
    strict = table_of(table)
    loose = strict.replace(" STRICT, WITHOUT ROWID", "").replace(" STRICT", "")
    for kind in ("TEXT", "BLOB", "INTEGER"):
        loose = loose.replace(f" {kind} NOT NULL", "")
    loose += " WITHOUT ROWID" if "WITHOUT ROWID" in strict else ""
    rows = select(path, f"SELECT * FROM {table}")
    marks = ", ".join("?" * len(COLUMNS[table]))
    with statements(path) as run:
        run("PRAGMA journal_mode = DELETE")
        run("BEGIN")
        run(f"DROP TABLE {table}")
        run(loose)
        run(f"INSERT INTO {table} VALUES ({marks})", rows[0])
        run(f"UPDATE {table} SET {column} = {value}")
        for index in (sql for sql in (*SCHEMA, *TREE) if sql.startswith("CREATE INDEX") and f" ON {table} " in sql):
            run(index)
        run("PRAGMA writable_schema = ON")
        run("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (strict, table))
        run("COMMIT")


@pytest.mark.parametrize(("table", "column", "value"), [
    (table, column, value) for table, columns in COLUMNS.items() for column in columns
    for value in WRONG[kind_of(table, column)]
    if not (table == "entries" and column == "sequence" and value != "-1")  # a rowid is an integer anyway
    if value != "NULL" or column not in ("pairing", "nonce")  # a key WITHOUT ROWID is never NULL
    or (table, column) == ("sealed", "nonce")
])  # fmt: skip
def test_a_row_of_another_type_is_damage(file: Path, location: Location, table: str, column: str, value: str) -> None:
    lax(file, table, column, value)
    with closing(open_store(location)) as store:
        for read in READS[table]:
            with pytest.raises(VaultDamaged):
                read(store)


def test_a_page_that_is_rubbish_is_damage(file: Path, location: Location) -> None:
    with statements(file) as run:
        run("PRAGMA journal_mode = DELETE")
    size = file.stat().st_size
    with file.open("r+b") as pages:
        pages.seek(4096)
        pages.write(os.urandom(size - 4096))
    with closing(open_store(location)) as store:
        for reads in READS.values():
            with pytest.raises(VaultDamaged):
                reads[0](store)
        with pytest.raises(VaultDamaged):
            store.check_integrity()
