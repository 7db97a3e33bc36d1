"""A session through the library: started once, used without a PIN, and what keeps one from starting."""

from __future__ import annotations

import json

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.api.session import start_session
from medcrypt_hsm.errors import UsageError, WrongPin
from medcrypt_hsm.tokens.session import client
from tests.support.practice import Practice, pin
from tests.support.softhsm import WRONG_PIN
from tests.support.store import beside


def never(info: object) -> str:
    raise AssertionError("the PIN was asked for")


def test_times_out_of_bounds_begin_nothing(shared_practice: Practice) -> None:
    for idle, lasting in ((0, 60), (9 * 3600, 60), (60, 0), (60, 25 * 3600)):
        with pytest.raises(UsageError, match="a session"):
            start_session(shared_practice.path, never, idle=idle, lasting=lasting, clock=shared_practice.clock)


def test_a_wrong_pin_is_noted_and_no_agent_stays(practice: Practice) -> None:
    with pytest.raises(WrongPin):
        start_session(practice.path, lambda info: WRONG_PIN, actor="mara", clock=practice.clock)
    (note,) = practice.path.with_name("vault.db-notes").read_text().splitlines()
    assert json.loads(note)["what"] == "pin-wrong"
    assert client.status(beside(practice.path)) is None


def test_one_at_a_time_from_its_start_to_its_end(practice: Practice) -> None:
    home = beside(practice.path)
    try:
        assert start_session(practice.path, pin, actor="mara", idle=90, lasting=7200, clock=practice.clock)
        assert not start_session(practice.path, never, actor="mara", clock=practice.clock)
        with Vault.open(practice.path, pin=never, session=True, clock=practice.clock) as vault:
            started = [entry for _, entry in vault.log.entries() if entry.action == "session.start"]
            assert [(entry.actor, entry.subject, entry.detail) for entry in started] == [
                ("mara", "doctor", {"for": 7200, "idle": 90})
            ]
    finally:
        client.lock(home, "lock")
    assert client.status(home) is None
