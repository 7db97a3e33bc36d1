"""Holds: who and what is kept from being destroyed, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.errors import OnHold, UsageError
from medcrypt_hsm.lifecycle import holds
from medcrypt_hsm.month import Month
from tests.support.practice import Practice, unlocked
from tests.support.store import whole

BOTH_PROFILES = True
SEPTEMBER, OCTOBER, NOVEMBER = Month.parse("2026-09"), Month.parse("2026-10"), Month.parse("2026-11")


def test_a_held_month_is_not_shredded_nor_a_held_patient_erased(year: tuple[Practice, dict[str, str]]) -> None:
    practice, _ = year
    with practice.open() as vault:
        vault.holds.add("case 4711", patient="EXP-1")
        for refused in (lambda: vault.months.shred([SEPTEMBER]), lambda: vault.patients.erase("EXP-1")):
            with pytest.raises(OnHold, match="case 4711"):
                refused()
        vault.patients.erase("EXP-2")
        assert [held.reasons for held in vault.holds.list()] == [("case 4711",)]
        vault.holds.remove("the case is closed", patient="EXP-1")
        vault.holds.add("an inspection", month=OCTOBER)
        vault.months.shred([SEPTEMBER])
        with pytest.raises(OnHold, match="an inspection"):
            vault.months.shred([OCTOBER])
        with pytest.raises(OnHold, match="an inspection"):
            vault.patients.erase("EXP-1")
        vault.log.verify()


def test_removing_a_held_patient_would_lose_the_v1_secret(autumn: tuple[Practice, str]) -> None:
    practice, _ = autumn
    with practice.open() as vault:
        vault.patients.add("EXP-V1", protocol="v1", secret="clinic-7-pairing-secret-2026")
        vault.holds.add("case 4711", patient="EXP-V1")
        with pytest.raises(OnHold, match="cannot be removed"):
            vault.patients.remove("EXP-V1")
        vault.holds.add("case 4712", patient="EXP-1")
        vault.patients.remove("EXP-1")  # its months stay readable


def test_another_reason_is_put_to_the_same_hold_and_all_are_lifted_at_once(shared_practice: Practice) -> None:
    practice = shared_practice
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        opened = unlocked(vault)
        holds.add(opened, "case 4711", patient="EXP-1")
        held = holds.add(opened, "an inspection", patient="EXP-1")
        assert (held.what, held.reasons) == ("patient EXP-1", ("case 4711", "an inspection"))
        november = holds.add(opened, "an inspection", month=NOVEMBER)
        assert (november.what, november.since) == ("month 2026-11", "2026-11-22T12:00:00Z")
        assert holds.held_months(opened, [OCTOBER, NOVEMBER]) == {NOVEMBER: november}
        assert holds.remove(opened, "closed", patient="EXP-1") == held
        assert holds.opened(opened) == [november]
        holds.remove(opened, "closed", month=NOVEMBER)


def test_the_file_tells_nobody_whom_a_hold_is_about(shared_practice: Practice, tmp_path: Path) -> None:
    with shared_practice.open() as vault:
        vault.patients.add("EXP-00417", unconfirmed=True)
        holds.add(unlocked(vault), "case 4711", patient="EXP-00417")
        content = whole(shared_practice.path, tmp_path / "copy.db").read_bytes()
        assert len(unlocked(vault).state.holds) == 1
        holds.remove(unlocked(vault), "closed", patient="EXP-00417")
    assert b"SQLite" in content
    assert b"EXP-00417" not in content
    assert b"case 4711" not in content


@pytest.mark.parametrize(
    ("on", "reason", "words"),
    [
        ({}, "case 4711", "a hold is on one patient or one month"),
        ({"patient": "EXP-1", "month": NOVEMBER}, "case 4711", "a hold is on one patient or one month"),
        ({"month": NOVEMBER}, " ", "a hold needs a reason"),
        ({"month": OCTOBER}, "case 4711", "this vault has no month 2026-10"),
        ({"patient": "EXP-9"}, "case 4711", "EXP-9"),
    ],
)
def test_what_cannot_be_held(shared_practice: Practice, on: dict[str, Any], reason: str, words: str) -> None:
    with shared_practice.open() as vault:
        with pytest.raises(UsageError, match=words):
            holds.add(unlocked(vault), reason, **on)
        assert holds.list_all(unlocked(vault)) == []
