"""What a review of re-keying found, each as somebody would meet it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medcrypt_hsm.errors import OnHold, VaultBusy, VaultError
from medcrypt_hsm.lifecycle.commit import _commit
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import beside

BOTH_PROFILES = True
EVERYBODY = OtherTokens(pin)
OCTOBER = Month.parse("2026-10")


@pytest.fixture
def autumn(tmp_path: Path, token_uri: str, profile: str) -> tuple[Practice, str]:
    """Two months, a patient, and a text of October."""
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    practice.clock.set("2026-10-20")
    with practice.create(options=TokenOptions(profile)) as vault:
        practice.pair(vault, "EXP-1")
        (text,) = vault.encrypt("EXP-1", "octubre")
    practice.clock.set("2026-11-20")
    with practice.open() as vault:
        vault.months.open()
    return practice, text


def test_a_program_that_has_the_vault_open_is_refused_every_time_after_a_rekey(autumn: tuple[Practice, str]) -> None:
    """The second try used to sign the new keyset's rows away."""
    practice, _ = autumn
    with practice.open() as vault:
        practice.elsewhere("vault.months.shred([__import__('medcrypt_hsm').month.Month.parse('2026-10')])")
        for _ in range(3):
            with pytest.raises(VaultBusy, match="re-keyed meanwhile"):
                vault.log.anchor()
    with practice.open() as vault:
        assert vault.log.verify().rows


class Interrupted(BaseException):
    """Ctrl-C, as it is raised by the first instruction after the call that it interrupts."""


def test_ctrl_c_right_behind_the_commit_takes_nothing_back(
    autumn: tuple[Practice, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    practice, text = autumn
    committed = _commit

    def interrupted(vault: object, *arguments: object) -> None:
        before = vault.state, vault.log.chain  # type: ignore[attr-defined]
        committed(vault, *arguments)  # type: ignore[arg-type]
        vault.state, vault.log.chain = before  # type: ignore[attr-defined]  # what the program knows at that instruction
        raise Interrupted

    monkeypatch.setattr("medcrypt_hsm.lifecycle.commit._commit", interrupted)
    with practice.open() as vault, pytest.raises(Interrupted):
        vault.months.shred([OCTOBER])
    monkeypatch.undo()
    with practice.open() as vault:
        assert vault.finished is not None
        assert vault.finished.value["subject"] == "2026-10"
        assert statuses(vault.decrypt(text, archive=True)) == ["shredded"]
        assert vault.log.verify().rows


def test_every_backup_is_in_the_certificate_also_two_of_one_name(
    autumn: tuple[Practice, str], tmp_path: Path, softhsm: SoftHsm
) -> None:
    practice, _ = autumn
    practice.add("spare", softhsm.make_token(), using="doctor", options=TokenOptions("aes-kw"))
    for stick in ("one", "two"):
        (tmp_path / stick).mkdir()
    away = OtherTokens(pin, without=("spare",))
    with practice.open(token="doctor") as vault:
        vault.backup(tmp_path / "one" / "vault.db")
        vault.patients.erase("EXP-1", away)
        vault.backup(tmp_path / "two" / "vault.db")
        made = vault.months.shred([OCTOBER], away)
    told = [(backup["name"], backup["opened_by"]) for backup in made.value["backups"]]
    assert told == [("vault.db", ["spare"]), ("vault.db-backup-2", []), ("vault.db", [])]


def test_removing_a_held_patient_would_lose_the_v1_secret(autumn: tuple[Practice, str]) -> None:
    practice, _ = autumn
    with practice.open() as vault:
        vault.patients.add("EXP-V1", protocol="v1", secret="clinic-7-pairing-secret-2026")
        vault.holds.add("case 4711", patient="EXP-V1")
        with pytest.raises(OnHold, match="cannot be removed"):
            vault.patients.remove("EXP-V1")
        vault.holds.add("case 4712", patient="EXP-1")
        vault.patients.remove("EXP-1")  # its months stay readable


def test_a_removed_tokens_name_can_be_left_out_of_a_sync(autumn: tuple[Practice, str], softhsm: SoftHsm) -> None:
    practice, _ = autumn
    practice.add("spare", softhsm.make_token(), using="doctor")
    with practice.open(token="doctor") as vault:
        vault.tokens.remove("spare", OtherTokens(pin, without=("spare",)))
        assert vault.tokens.sync(OtherTokens(pin, without=("spare",))).left == ("1:spare",)


def test_the_backup_that_a_rekey_made_of_itself_can_be_put_back(autumn: tuple[Practice, str]) -> None:
    """It was made before the old keys were destroyed; the certificate from then stays."""
    practice, text = autumn
    with practice.open() as vault:
        made = vault.months.shred([OCTOBER])
    files = [file.read_bytes() for file in made.files]
    practice.path.rename(practice.path.with_name("lost.db"))
    practice.restore(practice.path.with_name("vault.db-backup-2")).close()
    with practice.open() as vault:
        assert vault.log.verify().rows
        assert statuses(vault.decrypt(text, archive=True)) == ["shredded"]
        assert vault.status().generation == 2
    assert [file.read_bytes() for file in made.files] == files


def test_what_cannot_be_finished_does_not_keep_anybody_from_reading(autumn: tuple[Practice, str]) -> None:
    """Somebody's directory lies where the fresh backup is to be written, and cannot be moved away."""
    practice, _ = autumn
    with practice.open() as vault:
        (text,) = vault.encrypt("EXP-1", "noviembre")
    directory = practice.path.parent
    blocked = replace(practice)
    with blocked.open() as vault:
        target = beside(practice.path).certificate(2).with_name("vault.db-certificate-2.json.partial")
        target.mkdir()
        (target / "precious").write_text("x")
        made = vault.months.shred([OCTOBER])
    assert all(file.exists() for file in made.files)
    assert any((path / "precious").exists() for path in directory.glob("vault.db-certificate-2.json.partial*"))
    with practice.open() as vault:
        assert [message.text for message in vault.decrypt(text)] == ["noviembre"]


def test_the_old_key_is_not_destroyed_before_the_new_keyset_opens(
    autumn: tuple[Practice, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    practice, _ = autumn
    with practice.open() as vault:
        token = unlocked(vault).token
        seen: list[str] = []
        unwrap, destroy = token.unwrap_keyset, token.destroy
        monkeypatch.setattr(token, "unwrap_keyset", lambda *a: (seen.append("unwrap"), unwrap(*a))[1])
        monkeypatch.setattr(token, "destroy", lambda name: (seen.append(f"destroy {name[-1]}"), destroy(name))[1])
        vault.months.shred([OCTOBER])
    assert seen[-2:] == ["unwrap", "destroy 1"]


def test_a_backup_from_before_a_rekey_does_not_replace_what_came_after(
    autumn: tuple[Practice, str], tmp_path: Path, softhsm: SoftHsm
) -> None:
    """Not with a token that was away either, whose old key still opens it."""
    practice, _ = autumn
    practice.add("spare", softhsm.make_token(), using="doctor", options=TokenOptions("p256-hpke"))
    with practice.open(token="doctor") as vault:
        vault.backup(tmp_path / "before.db")
        vault.months.shred([OCTOBER], OtherTokens(pin, without=("spare",)))
    with pytest.raises(VaultError, match="what was destroyed would come back"):
        practice.restore(tmp_path / "before.db", token="spare")
