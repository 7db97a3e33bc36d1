"""The audit chain over logs of random shape, signed with software keys: no altered, missing or moved entry passes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.store.rows import EntryRow
from tests.support.vault_builder import SoftToken, VaultBuilder

FIRST, SECOND = SoftToken("doctor"), SoftToken("reserve")
COLUMNS = ("stored", "hash", "trust", "signer", "signature")


@dataclass
class Log:
    builder: VaultBuilder

    @property
    def rows(self) -> list[EntryRow]:
        return [EntryRow(r.sequence, r.stored, r.hash, r.trust, r.signer, r.signature) for r in self.builder.rows]

    def verify(self, rows: list[EntryRow]) -> Chain:
        vault = self.builder.vault
        chain = Chain(vault, 0, entries.genesis(vault), {})
        for row in rows:
            chain.extend(row, check_head=True)
        return chain


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """A first introduction, then any entries and re-keys by either token; the second is introduced somewhere."""
    builder = VaultBuilder()
    builder.introduce(FIRST, FIRST)
    for _ in range(draw(st.integers(0, 3))):
        builder.sealed(FIRST)
    builder.introduce(SECOND, FIRST)
    for token, rekeys in draw(
        st.lists(st.tuples(st.sampled_from([FIRST, SECOND]), st.booleans()), min_size=1, max_size=5)
    ):
        if rekeys:
            builder.rekey(token, FIRST, SECOND)
        else:
            builder.sealed(token)
    return Log(builder)


def places(draw: st.DrawFn, log: Log) -> int:
    return draw(st.integers(0, len(log.rows) - 1))


@settings(deadline=None, max_examples=30)
@given(logs())
def test_an_honest_log_verifies(log: Log) -> None:
    chain = log.verify(log.rows)
    assert (chain.sequence, chain.hash) == (len(log.rows), log.rows[-1].hash)
    assert set(chain.keys) == {FIRST.id, SECOND.id}
    assert chain.rekeys.generation == log.builder.generation


@settings(deadline=None, max_examples=30)
@given(logs(), st.data())
def test_nothing_that_a_retired_token_signs_counts(log: Log, data: st.DataObject) -> None:
    gone, other = data.draw(st.permutations([FIRST, SECOND]))
    log.builder.rekey(other, retire=(gone,))
    assert set(log.verify(log.rows).keys) == {other.id}
    log.builder.sealed(gone)
    with pytest.raises(AuditBroken):
        log.verify(log.rows)


@settings(deadline=None, max_examples=200)
@given(logs(), st.data())
def test_any_flipped_bit(log: Log, data: st.DataObject) -> None:
    rows = log.rows
    at = places(data.draw, log)
    column = data.draw(st.sampled_from(COLUMNS))
    value = bytearray(getattr(rows[at], column))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    rows[at] = rows[at]._replace(**{column: bytes(value)})
    with pytest.raises(AuditBroken) as caught:
        log.verify(rows)
    assert caught.value.at == at + 1


@settings(deadline=None, max_examples=60)
@given(logs(), st.data())
def test_any_flipped_bit_with_every_hash_made_again(log: Log, data: st.DataObject) -> None:
    """Hashes need no key, signatures do."""
    at = places(data.draw, log)
    row = log.builder.rows[at]
    column = data.draw(st.sampled_from(["stored", "trust", "signer"]))
    value = bytearray(getattr(row, column))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    setattr(row, column, bytes(value))
    log.builder.rehash(at + 1)
    with pytest.raises(AuditBroken) as caught:
        log.verify(log.rows)
    assert caught.value.at == at + 1


@settings(deadline=None, max_examples=40)
@given(logs(), st.data())
def test_any_missing_entry_but_the_last_ones(log: Log, data: st.DataObject) -> None:
    rows = log.rows
    at = data.draw(st.integers(0, len(rows) - 2))
    del rows[at]
    with pytest.raises(AuditBroken):
        log.verify(rows)
    renumbered = [row._replace(sequence=number) for number, row in enumerate(rows, 1)]
    with pytest.raises(AuditBroken):
        log.verify(renumbered)


@settings(deadline=None, max_examples=40)
@given(logs(), st.data())
def test_any_two_entries_swapped(log: Log, data: st.DataObject) -> None:
    rows = log.rows
    one, other = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=2, max_size=2, unique=True))
    rows[one], rows[other] = (
        rows[other]._replace(sequence=one + 1),
        rows[one]._replace(sequence=other + 1),
    )
    with pytest.raises(AuditBroken):
        log.verify(rows)


@settings(deadline=None, max_examples=40)
@given(logs(), st.data())
def test_an_entry_more(log: Log, data: st.DataObject) -> None:
    """By a key that was never introduced, under any name, or a copy of one that is there."""
    stranger = SoftToken("stranger")
    claims = data.draw(st.sampled_from([stranger.id, FIRST.id, SECOND.id]))
    log.builder.append(log.rows[-1].stored, stranger, claims=claims)
    with pytest.raises(AuditBroken):
        log.verify(log.rows)


@settings(deadline=None, max_examples=40)
@given(logs(), st.data())
def test_a_chain_that_starts_at_an_anchor_ends_where_the_whole_one_does(log: Log, data: st.DataObject) -> None:
    rows = log.rows
    at = data.draw(st.integers(1, len(rows)))
    whole = log.verify(rows[:at])
    chain = Chain(log.builder.vault, at, whole.hash, whole.keys)
    for row in rows[at:]:
        chain.extend(row, check_head=row is rows[-1])
    assert (chain.sequence, chain.hash, chain.keys) == (len(rows), rows[-1].hash, log.verify(rows).keys)


@settings(deadline=None, max_examples=40)
@given(logs(), st.data())
def test_the_newest_head_vouches_for_those_that_were_not_looked_at(log: Log, data: st.DataObject) -> None:
    """What an unlock does: hashes of all, signature of the newest and of introductions."""
    rows = log.rows
    assume(len(rows) > 3)
    at = data.draw(st.integers(1, len(rows) - 2))
    column = data.draw(st.sampled_from(["stored", "hash", "trust", "signer"]))
    value = bytearray(getattr(rows[at], column))
    value[-1] ^= 1
    rows[at] = rows[at]._replace(**{column: bytes(value)})
    chain = Chain(log.builder.vault, 0, entries.genesis(log.builder.vault), {FIRST.id: FIRST.spki})

    def unlock() -> None:
        for row in rows:
            chain.extend(row, check_head=row is rows[-1])

    with pytest.raises(AuditBroken):
        unlock()
