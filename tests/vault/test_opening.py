"""From a name and a PIN to an unlocked vault, and what a failure on the way leaves noted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcrypt_hsm import Month, Vault
from medcrypt_hsm.errors import MedcryptError, NotAuthentic, PinNeeded, UsageError, VaultForeign, WrongPin
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.opening import closed_on_failure, noted, this_user
from medcrypt_hsm.vault.store.rows import Location
from tests.support.practice import MovedClock, Practice, pin
from tests.support.softhsm import WRONG_PIN


def test_a_wrong_pin_after_a_long_absence_locks_nobody_out(practice: Practice) -> None:
    practice.clock.set("2027-02-03")
    with pytest.raises(WrongPin):
        Vault.open(practice.path, pin=lambda info: WRONG_PIN, clock=practice.clock)
    with practice.open() as vault:
        vault.months.open(Month.parse("2027-02"))
    with practice.open() as vault:
        assert "notes" in [entry.action for _, entry in vault.log.entries()]


@pytest.mark.parametrize(
    ("error", "is_noted"),
    [
        (WrongPin("no"), True),
        (NotAuthentic("no"), True),
        (VaultForeign("no"), True),
        (UsageError("no"), False),  # it tells nothing of anybody who was at the vault
        (PinNeeded("no"), False),
    ],
)
def test_what_is_noted_beside_the_vault(tmp_path: Path, error: MedcryptError, is_noted: bool) -> None:
    vault, notes = tmp_path / "vault.db", tmp_path / "vault.db-notes"
    vault.touch()
    with pytest.raises(type(error)), noted(Location.parse(vault), "doctor", MovedClock()):
        raise error
    found = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    wanted = {"what": error.name, "time": "2026-11-22T12:00:00Z", "token": "doctor", "actor": this_user()}
    assert found == ([wanted] if is_noted else [])


def test_a_token_is_closed_where_the_rest_fails(shared_practice: Practice) -> None:
    token = open_token(shared_practice.uri, pin)
    with closed_on_failure(token):
        assert token.names()
    with pytest.raises(ZeroDivisionError), closed_on_failure(token):
        1 / 0  # noqa: B018
    with pytest.raises((MedcryptError, RuntimeError)):
        token.names()


def test_the_log_says_who_it_was_by_the_operating_system(shared_practice: Practice) -> None:
    practice = shared_practice
    with Vault.open(practice.path, pin=pin, clock=practice.clock) as vault:
        vault.patients.list()
        assert [entry.actor for _, entry in vault.log.entries()][-1] == this_user()
