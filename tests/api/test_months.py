"""Months through the library: what goes when one opens, and what stays."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import AuditBroken
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
