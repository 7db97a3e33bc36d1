"""A vault made or put back: what is checked, and noted, before there is one to unlock."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import WrongPin
from tests.support.practice import Practice
from tests.support.softhsm import WRONG_PIN


def test_wrong_pins_at_a_restore_are_noted(practice: Practice, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    with practice.open() as vault:
        vault.backup(saved)
    with pytest.raises(WrongPin):
        Vault.restore(practice.path, saved, pin=lambda info: WRONG_PIN, agree=lambda loss: None, clock=practice.clock)
    with practice.open() as vault:
        assert "notes" in [entry.action for _, entry in vault.log.entries()]
