"""What somebody who once held the keyset can do to rows: make others whose MACs are right. The head binds each row, so
none of it is read, and readers without any key find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken, UsageError
from medcrypt_hsm.vault.audit.rowtree import LEAF, LOOKUP, bind_rows, roots_of
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.inspection import verify_file
from medcrypt_hsm.vault.keyset import PATIENT
from medcrypt_hsm.vault.store.rows import RecordRow, SealedRow
from medcrypt_hsm.vault.unlocked import Unlocked
from scripts.standalone import verify_audit
from tests.support.practice import Practice, unlocked
from tests.support.store import Database, by_hand, fold, rows, tamper, whole

MONTH = "2026-11"
NOT_BOUND = "are not those that audit entry"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, token_uri: str) -> Practice:
    """More patients than a leaf holds: EXP-1 and EXP-2 are paired, the others wait for their codes."""
    practice = Practice(tmp_path_factory.mktemp("many") / "practice" / "vault.db", token_uri)
    practice.create().close()
    with practice.open() as vault:
        for number in range(1, LEAF + 4):
            practice.pair(vault, f"EXP-{number}", confirm=number < 3)
        vault.log.anchor()
    fold(practice.path)
    return practice


@pytest.fixture
def forged(many: Practice, tmp_path: Path) -> Practice:
    """A copy, to be altered: the same token accepts it, for its anchor does not move here."""
    return Practice(whole(many.path, tmp_path / "vault.db"), many.uri, many.clock)


@contextmanager
def thief(practice: Practice) -> Iterator[tuple[Unlocked, Database]]:
    """Whoever has the keyset at this moment, and the file without the program."""
    with practice.open() as vault, by_hand(practice.path) as db:
        yield unlocked(vault), db


def put(db: Database, row: RecordRow | SealedRow) -> None:
    table = "records" if isinstance(row, RecordRow) else "sealed"
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?)", row)


def with_key_of(vault: Unlocked, row: RecordRow, other: RecordRow) -> RecordRow:
    """The row, with the other row's key in it and a MAC that is right."""
    mac = vault.keyset._record_mac(row.purpose, row.pairing, row.month, row.sequence, other.wrapped)
    return row._replace(wrapped=other.wrapped, mac=mac)


def patients_rows(vault: Unlocked) -> dict[str, SealedRow]:
    return {vault.keyset.open(row)["id"]: row for row in vault.file.all_sealed(PATIENT)}


def exchange_keys(vault: Unlocked, db: Database) -> None:
    known = patients_rows(vault)
    one, two = (vault.file.record("message", known[name].pairing, MONTH) for name in ("EXP-1", "EXP-2"))
    assert one is not None
    assert two is not None
    put(db, with_key_of(vault, one, two))
    put(db, with_key_of(vault, two, one))


def exchange_names(vault: Unlocked, db: Database) -> None:
    known = patients_rows(vault)
    for row, other in ((known["EXP-1"], known["EXP-2"]), (known["EXP-2"], known["EXP-1"])):
        value = vault.keyset.open(other)
        put(db, vault.keyset.seal(PATIENT, row.pairing, row.sequence, value, lookup=other.lookup))


def revert(vault: Unlocked, db: Database) -> None:
    row = patients_rows(vault)["EXP-1"]
    value = vault.keyset.open(row) | {"state": "pending", "confirmed": False}
    put(db, vault.keyset.seal(PATIENT, row.pairing, row.sequence, value, lookup=row.lookup))


def remove(vault: Unlocked, db: Database) -> None:
    db.execute("DELETE FROM sealed WHERE pairing = ?", (patients_rows(vault)["EXP-1"].pairing,))


def add(vault: Unlocked, db: Database) -> None:
    row = patients_rows(vault)["EXP-1"]
    put(db, vault.keyset.seal(PATIENT, b"rogue-01", row.sequence, vault.keyset.open(row), lookup=row.lookup))


