"""A vault in a SQLite file keeps the contract; and what only a file can show.

What lies in a file that somebody made or changed: tests/vault/store/test_file.py, and the attacks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.errors import UsageError, VaultBusy, VaultDamaged, VaultError
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.sqlite import SCHEMA
from medcrypt_hsm.vault.store.store import Store, create_store, open_draft, open_store
from tests.support.eventful_vault import COLUMNS
from tests.support.store import select, statements, tamper
from tests.vault.store.store_contract import FIRST, ONE, StoreContract, content, entry, record, sealed, seen


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location.parse(tmp_path / "practice" / "vault.db")


class TestSqlite(StoreContract): ...


@pytest.fixture
def file(location: Location) -> Path:
    """With one row in each table."""
    with closing(create_store(location, FIRST)) as store, store.transaction():
        store.append(entry(1))
        store.put_records([record("chain", ONE, "2026-11")])
        store.put_sealed(sealed("patient", ONE, lookup=b"L"))
        store.put_seen(ONE, "2026-11", seen(1))
    return Path(location.text)


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
        if table == "sealed":
            run("CREATE INDEX sealed_lookup ON sealed (lookup)")
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


def test_a_trigger_that_comes_while_it_is_open_writes_nothing_along(file: Path, location: Location) -> None:
    with closing(open_store(location)) as store:
        before = content(store)
        tamper(file, "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM trust; END")
        with pytest.raises(VaultDamaged, match="foreign schema"), store.transaction():
            raise AssertionError("it was let in")
        assert select(file, "SELECT * FROM trust") == before[0]


def test_a_file_that_took_its_place_is_not_written_to(file: Path, location: Location, tmp_path: Path) -> None:
    with closing(open_store(location)) as store:
        store.copy_to(Location.parse(tmp_path / "copy"))
        (tmp_path / "copy").replace(file)
        with pytest.raises(VaultBusy, match="restored meanwhile"), store.transaction():
            raise AssertionError("it was let in")


def test_opening_to_read_leaves_the_file_as_it_is(file: Path, location: Location) -> None:
    before = file.read_bytes()
    with closing(open_store(location)) as store:
        content(store)
    assert file.read_bytes() == before


def test_nothing_lies_beside_it_that_was_not_asked_for(file: Path, location: Location) -> None:
    assert [path.name for path in file.parent.iterdir()] == ["vault.db"]
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


class TestPlaces:
    """That no draft is made for."""

    @pytest.fixture
    def backup(self, file: Path) -> Location:
        return Location.parse(file.rename(file.with_name("backup.db")))

    def test_a_link(self, backup: Location, location: Location) -> None:
        Path(location.text).symlink_to("elsewhere")
        with closing(open_store(backup)) as source, pytest.raises(VaultError, match="symbolic link"):
            open_draft(location, source)

    def test_a_directory(self, backup: Location, location: Location) -> None:
        Path(location.text).mkdir()
        with closing(open_store(backup)) as source, pytest.raises(UsageError, match="is a directory"):
            open_draft(location, source)

    @pytest.mark.parametrize("content_there", [b"", b"not a database", bytes(8192)])
    def test_what_cannot_be_read_is_replaced(self, backup: Location, location: Location, content_there: bytes) -> None:
        Path(location.text).write_bytes(content_there)
        Path(location.text + "-wal").write_bytes(b"a log of the old file")
        with closing(open_store(backup)) as source:
            open_draft(location, source).take_place(lambda newest: None)
            with closing(open_store(location)) as restored:
                assert content(restored) == content(source)
