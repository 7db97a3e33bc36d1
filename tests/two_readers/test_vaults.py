"""Real vaults after each kind of re-keying: package and script read them with every token's public key, and agree.

The package reads each with the token too; the certificates are read by the script alone.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.errors import AuditBroken, VaultError
from medcrypt_hsm.lifecycle.enroll import PROFILES, TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.lifecycle.settle import begin
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.audit.actions import INTENDED, SHRED, VAULT_REKEY
from medcrypt_hsm.vault.inspection import status_of_file, verify_file
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import by_hand, fold, rows
from tests.support.two_readers import audit_keys, package_accepts, script_says

EVERYBODY, AWAY = OtherTokens(pin), OtherTokens(pin, without=("spare",))
OCTOBER = Month.parse("2026-10")


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    return {name: softhsm.make_token() for name in ("doctor", "spare", "third")}


@pytest.fixture(params=PROFILES)
def spare(request: pytest.FixtureRequest) -> str:
    """The spare token's profile."""
    return str(request.param)


@pytest.fixture
def two(tmp_path: Path, uris: dict[str, str], spare: str) -> Practice:
    """Two tokens, two months and two patients; each token signed something."""
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    made.clock.set("2026-10-20")
    with made.create() as vault:
        for patient in ("EXP-1", "EXP-2"):
            made.pair(vault, patient)
            vault.decrypt("\n".join(vault.encrypt(patient, "octubre")))
    made.add("spare", uris["spare"], options=TokenOptions(spare))
    made.clock.set("2026-11-20")
    with made.open(token="spare") as vault:
        vault.decrypt("\n".join(vault.encrypt("EXP-1", "noviembre")))
    return made


def both_accept(practice: Practice) -> dict[str, Any]:
    """What the script found, given every key and each certificate that lies beside the vault."""
    keys = audit_keys(practice)
    for key in keys:  # one alone may be at neither end of the log: then neither accepts it
        assert package_accepts(practice.path, key) == script_says(practice.path, key)[0]
    assert package_accepts(practice.path, *keys)
    notes = sorted(practice.path.parent.glob("*-certificate-*.md"))
    accepted, found = script_says(
        practice.path, *keys, more=tuple(word for note in notes for word in ("--certificate", str(note)))
    )
    assert accepted, found
    assert len(found["tokens"]) == len(keys)
    assert [note["json"] for note in found["certificates"]] == [True] * len(notes)
    return dict(found)


def retired(found: dict[str, Any]) -> list[str]:
    return [token["name"] for token in found["tokens"] if token["retired"]]


def test_shred_with_both_tokens(two: Practice) -> None:
    with two.open(token="doctor") as vault:
        vault.months.shred([OCTOBER], EVERYBODY)
        vault.log.verify()
    found = both_accept(two)
    assert ([month["month"] for month in found["shredded"]], found["generation"]) == (["2026-10"], 2)
    assert (found["not_destroyed"], found["unfinished"]) == ([], None)
    assert [note["title"] for note in found["certificates"]] == ["Months shredded: 2026-10"]


def test_shred_with_one_away_then_read_then_sync(two: Practice) -> None:
    with two.open(token="doctor") as vault:
        texts = vault.encrypt("EXP-1", "x")
        vault.months.shred([OCTOBER], AWAY)
        vault.decrypt("\n".join(texts))
    assert both_accept(two)["not_destroyed"] == ["1:spare"]
    with two.open(token="doctor") as vault:
        assert vault.tokens.sync(EVERYBODY).renewed == ("spare",)
        vault.log.verify()
    assert both_accept(two)["not_destroyed"] == []
    with two.open(token="spare") as vault:
        vault.encrypt("EXP-1", "y")
        vault.log.verify()
    both_accept(two)


def test_erase(two: Practice) -> None:
    with two.open(token="spare") as vault:
        vault.patients.erase("EXP-2", EVERYBODY)
        vault.log.verify()
    found = both_accept(two)
    assert found["erased_pairings"] == 1
    assert [note["title"] for note in found["certificates"]] == ["Patient erased: EXP-2"]


@pytest.mark.parametrize("company", [EVERYBODY, AWAY], ids=["present", "absent"])
def test_remove_token_and_add_another(two: Practice, uris: dict[str, str], company: OtherTokens, spare: str) -> None:
    with two.open(token="doctor") as vault:
        vault.tokens.remove("spare", company)
        vault.log.verify()
    found = both_accept(two)
    assert retired(found) == ["spare"]
    assert found["not_destroyed"] == ([] if company is EVERYBODY else ["1:spare"])
    assert [note["title"] for note in found["certificates"]] == ["Token removed: spare"]
    two.add("third", uris["third"], using="doctor", options=TokenOptions(spare))
    with two.open(token="third") as vault:
        vault.months.shred([OCTOBER], EVERYBODY)
        assert vault.log.verify().keys == ("doctor", "third")
    found = both_accept(two)
    assert (len(found["certificates"]), found["generation"]) == (2, 3)


def test_the_first_token_removed(two: Practice) -> None:
    """Trust still begins at entry 1's key, or at the newest head's."""
    with two.open(token="spare") as vault:
        vault.tokens.remove("doctor", EVERYBODY)
        vault.log.verify()
    assert retired(both_accept(two)) == ["doctor"]


def test_restored_from_a_backup_of_before_and_of_behind(two: Practice, tmp_path: Path) -> None:
    with two.open(token="doctor") as vault:
        vault.backup(tmp_path / "before.db")
        vault.months.shred([OCTOBER], EVERYBODY)
        vault.backup(tmp_path / "after.db")
        vault.encrypt("EXP-1", "is lost")
    with pytest.raises(VaultError, match="would come back"):
        two.restore(tmp_path / "before.db", token="doctor")
    with two.restore(tmp_path / "after.db", token="doctor") as vault:
        vault.log.verify()
    assert both_accept(two)["restores"] == 1


