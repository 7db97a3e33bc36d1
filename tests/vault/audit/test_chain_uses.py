"""``Uses``: what the log told of break-glass, step by step. Its faults, for two readers: two_readers/test_uses.py."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.chain_uses import NeedsWholeLog, Uses
from medcrypt_hsm.vault.audit.entries import genesis
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.store.rows import EntryRow
from tests.support.two_readers_breakglass import Emergency


def rows(log: Emergency) -> list[EntryRow]:
    return [EntryRow(*(getattr(row, column) for column in EntryRow._fields)) for row in log.rows]


def followed(log: Emergency) -> Chain:
    chain = Chain(log.vault, 0, genesis(log.vault), {})
    for row in rows(log):
        chain.extend(row, check_head=True)
    return chain


def test_a_ceremony_makes_custodians_and_the_next_one_old_shares() -> None:
    log = Emergency().ready()
    uses = followed(log).uses
    assert uses.custody is not None
    assert (list(uses.custody.told), uses.custody.threshold) == (["anna", "ben", "carla"], 2)
    first = uses.custody.ceremony
    log.rotated()
    assert sorted(followed(log).uses.old_shares) == [(first, name) for name in ("anna", "ben", "carla")]


def test_a_use_for_one_patient_is_noted_and_answered() -> None:
    log = Emergency().ready().used()
    uses = followed(log).uses
    assert uses.guest is not None
    assert (uses.guest.id, uses.guest.spki) == (log.who.id, log.who.spki)
    (use,) = uses.unnoted.values()
    assert (use.scope, use.phase, use.answered) == ("patient", "done", "")
    log.sealed(log.doctor)  # a registered token's next entry ends the guest's run, and vouches for it
    uses = followed(log).uses
    assert (uses.guest, uses.unnoted, list(uses.noted.values())) == (None, {}, [use])
    log.rotated()
    assert [use.answered != "" for use in followed(log).uses.noted.values()] == [True]


def test_a_recovery_is_open_until_its_rekey() -> None:
    log = Emergency().ready().practice()
    uses = followed(log).uses
    assert list(uses.recovering.values()) == [log.new.id]
    log.recover(log.new, log.doctor, log.reserve)
    uses = followed(log).uses
    assert (uses.recovering, [use.phase for use in uses.noted.values()]) == ({}, ["done"])


def test_a_guest_changes_nothing_and_has_until_the_request_ends() -> None:
    log = Emergency().ready().used()
    chain = followed(log)
    guest = chain.guest
    assert guest is not None
    row = rows(log)[-1]
    Uses.check_guest(guest, row, None, row.trust)
    with pytest.raises(AuditBroken, match="is of a guest, who may not write it") as caught:
        Uses.check_guest(guest, row, None, bytes(32))
    assert caught.value.at == row.sequence
    guest.check_time(guest.request.told.expires)
    with pytest.raises(BreakGlassRefused, match="BG-4"):
        guest.check_time("2026-12-31T00:00:00Z")


def test_no_first_ceremony_where_there_was_one() -> None:
    uses = Uses(whole=True)
    uses.check_reason("ceremony")
    for reason in ("rotate", "replace"):
        with pytest.raises(ValueError, match="another where there was none"):
            uses.check_reason(reason)
    with pytest.raises(ValueError, match="a first ceremony where there was one"):
        followed(Emergency().ready()).uses.check_reason("ceremony")


def test_a_walk_that_began_after_the_ceremony_cannot_judge_a_use() -> None:
    log = Emergency().ready()
    before = followed(log)
    log.open(log.who)
    with pytest.raises(NeedsWholeLog):
        Chain(log.vault, before.sequence, before.hash, before.keys).extend(rows(log)[-1], check_head=True)
