"""A vault made or put back: what is checked, and noted, before there is one to unlock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import MedcryptError, TokenAbsent, UsageError, WrongPin
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.vault.audit.trust import Policy
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


def never(info: object) -> str:
    raise AssertionError("a PIN was asked for before everything else was looked at")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"token": "dr garcía"}, UsageError),
        ({"options": TokenOptions("rot13")}, UsageError),
        ({"options": TokenOptions(touch="twice")}, UsageError),
        ({"policy": Policy(grace_days=29)}, UsageError),
        ({"uri": "pkcs11:token=nowhere"}, TokenAbsent),
    ],
)
def test_nobody_is_asked_for_a_pin_in_vain(
    token_uri: str, tmp_path: Path, changed: dict[str, Any], error: type[MedcryptError]
) -> None:
    wanted: dict[str, Any] = {"token": "doctor", "uri": token_uri} | changed
    with pytest.raises(error) as caught:
        Vault.create(tmp_path / "practice" / "vault.db", pin=never, **wanted)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
