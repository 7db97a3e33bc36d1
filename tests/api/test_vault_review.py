"""What readers with fresh eyes found, each as a test of the behaviour that they asked for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import (
    AuditBroken,
    TokenError,
    VaultBusy,
    VaultDamaged,
    VaultError,
)
from medcrypt_hsm.lifecycle.restore import Loss
from tests.support.practice import Practice, pin
from tests.support.store import rows, tamper

DAMAGES = {
    "a wrapped key altered": "UPDATE records SET wrapped = zeroblob(40) WHERE purpose = 'message'",
    "message keys deleted": "DELETE FROM records WHERE purpose = 'message'",
    "patients deleted": "DELETE FROM sealed",
    "seen rows deleted": "DELETE FROM seen",
}


@pytest.mark.parametrize("statement", DAMAGES.values(), ids=DAMAGES.keys())
class TestRowsOfBackups:
    def test_a_tampered_backup_replaces_nothing(self, practice: Practice, tmp_path: Path, statement: str) -> None:
        saved = tmp_path / "saved.db"
        with practice.open() as vault:
            vault.patients.add("EXP-1", unconfirmed=True)
            vault.encrypt("EXP-1", "hola")
            vault.backup(saved)
        tamper(saved, statement)
        before = practice.path.read_bytes()
        with pytest.raises(AuditBroken):
            practice.restore(saved)
        assert practice.path.read_bytes() == before

    def test_a_tampered_vault_is_not_called_backed_up(self, practice: Practice, tmp_path: Path, statement: str) -> None:
        saved = tmp_path / "saved.db"
        with practice.open() as vault:
            vault.patients.add("EXP-1", unconfirmed=True)
            vault.encrypt("EXP-1", "hola")
        tamper(practice.path, statement)
        with practice.open() as vault:
            with pytest.raises(AuditBroken):
                vault.backup(saved)
            assert [entry.outcome for _, entry in vault.log.entries() if entry.action == "vault.backup"] == [
                "intended",
                "audit-broken",
            ]
        assert list(tmp_path.glob("saved*")) == []


class TestLoss:
    def test_what_a_departing_backup_loses_is_counted_from_the_fork(self, practice: Practice, tmp_path: Path) -> None:
        short, long = tmp_path / "short.db", tmp_path / "long.db"
        with practice.open() as vault:
            vault.backup(short)
            fork = len(rows(short, "entries"))
            for number in range(5):
                vault.patients.add(f"EXP-{number}", unconfirmed=True)
            vault.backup(long)
        with practice.restore(short) as vault:
            vault.patients.add("EXP-AFTER", unconfirmed=True)
        losses: list[Loss] = []
        practice.restore(long, losses=losses).close()
        [loss] = losses
        assert loss.common == fork
        assert ("patient.add", "EXP-AFTER") in loss.lost
        assert loss.entries_lost == len(loss.lost) == 2

    def test_what_was_written_while_a_person_thought_stops_it(self, practice: Practice, tmp_path: Path) -> None:
        saved = tmp_path / "saved.db"
        with practice.open() as vault:
            vault.patients.add("EXP-1", unconfirmed=True)
            vault.backup(saved)

        def meanwhile(loss: Loss) -> None:
            practice.elsewhere("vault.encrypt('EXP-1', 'x'); vault.log.anchor()")

        with pytest.raises(VaultBusy, match="meanwhile"):
            Vault.restore(practice.path, saved, pin=pin, agree=meanwhile, clock=practice.clock)
        with practice.open() as vault:
            assert "message.encrypt" in [entry.action for _, entry in vault.log.entries()]

    @pytest.mark.parametrize("content", ["another program's", "a newer schema"])
    def test_a_file_that_is_not_ours_is_left_alone(self, practice: Practice, tmp_path: Path, content: str) -> None:
        saved = tmp_path / "saved.db"
        with practice.open() as vault:
            vault.backup(saved)
        pragma = "application_id = 7" if content == "another program's" else "user_version = 9"
        tamper(practice.path, f"PRAGMA {pragma}")
        before = practice.path.read_bytes()
        with pytest.raises(VaultError):
            practice.restore(saved)
        assert practice.path.read_bytes() == before


class TestThreads:
    def test_threads_may_share_a_vault(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-1", unconfirmed=True)
            with ThreadPoolExecutor(6) as pool:
                texts = list(pool.map(lambda number: vault.encrypt("EXP-1", str(number))[0], range(24)))
            assert [opened.text for opened in vault.decrypt("\n".join(texts))] == [str(n) for n in range(24)]
            vault.log.verify()

    def test_a_second_login_at_the_prompt_leaves_the_first_alone(self, practice: Practice) -> None:
        held: list[Vault] = []

        def opens_another(info: object) -> str:
            held.append(practice.open())
            return pin(info)

        with pytest.raises(TokenError, match="already open"):
            Vault.open(practice.path, pin=opens_another, clock=practice.clock)
        with held[0] as vault:
            vault.log.verify()

    def test_a_closed_vault_says_that_it_is_locked(self, practice: Practice) -> None:
        vault = practice.open()
        vault.close()
        vault.close()
        uses: tuple[Callable[[], object], ...] = (vault.status, vault.log.verify, lambda: vault.encrypt("EXP-1", "x"))
        for use in uses:
            with pytest.raises(RuntimeError, match="locked"):
                use()


def test_an_altered_row_is_damage_and_not_a_bad_message(practice: Practice) -> None:
    with practice.open() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        [text] = vault.encrypt("EXP-1", "hola")
    tamper(practice.path, DAMAGES["a wrapped key altered"])
    before = practice.path.read_bytes()
    with practice.open() as vault:
        for use in (lambda: vault.decrypt(text), lambda: vault.encrypt("EXP-1", "x")):
            with pytest.raises(VaultDamaged):
                use()
    assert practice.path.read_bytes() == before
