"""What SQLite would do with a file that is not what it seems, and with what lies beside it."""

from __future__ import annotations

import sqlite3

from medcrypt_hsm.errors import AuditBroken, VaultDamaged, VaultError, VaultForeign
from medcrypt_hsm.vault.store.sqlite_rows import SCHEMA
from tests.adversary.attacks.attack import FILE, Act, Attack, trusted
from tests.adversary.attacks.hand import Hand


def schema(*statements: str) -> Act:
    return lambda hand: hand.sql(*statements)


def rewritten(table: str, old: str, new: str) -> Act:
    """A table's own text changed, its rows left as they are."""
    (sql,) = [text for text in SCHEMA if text.startswith(f"CREATE TABLE {table} ")]
    assert old in sql
    return lambda hand: hand.sql(
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = '{}' WHERE name = '{}'".format(sql.replace(old, new).replace("'", "''"), table),
    )


def damaged(name: str, do: Act, words: str = "foreign schema", *, everywhere: bool = False) -> Attack:
    return Attack(name, FILE, do, VaultDamaged, words, everywhere=everywhere)


def beside(hand: Hand, suffix: str) -> None:
    """A link where SQLite keeps its own."""
    precious = hand.path.with_name("precious")
    hand.path.with_name(hand.path.name + suffix).symlink_to(precious)


def journal(hand: Hand, named: str = "precious") -> None:
    """A hot journal that restores nothing and names a super-journal, which SQLite removes when it has rolled back."""
    name, pages = str(hand.path.with_name(named)).encode(), hand.path.stat().st_size // 4096
    magic = bytes.fromhex("d9d505f920a163d7")
    numbers = (0, 1, pages, 512, 4096)
    head = (magic + b"".join(number.to_bytes(4, "big") for number in numbers)).ljust(512, b"\0")
    tail = (0x40000000 // 4096 + 1).to_bytes(4, "big") + name
    tail += len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + magic
    hand.path.with_name(hand.path.name + "-journal").write_bytes(head + tail)


def log_beside(hand: Hand) -> None:
    """A write-ahead log that forgets the holds: as good as a file without them, and no better."""
    with sqlite3.connect(hand.path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("DELETE FROM trust WHERE kind = 'hold'")
        db.commit()
        log = hand.path.with_name(hand.path.name + "-wal")
        file, frames = hand.path.read_bytes(), log.read_bytes()
    db.close()
    hand.path.write_bytes(file)
    log.write_bytes(frames)


def linked(hand: Hand) -> None:
    real = hand.path.with_name("elsewhere.db")
    hand.path.rename(real)
    hand.path.symlink_to(real)


DATABASE = (
    damaged("a trigger", schema("CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM trust; END"),
            everywhere=True),
    damaged("a trigger that keeps what is deleted",
            schema("CREATE TRIGGER t BEFORE DELETE ON records BEGIN SELECT RAISE(IGNORE); END")),
    damaged("a view", schema("CREATE VIEW v AS SELECT * FROM trust")),
    damaged("a view in a table's place",
            schema("ALTER TABLE trust RENAME TO t", "CREATE VIEW trust AS SELECT * FROM t")),
    damaged("a table more", schema("CREATE TABLE more (x)")),
    damaged("sqlite_sequence", schema("CREATE TABLE more (x INTEGER PRIMARY KEY AUTOINCREMENT)", "DROP TABLE more")),
    damaged("statistics", schema("ANALYZE")),
    damaged("an index more", schema("CREATE INDEX more ON trust (value)")),
    damaged("an index of an expression", schema("CREATE INDEX more ON trust (substr(value, 1, 9))")),
    damaged("another collation", rewritten("trust", "name TEXT NOT NULL", "name TEXT COLLATE NOCASE NOT NULL")),
    damaged("a generated column",
            schema("ALTER TABLE entries ADD COLUMN more BLOB GENERATED ALWAYS AS (stored) VIRTUAL")),
    damaged("a check that is not ours", rewritten("seen", "digest BLOB NOT NULL", "digest BLOB NOT NULL CHECK (0)")),
    damaged("not strict any more", rewritten("entries", " STRICT", "")),
    Attack("a megabyte where a digest is", FILE,
           schema("UPDATE entries SET trust = zeroblob(1000000) WHERE sequence = (SELECT max(sequence) FROM entries)"),
           AuditBroken, "was altered"),
    damaged("a value larger than any of ours",
            schema(f"UPDATE trust SET value = zeroblob({(1 << 26) + 1}) WHERE kind = 'policy'"), "is damaged"),
    Attack("the largest sequence there is", FILE, schema(
        "UPDATE entries SET sequence = 9223372036854775807 WHERE sequence = (SELECT max(sequence) FROM entries)"),
        AuditBroken, "is missing"),
    Attack("another program's file", FILE, schema("PRAGMA application_id = 7"), VaultForeign, "not a MedCrypt vault"),
    Attack("a schema of another version", FILE, schema("PRAGMA user_version = 3"), VaultForeign, "has schema 3"),
    Attack("a link in the file's place", FILE, linked, VaultError, "symbolic link"),
    Attack("a link where the write-ahead log goes", FILE, lambda hand: beside(hand, "-wal"), VaultError,
           "-wal is not a file of its own", everywhere=True),
    Attack("a link where the log's index goes", FILE, lambda hand: beside(hand, "-shm"), VaultError,
           "-shm is not a file of its own"),
    Attack("a link where the journal goes", FILE, lambda hand: beside(hand, "-journal"), VaultError,
           "-journal is not a file of its own"),
    Attack("a journal that names another file, to have it removed", FILE, journal, VaultError, "names another file",
           everywhere=True),
    trusted("a write-ahead log beside it that takes a hold away", log_beside),
)  # fmt: skip
