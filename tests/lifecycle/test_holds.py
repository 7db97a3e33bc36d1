"""Holds: who and what is kept from being destroyed, and for how long."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import OnHold
from medcrypt_hsm.month import Month
from tests.support.practice import Practice

BOTH_PROFILES = True
SEPTEMBER, OCTOBER = Month.parse("2026-09"), Month.parse("2026-10")


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
