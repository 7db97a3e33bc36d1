"""What a review of re-keying found, each as somebody would meet it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.errors import VaultBusy, VaultError
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from tests.support.practice import Practice, pin
from tests.support.softhsm import SoftHsm

BOTH_PROFILES = True
OCTOBER = Month.parse("2026-10")


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
