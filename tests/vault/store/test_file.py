"""What is not, or not wholly, a vault file: refused with code 7, by every way in, and not one byte of it changed."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import MedcryptError, VaultBusy, VaultDamaged, VaultError, VaultForeign, VaultMissing
from medcrypt_hsm.vault.inspection import status_of_file, verify_file
from medcrypt_hsm.vault.store.sqlite_rows import SCHEMA
from tests.support.eventful_vault import COLUMNS
from tests.support.practice import Practice, pin
from tests.support.store import Database, open_at, tamper, write_lock
from tests.support.vault_builder import SoftToken, VaultBuilder


def never(info: object) -> str:
    raise AssertionError("a PIN was asked for before the file had been looked at")


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


WAYS_IN: dict[str, Callable[[Path], object]] = {
    "open": lambda path: Vault.open(path, pin=never),
    "status": status_of_file,
    "verify": lambda path: verify_file(path, []),
    "create": lambda path: Vault.create(path, token="doctor", uri="pkcs11:token=x", pin=never),
    "restore": lambda path: Vault.restore(path.with_name("other"), path, pin=never, agree=never),
}


def refused(path: Path, error: type[MedcryptError] = VaultError) -> None:
    before, beside = digest(path), sorted(path.parent.iterdir())
    for name, way_in in WAYS_IN.items():
        with pytest.raises(error) as caught:
            way_in(path)
        assert caught.value.exit_code == 7, name
    assert digest(path) == before
    assert sorted(path.parent.iterdir()) == beside


def refused_by_verify(path: Path, error: type[MedcryptError] = VaultError) -> None:
    """What is seen only by somebody who reads the rows."""
    before = digest(path)
    with pytest.raises(error) as caught:
        verify_file(path, [])
    assert caught.value.exit_code == 7
    assert digest(path) == before


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A file that is a vault as far as anybody can see without its token."""
    builder, token = VaultBuilder(), SoftToken("doctor")
    builder.open_month("2026-11")
    builder.introduce(token, token)
    builder.records.append(("log", b"", "00000001", builder.sealed(token).sequence))
    return builder.write(tmp_path / "vault.db")


def test_the_builders_schema_is_the_programs(built: Path) -> None:
    assert status_of_file(built).entries == 2


@pytest.mark.parametrize("statement", [
    "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM trust; END",
    "CREATE TRIGGER t BEFORE UPDATE ON sealed BEGIN SELECT RAISE(IGNORE); END",
    "CREATE VIEW v AS SELECT * FROM trust",
    "CREATE TABLE more (x)",
    "CREATE INDEX more ON trust (value)",
    "CREATE UNIQUE INDEX more ON seen (digest)",
    "CREATE VIRTUAL TABLE more USING fts5(x)",
    "ANALYZE",
    "DROP INDEX sealed_lookup",
    "DROP TABLE seen",
    "ALTER TABLE seen RENAME COLUMN digest TO d",
    "ALTER TABLE entries ADD COLUMN more BLOB",
])  # fmt: skip
def test_another_schema(built: Path, statement: str) -> None:
    refused(tamper(built, statement), VaultDamaged)


@pytest.mark.parametrize("table", sorted(COLUMNS))
def test_a_view_in_a_tables_place_is_never_asked(built: Path, table: str) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
    refused(tamper(built, f"DROP TABLE {table}", f"CREATE VIEW {table} AS {endless}"), VaultDamaged)


def test_a_table_of_the_right_text_behind_another_name(built: Path) -> None:
    refused(
        tamper(
            built,
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_schema SET sql = sql || ' ' WHERE name = 'trust'",
        ),
        VaultDamaged,
    )


@pytest.mark.parametrize("pragma", ["user_version = 3", "user_version = 0", "application_id = 1", "application_id = 0"])
def test_of_another_version_or_program(built: Path, pragma: str) -> None:
    refused(tamper(built, f"PRAGMA {pragma}"), VaultForeign)


def test_a_newer_version_says_what_to_do(built: Path) -> None:
    tamper(built, "PRAGMA user_version = 3")
    with pytest.raises(VaultForeign) as caught:
        status_of_file(built)
    assert "newer medcrypt" in caught.value.hint


@pytest.mark.parametrize("content", [
    b"", b"x", b"SQLite format 3\x00", b"PK\x03\x04" + bytes(5000), bytes(4096), b"SQLite format 3\x00" + bytes(4080),
    b"[MEDCRYPT:v1:RVhQLTAwNDE3:1OMA8rMwMzIS/ivx::OIkSHxfWszOufH/PSgIs6Q==]",
])  # fmt: skip
def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vault.db"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.9])
def test_cut_short(built: Path, kept: float) -> None:
    whole = built.read_bytes()
    built.write_bytes(whole[: int(len(whole) * kept)])
    refused_by_verify(built)


def lax(built: Path, table: str, column: str, value: str) -> None:
    """STRICT is enforced where a row is written: so it is written without, and the schema's text put right after."""
    (strict,) = [sql for sql in SCHEMA if sql.startswith(f"CREATE TABLE {table} ")]
    loose = strict.replace(" STRICT,", "").replace(" STRICT", "")
    for kind in (" TEXT NOT NULL", " BLOB NOT NULL", " INTEGER NOT NULL"):
        loose = loose.replace(kind, "")

    def change(db: Database) -> None:
        kept = db.execute(f"SELECT * FROM {table}").fetchall()
        db.execute(f"DROP TABLE {table}")
        db.execute(loose)
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(kept[0]))})", kept)
        one = "sequence = 2" if table == "entries" else "kind = 'token'"
        db.execute(f"UPDATE {table} SET {column} = {value} WHERE {one}")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (strict, table))

    tamper(built, change=change)


