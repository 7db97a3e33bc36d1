"""What readers with fresh eyes found, each as a test of the behaviour that they asked for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medcrypt_hsm import MedcryptError, Vault
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import (
    AuditBroken,
    NotAuthentic,
    Refused,
    TokenError,
    UsageError,
    VaultBusy,
    VaultDamaged,
    VaultError,
    WrongPin,
)
from medcrypt_hsm.lifecycle.restore import Loss
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.keyset import CHAIN, QR
from tests.support.practice import Practice, pin, unlocked
from tests.support.softhsm import WRONG_PIN
from tests.support.store import rows, tamper


def test_a_wrong_pin_after_a_long_absence_locks_nobody_out(practice: Practice) -> None:
    practice.clock.set("2027-02-03")
    with pytest.raises(WrongPin):
        Vault.open(practice.path, pin=lambda info: WRONG_PIN, clock=practice.clock)
    with practice.open() as vault:
        vault.months.open(Month.parse("2027-02"))
    with practice.open() as vault:
        assert "notes" in [entry.action for _, entry in vault.log.entries()]


def test_an_expired_code_goes_when_a_month_opens(practice: Practice) -> None:
    with practice.open() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        assert unlocked(vault).file.all_sealed(QR)
        practice.clock.set("2026-12-03")
        vault.months.open()
        assert not unlocked(vault).file.all_sealed(QR)
        vault.log.verify()


def test_a_code_that_has_not_expired_survives_midnight(practice: Practice) -> None:
    practice.clock.set("2026-11-30 23:55")
    with practice.open() as vault:
        vault.patients.add("EXP-1")
        practice.clock.set("2026-12-01 00:01")
        vault.months.open()
        assert vault.patients.qr("EXP-1").payload


def test_a_chain_key_of_an_older_month_is_never_stepped(practice: Practice) -> None:
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        [old] = unlocked(vault).file.records(CHAIN)
        practice.clock.set("2026-12-03")
        vault.months.open()
        file = unlocked(vault).file
        with file.transaction():
            file.delete_record(CHAIN, old.pairing, "2026-12")
            file.put_records([old])
        practice.clock.set("2027-01-03")
        with pytest.raises(AuditBroken, match="newest month"):
            vault.months.open()


class TestWrongCodes:
    @pytest.mark.parametrize("unconfirmed", [False, True])
    def test_three_void_the_pairing(self, practice: Practice, unconfirmed: bool) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-1", unconfirmed=unconfirmed)
            for _ in range(3):
                with pytest.raises(NotAuthentic):
                    vault.patients.confirm("EXP-1", "000000")
            for use in (
                lambda: vault.patients.confirm("EXP-1", "000000"),
                lambda: vault.patients.qr("EXP-1"),
                lambda: vault.encrypt("EXP-1", "hola"),
            ):
                with pytest.raises(Refused):
                    use()
            vault.log.verify()


def test_v2_that_is_not_confirmed_yet_is_no_way_back_to_v1_either(practice: Practice) -> None:
    with practice.open() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        with pytest.raises(Refused, match="no way back"):
            vault.patients.add("EXP-1", protocol="v1")


def test_v1_has_no_code_to_leave_unconfirmed(practice: Practice) -> None:
    with practice.open() as vault, pytest.raises(UsageError):
        vault.patients.add("EXP-1", protocol="v1", unconfirmed=True)


def test_a_refused_encryption_and_a_refused_pairing_leave_entries(practice: Practice) -> None:
    with practice.open() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        with pytest.raises(Refused):
            vault.patients.add("EXP-1")
        with pytest.raises(UsageError):
            vault.encrypt("EXP-404", "hola")
        told = [(entry.action, entry.outcome) for _, entry in vault.log.entries()]
        assert ("patient.add", "refused") in told
        assert ("message.encrypt", "usage") in told
        vault.log.verify()


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


def test_wrong_pins_at_a_restore_are_noted(practice: Practice, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    with practice.open() as vault:
        vault.backup(saved)
    with pytest.raises(WrongPin):
        Vault.restore(practice.path, saved, pin=lambda info: WRONG_PIN, agree=lambda loss: None, clock=practice.clock)
    with practice.open() as vault:
        assert "notes" in [entry.action for _, entry in vault.log.entries()]


def test_a_wiped_secret_is_no_key_of_zeros() -> None:
    secret = Secret(bytes(range(32)))
    with secret:
        assert len(secret.value) == 32
    with pytest.raises(RuntimeError):
        _ = secret.value


def test_errors_are_caught_by_one_name() -> None:
    assert issubclass(VaultDamaged, MedcryptError)
