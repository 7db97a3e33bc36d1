"""Months through the library: what goes when one opens, and what stays."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import AuditBroken, MonthsBehind
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.keyset import CHAIN, QR
from tests.support.practice import Practice, unlocked


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


def test_due_opened_and_past_retention(practice: Practice) -> None:
    november, december, january = (Month.parse(text) for text in ("2026-11", "2026-12", "2027-01"))
    with practice.open() as vault:
        assert (vault.months.due(), vault.months.open(), vault.months.open(november)) == ((), None, None)
        practice.clock.set("2027-01-20")
        assert vault.months.due() == (december, january)
        with pytest.raises(MonthsBehind):
            vault.months.open()
        opened = vault.months.open(january)
        assert opened is not None
        assert (opened.months, vault.month) == ((december, january), january)
        vault.set_policy(retain_months=1)
        vault.holds.add("an inspection", month=november)
        due, kept = vault.months.past_retention()
        assert (due, list(kept)) == ([], [november])
