"""``Unlocked.change``: what is written, the entry that tells of it, and its head; together, or nothing."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import AuditBroken, ClockBehind, Refused
from medcrypt_hsm.vault.audit.actions import HOLD_LIST, VAULT_POLICY
from medcrypt_hsm.vault.audit.trust import Policy
from medcrypt_hsm.vault.unlocked import Unlocked
from tests.support.practice import Practice, unlocked
from tests.support.store import open_at

NEW, OTHER = Policy(3, 12), Policy(5, 24)


class Stopped(BaseException):
    """Ctrl-C, to whatever is under way."""


def change_policy(opened: Unlocked, stop: BaseException) -> None:
    """As far as that: then something comes between."""
    with opened.change(VAULT_POLICY) as change:
        change.put_trust("policy", "", OTHER.value())
        raise stop


def test_everything_that_a_change_wrote_is_in_its_entry_and_signed(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        hashes: list[bytes] = []
        with opened.change(VAULT_POLICY, "días", before_commit=hashes.append) as change:
            change.put_trust("policy", "", NEW.value())
            change.detail["why"] = "the law changed"
        assert (opened.state.policy, opened.log.sequence) == (NEW, change.sequence)
        assert hashes == [opened.log.head]
        ((_, entry),) = [(at, entry) for at, entry in vault.log.entries() if at == change.sequence]
        assert (entry.action, entry.subject, entry.actor, entry.token) == (VAULT_POLICY, "días", "mara", "doctor")
        assert entry.detail["why"] == "the law changed"
        vault.log.verify()


@pytest.mark.parametrize("stop", [Stopped(), ZeroDivisionError(), ClockBehind("behind")])
def test_what_did_not_come_to_its_end_was_never_there(shared_practice: Practice, stop: BaseException) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        before = opened.state, opened.log.sequence
        with pytest.raises(type(stop)):
            change_policy(opened, stop)
        assert (opened.state, opened.log.sequence) == before
        assert opened.file.trust_rows() == open_at(shared_practice.path).trust_rows()
        vault.log.verify()


def test_a_refusal_leaves_an_entry_and_nothing_else(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        before = opened.state.policy
        with pytest.raises(Refused):
            change_policy(opened, Refused("the officer says no"))
        assert opened.state.policy == before
        assert [(entry.action, entry.outcome) for _, entry in vault.log.entries()][-2] == (VAULT_POLICY, "refused")


def test_what_another_program_wrote_is_known_before_anything_is_added(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        shared_practice.elsewhere("vault.set_policy(grace_days=4)")
        assert (opened.state.policy.grace_days != 4, opened.was_rekeyed()) == (True, False)
        opened.record(HOLD_LIST)
        assert opened.state.policy.grace_days == 4
        vault.log.verify()


def test_an_entry_that_was_exchanged_meanwhile(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        newest = opened.file.newest()
        assert newest is not None
        opened.log.chain.hash = bytes(32)  # as if what it knows were another one
        with pytest.raises(AuditBroken, match=f"audit entry {newest.sequence} was exchanged"):
            opened.record(HOLD_LIST)
        assert opened.file.newest() == newest


def test_over_a_copy_it_is_the_same_vault_with_the_copys_state(practice: Practice) -> None:
    copy = practice.copy("copy.db")
    with practice.open() as vault:
        vault.set_policy(grace_days=3)
        file = open_at(copy)
        other = unlocked(vault).over(file)
        assert (other.state.policy.grace_days, unlocked(vault).state.policy.grace_days) == (7, 3)
        assert other.keyset is unlocked(vault).keyset
        file.close()


def test_a_pairing_is_of_the_patient_whose_it_is(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        phone = shared_practice.pair(vault, "EXP-1")
        opened = unlocked(vault)
        assert opened.is_of(phone.state.pairing, "EXP-1")
        assert not opened.is_of(phone.state.pairing, "EXP-2")
        assert not opened.is_of(bytes(8), "EXP-1")