ATTACKS: dict[str, Callable[[Unlocked, Database], None]] = {
    "two patients' keys are exchanged": exchange_keys,
    "two patients' names are exchanged": exchange_names,
    "a row is an older one again": revert,
    "a row is gone": remove,
    "a row is there that nobody wrote": add,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_written_or_shown_by_such_a_row(forged: Practice, attack: str) -> None:
    with thief(forged) as (vault, db):
        ATTACKS[attack](vault, db)
    with forged.open() as opened, pytest.raises(AuditBroken, match=NOT_BOUND):
        opened.encrypt("EXP-1", "for one patient alone")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_reader_without_keys_finds_it(forged: Practice, attack: str) -> None:
    with forged.open() as opened:
        keys = [public_key_der(pem) for pem in opened.log.public_keys().values()]
    with thief(forged) as (vault, db):
        ATTACKS[attack](vault, db)
    with pytest.raises(AuditBroken, match=NOT_BOUND):
        verify_file(forged.path, keys)
    with verify_audit.opened(forged.path) as db, pytest.raises(verify_audit.NotVerified, match="newest head binds"):
        verify_audit.verify(db, [verify_audit.audit_key(key, "it", pem=False) for key in keys], [])


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_reader_with_the_token_finds_it_too(forged: Practice, attack: str) -> None:
    with thief(forged) as (vault, db):
        ATTACKS[attack](vault, db)
    with forged.open() as opened, pytest.raises(AuditBroken):
        opened.log.verify()


# What was not asked for is bound too


def test_a_patient_whose_row_is_gone_is_not_a_patient_whom_nobody_knows(forged: Practice) -> None:
    with thief(forged) as (vault, db):
        remove(vault, db)
    with forged.open() as opened, pytest.raises(AuditBroken, match=NOT_BOUND):
        opened.patients.show("EXP-1")


def test_a_patient_whom_nobody_knows_is_said_to_be_one(forged: Practice) -> None:
    with forged.open() as opened, pytest.raises(UsageError, match="there is no patient 'EXP-99'"):
        opened.patients.show("EXP-99")


def test_a_lookup_that_leads_to_nobody_is_found(forged: Practice) -> None:
    """The rows are as they were, and by one of them nobody finds its patient any more."""

    def hide(vault: Unlocked, db: Database) -> None:
        row = patients_rows(vault)["EXP-2"]
        put(db, vault.keyset.seal(PATIENT, row.pairing, row.sequence, vault.keyset.open(row), lookup=bytes(32)))

    with thief(forged) as (vault, db):
        hide(vault, db)
    with forged.open() as opened, pytest.raises(AuditBroken, match=NOT_BOUND):
        opened.encrypt("EXP-2", "x")


def test_a_change_beside_an_altered_row_does_not_vouch_for_it(forged: Practice) -> None:
    """Whoever writes a row signs for the leaf in which it stands."""
    with thief(forged) as (vault, db):
        for row in vault.file.all_sealed(PATIENT):
            value = vault.keyset.open(row) | {"label": "altered"}
            put(db, vault.keyset.seal(PATIENT, row.pairing, row.sequence, value, lookup=row.lookup))
    before = rows(forged.path, "sealed")
    with forged.open() as opened, pytest.raises(AuditBroken, match=NOT_BOUND):
        opened.patients.add("EXP-50")
    assert rows(forged.path, "sealed") == before


# The table of digests is not trusted, and nothing is lost with it

TABLES: dict[str, tuple[str, ...]] = {
    "emptied": ("DELETE FROM tree",),
    "a digest is another": ("UPDATE tree SET digests = zeroblob(512)",),
    "a digest is too short": ("UPDATE tree SET digests = x'00'",),
    "a node stands below a leaf": (
        *(f"INSERT OR IGNORE INTO tree VALUES ('{name}', '{digit}', zeroblob(512))"
          for name in ("sealed:patient", "record:message:2026-11", LOOKUP) for digit in "0123456789abcdef"),
    ),
    "a node stands where there is none": ("INSERT INTO tree VALUES ('record:seen:', '', zeroblob(512))",),
}  # fmt: skip


@pytest.mark.parametrize("how", TABLES)
def test_a_table_that_was_altered_is_made_anew(forged: Practice, how: str) -> None:
    whole_table = rows(forged.path, "tree")
    assert {name for name, *_ in whole_table} >= {"sealed:patient", LOOKUP}
    tamper(forged.path, *TABLES[how])
    with forged.open() as opened:
        keys = [public_key_der(pem) for pem in opened.log.public_keys().values()]
        for name in ("EXP-1", "EXP-2"):
            (text,) = opened.encrypt(name, "hola")
            assert [message.text for message in opened.decrypt(text)] == ["hola"]
        opened.patients.list()
        opened.log.verify()
    verify_file(forged.path, keys)


def test_it_is_whole_again_after_what_was_read(forged: Practice) -> None:
    whole_table = rows(forged.path, "tree")
    tamper(forged.path, "DELETE FROM tree")
    with forged.open() as opened:
        opened.patients.list()
        opened.encrypt("EXP-1", "x")
    assert set(rows(forged.path, "tree")) <= set(whole_table)
    assert {name for name, *_ in rows(forged.path, "tree")} >= {"sealed:patient", LOOKUP}


# Each change leaves what a reader makes anew


def assert_whole(vault: Unlocked) -> None:
    """The roots on record are those of the rows, and the table is as if it were made anew."""
    assert dict(roots_of(vault.file)) == vault.state.roots
    there = rows(Path(vault.file.location.text), "tree")
    with vault.file.transaction():
        bind_rows(vault.file)
    assert rows(Path(vault.file.location.text), "tree") == there


def test_every_change_of_patients_and_months(tmp_path: Path, token_uri: str) -> None:
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    with practice.create() as vault:
        assert_whole(unlocked(vault))
        for number in range(2 * LEAF):
            practice.pair(vault, f"EXP-{number}", confirm=number % 3 == 0)
            vault.patients.add(f"V1-{number}", protocol="v1", secret="correct horse battery staple")
            assert_whole(unlocked(vault))
        for number in range(0, 2 * LEAF, 3):
            vault.encrypt(f"V1-{number}", "x")
            vault.patients.repair(f"EXP-{number}")
            vault.patients.remove(f"EXP-{number}")
            assert_whole(unlocked(vault))
    practice.clock.set("2026-12-02")
    with practice.open() as vault:
        vault.months.open()
        assert_whole(unlocked(vault))
        assert "record:chain:2026-11" not in unlocked(vault).state.roots
        for number in range(2 * LEAF):
            vault.patients.remove(f"V1-{number}")
            assert_whole(unlocked(vault))
        vault.log.verify()


def test_what_another_process_wrote_meanwhile_is_read(tmp_path: Path, token_uri: str) -> None:
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    practice.create().close()
    with practice.open() as vault:
        practice.elsewhere("vault.patients.add('EXP-70')")
        assert [pairing.id for pairing in vault.patients.show("EXP-70")] == ["EXP-70"]
        practice.elsewhere("vault.patients.remove('EXP-70')")
        (found,) = unlocked(vault).rows.sealed_of(unlocked(vault).keyset.lookup("EXP-70"))  # outside any change
        assert unlocked(vault).keyset.open(found)["state"] == "removed"
        assert_whole(unlocked(vault))
