"""``Chain`` and the values that it is made of: a copy shares nothing with what it was copied from."""

from __future__ import annotations

from typing import Any

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.entries import genesis
from medcrypt_hsm.vault.store.rows import EntryRow
from tests.support.two_readers_breakglass import Emergency

PARTS = ("signers", "rekeys", "uses")


@pytest.fixture(scope="module")
def log() -> Emergency:
    """Re-keys, ceremonies, uses for a patient and for the practice, retired tokens, a month shredded."""
    log = Emergency().ready()
    log.committed(log.doctor, log.reserve, shredded=["2026-10"])
    log.noted().rotated()
    log.open(log.other, new=log.new)
    log.recover(log.new, log.doctor, log.reserve)
    log.ceremony(log.new, reason="rotate")
    return log


def rows(log: Emergency) -> list[EntryRow]:
    return [EntryRow(*(getattr(row, column) for column in EntryRow._fields)) for row in log.rows]


def beginning(log: Emergency) -> Chain:
    return Chain(log.vault, 0, genesis(log.vault), {})


def state(told: Any) -> Any:
    """Everything in it, down to values that nobody can change."""
    if isinstance(told, dict):
        return {key: state(value) for key, value in told.items()}
    if isinstance(told, list | set):
        return type(told)(told)
    return {name: state(value) for name, value in vars(told).items()} if hasattr(told, "__dict__") else told


def test_the_log_has_something_of_everything(log: Emergency) -> None:
    chain = beginning(log)
    for row in rows(log):
        chain.extend(row, check_head=True)
    held = {f"{part}.{name}": value for part in PARTS for name, value in vars(getattr(chain, part)).items()}
    empty = [name for name, value in held.items() if value in ({}, [], None)]
    assert sorted(empty) == ["rekeys._begun", "rekeys.erased", "uses.guest", "uses.recovering", "uses.unnoted"]
    assert chain.settled == (chain.sequence, chain.hash)
    assert chain.keys == {log.new.id: log.new.spki}


def test_a_copy_that_goes_on_leaves_the_other_where_it_stands(log: Emergency) -> None:
    chain = beginning(log)
    for at, row in enumerate(rows(log)):
        before, ahead = state(chain), chain.copy()
        assert state(ahead) == before
        for later in rows(log)[at:]:
            ahead.extend(later, check_head=False)
        assert ahead.sequence == len(log.rows)
        assert state(chain) == before
        chain.extend(row, check_head=True)


def test_no_value_that_can_change_is_in_both(log: Emergency) -> None:
    chain = beginning(log)
    for row in rows(log):
        chain.extend(row, check_head=False)
    other = chain.copy()
    for part in PARTS:
        assert getattr(other, part) is not getattr(chain, part)
        for name, value in vars(getattr(chain, part)).items():
            if isinstance(value, dict | list | set):
                assert vars(getattr(other, part))[name] is not value, f"{part}.{name}"


def test_what_was_refused_on_a_copy_is_refused_again(log: Emergency) -> None:
    chain, found = beginning(log), rows(log)
    for row in found[:-1]:
        chain.extend(row, check_head=True)
    before = state(chain)
    for _ in range(2):
        with pytest.raises(AuditBroken):
            chain.copy().extend(found[-1]._replace(signature=bytes(64)), check_head=True)
        assert state(chain) == before
    chain.extend(found[-1], check_head=True)
