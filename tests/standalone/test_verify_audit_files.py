"""scripts/standalone/verify_audit.py on checkpoints that do not belong, and on files that are no vault or hostile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.audited_practice import Practice, make_practice, run
from tests.support.store import Database, tamper
from tests.support.vault_builder import Row, SoftToken, VaultBuilder


@pytest.fixture
def practice(tmp_path: Path) -> Practice:
    return make_practice(tmp_path)


class TestCheckpoints:
    def test_of_another_vault(self, practice: Practice) -> None:
        other = VaultBuilder()
        other.introduce(practice.praxis, practice.praxis)
        practice.refused("is of another vault", entry=1, notes=(other.checkpoint(practice.praxis),))

    def fork(self, practice: Practice) -> Row:
        """The same vault, its log rewritten by a holder of the token from entry 4 on."""
        row = practice.built.rows[3]
        del practice.built.rows[3:]
        for _ in range(3):
            practice.built.sealed(practice.praxis)
        return row

    def test_of_the_same_vault_before_its_log_was_rewritten(self, practice: Practice) -> None:
        row = self.fork(practice)
        practice.verified()
        practice.refused("another hash", entry=4, notes=(practice.built.checkpoint(practice.praxis, row),))

    def test_signed_by_an_unknown_key(self, practice: Practice) -> None:
        practice.refused("not that of a token", entry=6, notes=(practice.built.checkpoint(SoftToken("x")),))

    def test_signed_text_changed(self, practice: Practice) -> None:
        note = practice.built.checkpoint(practice.praxis)
        time = practice.built.rows[-1].time.encode()
        practice.refused("not that of a token", entry=6, notes=(note.replace(time, b"2020-01-01T00:00:00Z"),))

    def test_other_trust_digest(self, practice: Practice) -> None:
        note = practice.built.checkpoint(practice.praxis, trust="A" * 43 + "=")
        practice.refused("another hash or trust digest", entry=6, notes=(note,))

    def test_other_time_than_a_clear_entrys(self, practice: Practice) -> None:
        note = practice.built.checkpoint(practice.praxis, practice.built.rows[2], time="2020-01-01T00:00:00Z")
        practice.refused("another time", entry=3, notes=(note,))

    @pytest.mark.parametrize("change", [
        {"sequence": "06"}, {"sequence": 0}, {"sequence": "9" * 5000}, {"hash": "!"}, {"hash": "A" * 42 + "F="},
        {"trust": "AAAA"}, {"time": "now"}, {"time": "2026-11-06T09:00:00Z\nmore"}, {"origin": "example.com/log"},
    ])  # fmt: skip
    def test_not_of_the_form(self, practice: Practice, change: dict[str, object]) -> None:
        practice.refused("", notes=(practice.built.checkpoint(practice.praxis, None, **change),))

    def test_trailing_bytes(self, practice: Practice) -> None:
        note = practice.built.checkpoint(practice.praxis)
        practice.refused("not a medcrypt note with one signature", notes=(note + b"\n",))
        practice.refused("not a medcrypt note with one signature", notes=(b"\xff" + note,))
        practice.refused("too large", notes=(note + bytes(100_000),))


class TestHostileFiles:
    @pytest.mark.parametrize("statement", [
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM trust; END",
        "CREATE VIEW v AS SELECT * FROM trust", "CREATE TABLE more (x)", "CREATE INDEX more ON trust (value)",
        "CREATE VIRTUAL TABLE more USING fts5(x)", "ANALYZE", "DROP INDEX sealed_lookup", "DROP TABLE seen",
        "ALTER TABLE seen RENAME COLUMN digest TO d", "ALTER TABLE entries ADD COLUMN more BLOB",
        "PRAGMA user_version = 2", "PRAGMA application_id = 1",
    ])  # fmt: skip
    def test_schema(self, practice: Practice, statement: str) -> None:
        practice.refused("schema", file=tamper(practice.file(), statement))

    @pytest.mark.parametrize("table", ["trust", "entries"])
    def test_a_view_in_place_of_a_table(self, practice: Practice, table: str) -> None:
        """It must be refused before it is asked anything: this one never ends."""
        endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT n FROM c"
        file = tamper(practice.file(), f"DROP TABLE {table}", f"CREATE VIEW {table} AS {endless}")
        practice.refused("the schema's 'view'", file=file)

    @pytest.mark.parametrize(("values", "why"), [
        ("9223372036854775807, x'01', x'', x'', x'', x''", "entry 7 is missing: the next in the file is 92233"),
        ("7, x'', x'', x'', x'', x''", "not a blob of the right length"),
        ("-1, x'', x'', x'', x'', x''", "entry 1 is missing: the next in the file is -1"),
        ("7, zeroblob(70000000), x'', x'', x'', x''", "not readable as a vault"),
    ])  # fmt: skip
    def test_rows(self, practice: Practice, values: str, why: str) -> None:
        practice.refused(why, file=tamper(practice.file(), f"INSERT INTO entries VALUES ({values})"))

    @pytest.mark.parametrize("column", ["sequence", "stored", "hash", "trust", "signer", "signature"])
    @pytest.mark.parametrize("value", ["'text'", "7.5", "x''", "NULL", "CAST(x'FF' AS TEXT)"])
    def test_types_that_strict_would_not_have_let_in(self, practice: Practice, column: str, value: str) -> None:
        """The rows go in under a lax schema; then the schema's text is put right by hand."""
        path = practice.file()

        def lax(db: Database) -> None:
            (strict,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'entries'").fetchone()
            columns = "sequence, stored, hash, trust, signer, signature"
            db.execute("CREATE TABLE t (sequence INTEGER PRIMARY KEY, stored, hash, trust, signer, signature)")
            db.execute("INSERT INTO t SELECT * FROM entries")
            names = columns.replace(column, value)
            if column == "sequence":
                names = columns.replace("stored", value)
            db.execute("DELETE FROM t WHERE sequence = 6")
            db.execute(f"INSERT INTO t SELECT {names} FROM entries WHERE sequence = 6")
            db.execute("DROP TABLE entries")
            db.execute("ALTER TABLE t RENAME TO entries")
            db.execute("PRAGMA writable_schema = ON")
            db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'entries'", (strict,))

        practice.refused("", file=tamper(path, change=lax))

    def test_damaged(self, practice: Practice) -> None:
        """A table taken out of the schema by hand leaves its page in the file."""
        remove = ("PRAGMA writable_schema = ON", "DELETE FROM sqlite_schema WHERE name = 'stray'")
        practice.refused("finds the file damaged", file=tamper(practice.file(), "CREATE TABLE stray (x)", *remove))

    @pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00", b"PK\x03\x04" + bytes(5000), bytes(4096)])
    def test_not_a_database(self, practice: Practice, content: bytes) -> None:
        file = practice.directory / "other"
        file.write_bytes(content)
        practice.refused("", file=file)

    def test_not_a_file(self, practice: Practice) -> None:
        practice.refused("cannot read", file=practice.directory / "none")
        practice.refused("", file=practice.directory)
        assert run("a\x00b", "--public-key", "a\x00b")[0] == 5

    def test_utf16(self, practice: Practice) -> None:
        """SQLite would sort the trust rows otherwise; the spec's text is UTF-8."""
        file = practice.directory / "utf16"
        tamper(file, "PRAGMA encoding = 'UTF-16'", "CREATE TABLE x (y)", "PRAGMA user_version = 1",
               "PRAGMA application_id = 0x4D454443")  # fmt: skip
        practice.refused("encoding is not 'UTF-8'", file=file)

    def test_any_byte_changed_is_refused_or_changes_nothing_that_was_verified(self, practice: Practice) -> None:
        """No traceback anywhere, and never another answer: a byte in unused space may change, what is said may not."""
        file = practice.file()
        whole, said = file.read_bytes(), practice.verified(file=file)
        key = str(practice.directory / f"{practice.praxis.id.hex()}.pem")
        for at in range(0, len(whole), 101):
            changed = bytearray(whole)
            changed[at] ^= 0xFF
            file.write_bytes(changed)
            code, now = run(str(file), "--public-key", key)
            assert code == 5 or now == said, at

    def test_cut_anywhere(self, practice: Practice) -> None:
        """SQLite reads what lacks of the last page as zeros; only if they were zeros is the file the same."""
        file = practice.file()
        whole, said = file.read_bytes(), practice.verified(file=file)
        for size in range(0, len(whole), 1009):
            file.write_bytes(whole[:size])
            code, now = practice.run(file=file)
            assert code == 5 or (now == said and not whole[size:].strip(b"\x00")), size
