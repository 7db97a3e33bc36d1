"""The directory's bytes: frozen, canonical, and nothing else is taken for one."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.tokens.yubikey.directory import NOTHING, Directory, Entry, Kind, State, encode, newest, parse

KEY, OTHER = b"\xaa" * 32, b"\xbb" * 32

# Written once; docs/spec/tokens.md explains each byte. Never to be regenerated.
FROZEN = bytes.fromhex(
    "4d434401 00000007 02"
    "02 01 82 00" + "aa" * 32 + "11" + "6d65646372797074206b656b2030302031"
    "02 03 00 00" + "00" * 32 + "12" + "6d6564637279707420616e63686f72203030".replace(" ", "")
)  # fmt: skip

SLOTS, PAIRS = range(0x82, 0x96), range(32)
kinds_and_places = st.sampled_from(Kind).flatmap(
    lambda kind: st.tuples(st.just(kind), st.sampled_from(PAIRS if kind is Kind.OBJECT else SLOTS))
)
entries = st.builds(
    lambda there, **more: Entry(kind=there[0], place=there[1], **more),
    kinds_and_places,
    name=st.text(max_size=40).map(lambda text: f"medcrypt {text}"),
    state=st.sampled_from(State),
    fingerprint=st.binary(min_size=32, max_size=32),
)
directories = st.builds(Directory, st.integers(0, 2**32 - 1), st.lists(entries, max_size=20).map(tuple))


def test_the_layout_is_as_documented() -> None:
    directory = Directory(
        7, (Entry("medcrypt kek 00 1", Kind.KEK, 0x82, State.ACTIVE, KEY), Entry("medcrypt anchor 00", Kind.OBJECT, 0))
    )
    data = FROZEN + hashlib.sha256(FROZEN).digest()
    assert encode(directory) == data
    assert parse(data) == directory


@given(directories)
def test_it_reads_back(directory: Directory) -> None:
    assert parse(encode(directory)) == directory


@given(directories, st.data())
def test_anything_altered_is_none(directory: Directory, data: st.DataObject) -> None:
    stored = bytearray(encode(directory))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    assert parse(bytes(stored)) is None


@given(st.binary(max_size=200), st.booleans())
def test_strangers_bytes_are_none(stored: bytes, digest: bool) -> None:
    """With a right digest too: somebody with the management key may write what they like."""
    if digest:
        stored += hashlib.sha256(stored).digest()
    found = parse(stored)
    assert found is None or encode(found) == stored


@given(directories, st.binary(min_size=1, max_size=5))
def test_what_follows_it_is_refused(directory: Directory, more: bytes) -> None:
    body = encode(directory)[:-32] + more
    assert parse(body + hashlib.sha256(body).digest()) is None


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("state", State)
def test_an_entry_that_names_another_place_makes_it_none(kind: Kind, state: State) -> None:
    """Whoever has the management key can write one: log-on slots, the attestation key, references of PINs and keys."""
    ours = Entry("medcrypt a", Kind.KEK, 0x82)
    before = Directory(4, (ours,))
    for place in range(256):
        stored = encode(Directory(5, (ours, Entry("medcrypt b", kind, place, state, KEY))))
        if place in (PAIRS if kind is Kind.OBJECT else SLOTS):
            assert encode(newest([encode(before), stored])) == stored
        else:
            assert parse(stored) is None
            assert newest([encode(before), stored]) == before


def test_the_newest_valid_one_counts() -> None:
    older, newer = Directory(4), Directory(5, (Entry("medcrypt a", Kind.OBJECT, 0),))
    assert newest([encode(older), encode(newer)]) == newer
    assert newest([encode(older), encode(newer)[:-1]]) == older  # a write that was cut off
    assert newest([b"", b"somebody's"]) == Directory()


@pytest.mark.parametrize(
    ("state", "now", "holds", "may_be_overwritten"),
    [
        # what the entry says, what is in its slot: is its key there, and may the slot be written to?
        (State.PENDING, KEY, False, True),  # not made yet
        (State.PENDING, OTHER, True, False),  # made, and the entry not finished
        (State.PENDING, NOTHING, False, True),
        (State.ACTIVE, KEY, True, False),
        (State.ACTIVE, OTHER, False, False),  # somebody else's
        (State.ACTIVE, NOTHING, False, True),
        (State.DOOMED, KEY, True, False),  # not destroyed yet
        (State.DOOMED, OTHER, False, True),  # overwritten
        (State.DOOMED, NOTHING, False, True),  # deleted
        (State.SPENT, KEY, False, True),
        (State.SPENT, OTHER, False, False),  # somebody else's
        (State.SPENT, NOTHING, False, True),
    ],
)
def test_what_a_slot_holds_tells_how_far_its_key_came(
    state: State, now: bytes, holds: bool, may_be_overwritten: bool
) -> None:
    entry = Entry("medcrypt a", Kind.KEK, 0x82, state, KEY)
    assert (entry.holds(now), entry.may_be_overwritten(now)) == (holds, may_be_overwritten)


def test_a_pending_key_in_an_empty_slot() -> None:
    entry = Entry("medcrypt a", Kind.KEK, 0x82, State.PENDING, NOTHING)
    assert not entry.holds(NOTHING)
    assert entry.holds(KEY)
    assert not entry.may_be_overwritten(KEY)


def test_a_place_has_one_entry() -> None:
    key, data = Entry("medcrypt a", Kind.KEK, 3), Entry("medcrypt b", Kind.OBJECT, 3)
    both = Directory().with_entry(key).with_entry(data)
    assert set(both.entries) == {key, data}  # a slot and a pair of objects are different places
    again = Entry("medcrypt c", Kind.SIGNING_KEY, 3)
    assert set(both.with_entry(again).entries) == {again, data}
    assert both.without(key).entries == (data,)
    assert (both.key("medcrypt a"), both.key("medcrypt b"), both.object("medcrypt b")) == (key, None, data)