def test_restored_and_then_re_keyed_by_the_same_command(two: Practice, tmp_path: Path, uris: dict[str, str]) -> None:
    with two.open(token="doctor") as vault:
        vault.backup(tmp_path / "backup.db")
    with two.restore(tmp_path / "backup.db", token="doctor") as vault:
        vault.tokens.add("third", uris["third"], pin=pin)
        vault.months.shred([OCTOBER], AWAY)
        vault.log.verify()
    assert both_accept(two)["generation"] == 2


def test_the_re_keys_own_backup(two: Practice) -> None:
    """It was made between the commit and the end: the next unlock of it ends the re-key."""
    with two.open(token="doctor") as vault:
        vault.months.shred([OCTOBER], EVERYBODY)
    vault_path, two.path = two.path, two.path.with_name("vault.db-backup-2")
    assert both_accept(two)["not_destroyed"] == ["1:doctor", "1:spare"]
    two.path = vault_path


def test_what_was_only_intended_and_then_undone(two: Practice) -> None:
    with two.open(token="doctor") as vault:
        inside = unlocked(vault)
        with inside.change("month.shred", "2026-10", outcome=INTENDED) as change:
            change.detail["months"] = ["2026-10"]
        begin(inside, VAULT_REKEY, SHRED, 2, change.sequence)
    assert both_accept(two)["unfinished"] == "vault.rekey"
    with two.open(token="doctor") as vault:
        vault.log.verify()
    found = both_accept(two)
    assert (found["unfinished"], found["generation"], found["shredded"]) == (None, 1, [])


def test_holds_and_policy_between(two: Practice) -> None:
    with two.open(token="doctor") as vault:
        vault.holds.add("case 4711", patient="EXP-2")
        vault.set_policy(retain_months=12)
        vault.patients.erase("EXP-1", EVERYBODY)
        vault.log.verify()
    both_accept(two)


def test_a_row_of_a_shredded_month_put_back(two: Practice) -> None:
    """From an older copy, by hand: whoever has no token sees it too."""
    kept = [row for row in rows(two.path, "seen") if row[1] == "2026-10"]
    with two.open(token="doctor") as vault:
        (text,) = vault.encrypt("EXP-1", "x")
        vault.months.shred([OCTOBER], EVERYBODY)
        assert statuses(vault.decrypt(text)) == ["ok"]
    both_accept(two)
    with by_hand(two.path) as db:
        db.execute("INSERT INTO seen VALUES (?, ?, ?, ?)", kept[0])
    key = audit_keys(two)[0]
    with pytest.raises(AuditBroken, match="rows of 2026-10"):
        verify_file(two.path, [key])
    accepted, said = script_says(two.path, key)
    assert not accepted
    assert "rows of 2026-10" in said["error"]


def evidence(path: Path) -> dict[str, bytes]:
    """Of the vault: the keys that the other reader is given lie beside it."""
    return {file.name: file.read_bytes() for file in path.parent.glob("vault.db*") if not file.name.endswith("-shm")}


@pytest.fixture
def one(tmp_path: Path, uris: dict[str, str]) -> Practice:
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    with made.create() as vault:
        made.pair(vault, "EXP-1")
    fold(made.path)
    return made


def test_a_journal_beside_the_vault_is_refused_and_nothing_rolled_back(one: Practice) -> None:
    """Whoever reads without a key reads evidence. The journal is what a killed transaction leaves."""
    kept, keys = one.path.read_bytes(), audit_keys(one)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(one.path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = evidence(one.path)
    assert one.path.read_bytes() != kept
    assert len(before["vault.db-journal"]) > 512
    with pytest.raises(VaultError, match="-journal lies beside the vault") as caught:
        verify_file(one.path, keys)
    assert "copy both away as evidence" in caught.value.hint
    with pytest.raises(VaultError, match="-journal lies beside the vault"):
        status_of_file(one.path)
    assert not script_says(one.path, *keys)[0]
    assert evidence(one.path) == before


KILLED = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("PRAGMA cache_spill = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE entries SET stored = zeroblob(900000)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("statement", [
    "INSERT INTO records SELECT CAST(x'ff' AS TEXT), pairing, month, sequence, wrapped, mac FROM records LIMIT 1",
    "INSERT INTO sealed SELECT CAST(x'ff' AS TEXT), pairing, lookup, sequence, nonce, body FROM sealed LIMIT 1",
    "INSERT INTO seen VALUES (x'00', CAST(x'ff' AS TEXT), x'00', x'00')",
])  # fmt: skip
def test_text_that_is_no_utf_8_is_refused(one: Practice, statement: str) -> None:
    keys = audit_keys(one)
    assert package_accepts(one.path, *keys)
    assert script_says(one.path, *keys)[0]
    with by_hand(one.path) as db:
        db.execute(statement)
    assert not package_accepts(one.path, *keys)
    assert not script_says(one.path, *keys)[0]


def test_a_vault_in_another_encoding_is_refused(one: Practice) -> None:
    """SQLite hands out the same text; but order by bytes, and what an index holds, are another thing."""
    keys = audit_keys(one)
    with by_hand(one.path) as db:
        script = "\n".join(db.iterdump())
    other = one.path.with_name("utf-16.db")
    with closing(sqlite3.connect(other)) as db:
        db.execute("PRAGMA encoding = 'UTF-16le'")
        db.executescript(script)
        db.execute("PRAGMA application_id = 0x4D454443")
        db.execute("PRAGMA user_version = 1")
    assert not package_accepts(other, *keys)
    assert not script_says(other, *keys)[0]