WRONG_FOR_TEXT, WRONG_FOR_BYTES = ("7", "7.5", "x'00'", "CAST(x'ff' AS TEXT)"), ("7", "7.5", "NULL", "'text'")


@pytest.mark.parametrize(("table", "column", "value"), [
    (table, column, value)
    for table in ("trust", "entries") for column in COLUMNS[table] if column != "sequence"
    for value in (WRONG_FOR_TEXT if column in ("kind", "name") else WRONG_FOR_BYTES)
])  # fmt: skip
def test_a_value_of_a_type_that_strict_would_not_have_let_in(built: Path, table: str, column: str, value: str) -> None:
    lax(built, table, column, value)
    refused_by_verify(built, VaultDamaged)


def test_a_negative_number(built: Path) -> None:
    tamper(built, "UPDATE entries SET sequence = -1 WHERE sequence = 2")
    refused_by_verify(built)


class TestNotAFile:
    def test_nothing_there(self, tmp_path: Path) -> None:
        for name in ("open", "status", "verify", "restore"):
            with pytest.raises(VaultMissing):
                WAYS_IN[name](tmp_path / "none.db")
        assert list(tmp_path.iterdir()) == []

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(VaultMissing):
            status_of_file(tmp_path)

    def test_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(VaultMissing):
            status_of_file(tmp_path / "pipe")

    def test_a_link(self, built: Path) -> None:
        """A note or a restore would go beside the link, SQLite's log beside the file: one vault would become two."""
        link = built.with_name("link.db")
        link.symlink_to(built)
        refused(link)

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        link = tmp_path / "link.db"
        link.symlink_to(tmp_path / "none")
        with pytest.raises(VaultError):
            status_of_file(link)
        assert not (tmp_path / "none").exists()

    def test_a_link_is_not_restored_over(self, practice: Practice) -> None:
        link = practice.path.with_name("link.db")
        link.symlink_to(practice.path)
        with pytest.raises(VaultError, match="symbolic link"):
            Vault.restore(link, practice.path, pin=pin, agree=never, clock=practice.clock)
        assert link.is_symlink()


class TestBesideTheFile:
    """What SQLite would read together with it."""

    def test_a_log_of_another_database(self, practice: Practice, built: Path) -> None:
        with sqlite3.connect(built) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("DELETE FROM trust")
            db.commit()
            practice.path.with_name("vault.db-wal").write_bytes(built.with_name("vault.db-wal").read_bytes())
        db.close()
        with pytest.raises(VaultError):
            practice.open()

    @pytest.mark.parametrize("name", ["vault.db-wal", "vault.db-shm"])
    def test_rubbish_is_ignored(self, practice: Practice, name: str) -> None:
        practice.path.with_name(name).write_bytes(os.urandom(5000))
        with practice.open() as vault:
            vault.log.verify()


class TestWriters:
    def test_busy_says_so(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            vault._unlocked.file._db.execute("PRAGMA busy_timeout = 10")  # type: ignore[attr-defined]
            with write_lock(practice.path), pytest.raises(VaultBusy):
                vault.encrypt("EXP-1", "x")
            vault.encrypt("EXP-1", "x")
            vault.log.verify()

    def test_readers_are_not_disturbed(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            with write_lock(practice.path):
                assert practice.status().pairings == 1
                vault.log.verify()

    def test_restored_meanwhile(self, practice: Practice) -> None:
        """A session of before must not write into the file that took its place, nor into the one that is gone."""
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            copy = practice.copy("copy.db")
            os.replace(copy, practice.path)
            with pytest.raises(VaultBusy, match="restored meanwhile"):
                vault.encrypt("EXP-1", "x")

    def test_modes(self, practice: Practice) -> None:
        assert practice.path.stat().st_mode & 0o777 == 0o600
        assert practice.path.parent.stat().st_mode & 0o777 == 0o700
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            for path in practice.path.parent.iterdir():
                assert path.stat().st_mode & 0o777 == 0o600

    def test_deleted_rows_leave_nothing_in_the_file(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            chain = bytes(vault._unlocked.file.records("chain")[0].wrapped)
            practice.clock.set("2026-12-01")
            vault.months.open()
        assert not list(practice.path.parent.glob("vault.db-*"))
        assert chain not in practice.path.read_bytes()


def test_a_read_only_file_is_opened_and_not_written(practice: Practice) -> None:
    file = open_at(practice.path)
    before = digest(practice.path)
    assert file.trust_rows()
    file.close()
    assert digest(practice.path) == before


def test_rows_of_seen_texts_go_in_together_or_not_at_all(built: Path) -> None:
    file = open_at(built)
    first, second, third = ((bytes([number]) * 16, bytes(16)) for number in (1, 2, 3))
    with file.transaction():
        assert file.put_new_seen(b"one", "2026-11", [])
        assert file.put_new_seen(b"one", "2026-11", [first])
        assert not file.put_new_seen(b"one", "2026-11", [second, third, first])
        assert not file.put_new_seen(b"one", "2026-11", [second, second])
        assert file.put_new_seen(b"two", "2026-11", [first, second])
    assert list(file.all_seen()) == [
        (b"one", "2026-11", *first),
        *((b"two", "2026-11", *row) for row in (first, second)),
    ]
    file.close()
