"""Vaults of before, whose heads bind no row: they open, say so, and are bound once, or by a re-key."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken, Refused, VaultDamaged
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.audit.rowtree import roots_of
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.inspection import verify_file
from medcrypt_hsm.vault.unlocked import Unlocked
from scripts.standalone import verify_audit
from tests.support.practice import Practice, unlocked
from tests.support.store import rows, select, tamper

BOTH_PROFILES = True
BEFORE = (
    "DROP TABLE tree",
    "DROP INDEX records_month",
    "PRAGMA user_version = 1",
)


def unbind(vault: Unlocked, path: Path) -> None:
    """What the program of before would have left: no roots, no table, the policy in full, no MAC over the keyset."""
    with vault.change("audit.anchor") as change:
        for name in vault.state.roots:
            change.delete_trust("rows", name)
        change.put_trust("policy", "", vault.state.policy.whole())
        for name, keyset in vault.state.keysets.items():
            change.put_trust("keyset", name, keyset._replace(check=b"").value())
        for statement in BEFORE:
            vault.file._db.execute(statement)  # type: ignore[attr-defined]
        vault.rows._rewriting = True
    vault.write_anchor()


@pytest.fixture
def old(tmp_path: Path, token_uri: str, profile: str) -> Practice:
    """A vault of before, with a patient and two months."""
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    practice.clock.set("2026-10-20")
    with practice.create(options=TokenOptions(profile)) as vault:
        practice.pair(vault, "EXP-1")
    practice.clock.set("2026-11-20")
    with practice.open() as vault:
        vault.months.open()
        unbind(unlocked(vault), practice.path)
    return practice


def keys_of(practice: Practice) -> list[bytes]:
    with practice.open() as vault:
        return [public_key_der(pem) for pem in vault.log.public_keys().values()]


def is_bound(practice: Practice) -> bool:
    keys = keys_of(practice)
    found = verify_file(practice.path, keys).bound
    assert select(practice.path, "PRAGMA user_version") == [(2,) if found else (1,)]
    with verify_audit.opened(practice.path) as db:
        given = [verify_audit.audit_key(key, "the key", pem=False) for key in keys]
        assert verify_audit.verify(db, given, []).bound is found
    return found


def test_a_vault_of_before_opens_and_says_that_its_rows_are_not_bound(old: Practice) -> None:
    assert not is_bound(old)
    assert any("rows are not bound" in problem for problem in old.status().problems)
    with old.open() as vault:
        (text,) = vault.encrypt("EXP-1", "hola")
        assert [message.text for message in vault.decrypt(text)] == ["hola"]
        old.pair(vault, "EXP-2")
        assert any("rows are not bound" in problem for problem in vault.status().problems)
        assert not vault.log.verify().bound
    old.clock.set("2026-12-02")
    with old.open() as vault:
        vault.months.open()
    assert not is_bound(old)


def test_it_is_bound_once_and_goes_on(old: Practice) -> None:
    with old.open() as vault:
        assert vault.log.bind().bound
        assert dict(roots_of(unlocked(vault).file)) == unlocked(vault).state.roots
        anchor = unlocked(vault).anchor
        assert anchor is not None
        assert anchor.sequence == unlocked(vault).log.sequence
        newest = vault.log.entries()[-2][1]
        assert (newest.action, newest.outcome, newest.detail) == ("vault.bind", "done", {"rows": newest.detail["rows"]})
        assert vault.encrypt("EXP-1", "x")
        with pytest.raises(Refused, match="bound already"):
            vault.log.bind()
    assert is_bound(old)
    assert not any("bound" in problem for problem in old.status().problems)


def test_another_process_that_has_it_open_goes_on_too(old: Practice) -> None:
    with old.open() as vault:
        old.elsewhere("vault.log.bind()")
        old.pair(vault, "EXP-9")
        assert vault.encrypt("EXP-9", "x")
    assert is_bound(old)


def test_one_that_does_not_verify_is_not_bound(old: Practice) -> None:
    tamper(old.path, "DELETE FROM records WHERE purpose = 'message'")
    before = rows(old.path, "entries")
    with old.open() as vault, pytest.raises(AuditBroken, match="is missing"):
        vault.log.bind()
    assert rows(old.path, "entries") == before
    assert select(old.path, "PRAGMA user_version") == [(1,)]


def test_a_re_key_binds_it(old: Practice) -> None:
    with old.open() as vault:
        vault.months.shred([Month.parse("2026-10")])
        assert dict(roots_of(unlocked(vault).file)) == unlocked(vault).state.roots
    assert is_bound(old)


def test_a_backup_of_before_can_be_put_back_and_bound_again(old: Practice) -> None:
    backup = old.path.with_name("backup.db")
    with old.open() as vault:
        vault.backup(backup)
        vault.log.bind()
    with old.restore(backup) as vault:
        assert vault.encrypt("EXP-1", "x")
        vault.log.bind()
    assert is_bound(old)


KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from tests.support.practice import MovedClock, Practice, unlocked

path, uri, now, how_far = sys.argv[1:]
with Practice(Path(path), uri, MovedClock(datetime.fromisoformat(now))).open() as vault:
    left = int(how_far)

    def trace(statement):
        global left
        if statement.lstrip().upper().startswith(("CREATE", "INSERT", "DELETE", "PRAGMA USER", "COMMIT")):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    with unlocked(vault).file.transaction():
        pass
    unlocked(vault).file._db.set_trace_callback(trace)
    vault.log.bind()
"""


@pytest.mark.parametrize("how_far", [1, 2, 3, 5, 9, 1000])
def test_a_bind_that_is_killed_leaves_the_vault_as_it_was_or_bound(old: Practice, how_far: int) -> None:
    arguments = [str(old.path), old.uri, old.clock.now.isoformat(), str(how_far)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == (0 if how_far == 1000 else -signal.SIGKILL)
    assert is_bound(old) is (how_far == 1000)
    with old.open() as vault:
        vault.log.verify()
        if how_far != 1000:
            vault.log.bind()
    assert is_bound(old)


def test_schema_and_trust_state_must_agree(old: Practice) -> None:
    with old.open() as vault:
        vault.log.bind()
    tamper(old.path, *BEFORE)
    with pytest.raises(VaultDamaged, match="do not agree"):
        old.open()


# What the roots brought along


def test_policy_members_at_their_default_are_left_out_of_new_rows(old: Practice) -> None:
    def policy() -> dict[str, object]:
        ((_, _, value),) = [row for row in rows(old.path, "trust") if row[0] == "policy"]
        return dict(json.loads(value))

    assert policy() == {"grace_days": 7, "require_attestation": "none", "retain_months": 60}
    with old.open() as vault:
        vault.set_policy(grace_days=3)
        assert policy() == {"grace_days": 3}
        vault.set_policy(grace_days=7)
        assert policy() == {}
        assert vault.policy.retain_months == 60
        vault.log.verify()
    assert not is_bound(old)
