"""Shredding, erasing, removing a token: what is gone is gone from every copy, and the certificate is true both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medcrypt_hsm.errors import Refused, UsageError, VaultError
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.keyset import MESSAGE
from tests.support.practice import Practice, pin, statuses, unlocked

BOTH_PROFILES = True
EVERYBODY = OtherTokens(pin)
SEPTEMBER, OCTOBER, NOVEMBER = Month.parse("2026-09"), Month.parse("2026-10"), Month.parse("2026-11")


def opened(practice: Practice, *texts: str, archive: bool = True, **more: str) -> list[str]:
    with practice.open(**more) as vault:
        return [m.text or m.status for m in vault.decrypt("\n".join(texts), archive=archive)]


def test_a_shredded_month_is_gone_and_the_rest_is_not(year: tuple[Practice, dict[str, str]], tmp_path: Path) -> None:
    practice, texts = year
    with practice.open() as vault:
        made = vault.months.shred([SEPTEMBER], EVERYBODY)
        assert vault.log.verify().rows
        vault.backup(tmp_path / "after.db")
    for key, text in texts.items():
        patient, month = key.split()
        assert opened(practice, text) == ["shredded" if month == "2026-09" else f"{patient} in {month}"]
    for before in sorted(tmp_path.glob("2026-*.db")):
        with pytest.raises(VaultError, match="would come back"):
            practice.restore(before)
        with pytest.raises(VaultError, match="before a re-key"):  # nor does the token open it anywhere else
            replace(practice, path=tmp_path / "elsewhere" / "vault.db").restore(before)
    assert [backup["opened_by"] for backup in made.value["backups"]] == [[]] * 5
    assert all(file.exists() for file in made.files)
    practice.restore(tmp_path / "after.db").close()


def test_status_tells_the_life_of_each_month(year: tuple[Practice, dict[str, str]]) -> None:
    practice, _ = year
    with practice.open() as vault:
        vault.set_policy(retain_months=2)
        due, _ = vault.months.past_retention()
        assert [str(month) for month in due] == ["2026-07", "2026-08"]
        assert any("past retention: 2026-07 to 2026-08 (2 months)" in p for p in vault.status().problems)
        vault.months.shred(due)
        states = dict(vault.status().months)
        assert states["2026-07"] == states["2026-08"] == "shredded"
        assert states["2026-09"] == "archived"
        assert not [problem for problem in vault.status().problems if "object" not in problem]  # another vault's


@pytest.mark.parametrize("month", ["2026-11", "2026-12", "2025-01"])
def test_only_archived_months_can_be_shredded(year: tuple[Practice, dict[str, str]], month: str) -> None:
    practice, _ = year
    with practice.open() as vault, pytest.raises((Refused, UsageError)):
        vault.months.shred([Month.parse(month)])


def test_the_newest_month_is_not_shredded_while_its_chain_keys_are_there(year: tuple[Practice, dict[str, str]]) -> None:
    """December has come, and nobody has opened it yet: November is over by the calendar."""
    practice, texts = year
    practice.clock.set("2026-12-20")
    with practice.open() as vault:
        with pytest.raises(Refused, match="chain keys"):
            vault.months.shred([NOVEMBER])
        vault.months.open()
        vault.months.shred([NOVEMBER])
    assert opened(practice, texts["EXP-1 2026-11"]) == ["shredded"]


def test_a_version_1_secret_gives_no_shredded_month_again(tmp_path: Path, token_uri: str, profile: str) -> None:
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    texts: dict[str, str] = {}
    for month in ("2026-09", "2026-10", "2026-11"):
        practice.clock.set(f"{month}-20")
        with practice.create(options=TokenOptions(profile)) if month == "2026-09" else practice.open() as vault:
            if month == "2026-09":
                vault.patients.add("EXP-V1", protocol="v1", secret="clinic-7-pairing-secret-2026")
            (texts[month],) = vault.encrypt("EXP-V1", month)
    with practice.open() as vault:
        vault.months.shred([OCTOBER])  # the month before this one, which archive reading tries for every text
        assert [m.text or m.status for text in texts.values() for m in vault.decrypt(text, archive=True)] == [
            "2026-09",
            "not-authentic",
            "2026-11",
        ]
        assert statuses(vault.decrypt(texts["2026-10"], month=OCTOBER)) == ["shredded"]
        assert not [row for row in unlocked(vault).file.records(MESSAGE) if row.month == "2026-10"]
        vault.log.verify()


def test_an_erased_patient_is_gone_and_the_others_are_not(year: tuple[Practice, dict[str, str]]) -> None:
    practice, texts = year
    with practice.open() as vault:
        vault.patients.erase("EXP-1")
        assert [pairing.id for pairing in vault.patients.list()] == ["EXP-2"]
        assert vault.log.verify().rows
    for key, text in texts.items():
        patient, month = key.split()
        assert opened(practice, text) == ["unknown-pairing" if patient == "EXP-1" else f"EXP-2 in {month}"]


def test_what_was_seen_is_still_known(year: tuple[Practice, dict[str, str]]) -> None:
    practice, texts = year
    text = texts["EXP-1 2026-11"]
    with practice.open() as vault:
        assert statuses(vault.decrypt(text)) == ["ok"]
        vault.months.shred([SEPTEMBER])
        assert statuses(vault.decrypt(text)) == ["seen"]
