"""From a name and a PIN to an unlocked vault, and what a failure on the way leaves noted."""

from __future__ import annotations

import pytest

from medcrypt_hsm import Month, Vault
from medcrypt_hsm.errors import WrongPin
from tests.support.practice import Practice
from tests.support.softhsm import WRONG_PIN


def test_a_wrong_pin_after_a_long_absence_locks_nobody_out(practice: Practice) -> None:
    practice.clock.set("2027-02-03")
    with pytest.raises(WrongPin):
        Vault.open(practice.path, pin=lambda info: WRONG_PIN, clock=practice.clock)
    with practice.open() as vault:
        vault.months.open(Month.parse("2027-02"))
    with practice.open() as vault:
        assert "notes" in [entry.action for _, entry in vault.log.entries()]
