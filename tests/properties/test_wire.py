"""What holds for every message, every text and every single-character change."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.wire import v1, v2
from medcrypt_hsm.messages.wire.pairing import PairingPayload
from medcrypt_hsm.messages.wire.parts import group_parts, join
from medcrypt_hsm.month import Month

months = st.builds(Month, st.integers(0, 1199))
nonces = st.binary(min_size=12, max_size=12)
sealed_texts = st.binary(min_size=16, max_size=80)
characters = st.characters(exclude_categories=["Cs"])
patient_ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=32)


@st.composite
def parts(draw: st.DrawFn) -> v2.Part:
    count = draw(st.integers(1, 999))
    if count == 1:
        return v2.WHOLE
    return v2.Part(draw(st.integers(1, count)), count, draw(st.binary(min_size=4, max_size=4)))


v1_fields = st.tuples(patient_ids, nonces, sealed_texts)
v2_fields = st.tuples(
    st.binary(min_size=8, max_size=8),
    months,
    st.sampled_from("dp"),
    parts(),
    nonces,
    st.binary(min_size=16, max_size=80),
)
wire_texts = st.one_of(
    v1_fields.map(lambda fields: v1.encode(*fields)),
    v2_fields.map(lambda fields: v2.encode(*fields)),
)
payloads = st.builds(
    PairingPayload,
    st.binary(min_size=8, max_size=8),
    months,
    st.timedeltas(timedelta(0), timedelta(days=2_900_000)).map(lambda since: datetime(2000, 1, 1, tzinfo=UTC) + since),
    st.binary(min_size=32, max_size=32),
)


@st.composite
def mutations(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> tuple[str, str]:
    """A text, and the same with one character changed, removed or added."""
    text = draw(texts)
    place = draw(st.integers(0, len(text) - 1))
    new = draw(st.one_of(st.sampled_from(string.printable), st.characters(), st.just("")))
    mutated = text[:place] + new + text[place + draw(st.integers(0, 1)) :]
    assume(mutated != text)
    return text, mutated


def encoded(message: wire.Message) -> str:
    """The wire text from the message's fields alone."""
    if isinstance(message, wire.MessageV1):
        return v1.encode(message.patient_id, message.nonce, message.sealed)
    return v2.encode(message.pairing, message.month, message.sender, message.part, message.nonce, message.sealed)


@given(v1_fields)
def test_v1_round_trip(fields: tuple[str, bytes, bytes]) -> None:
    message = v1.parse(v1.encode(*fields))
    assert (message.patient_id, message.nonce, message.sealed) == fields
    assert encoded(message) == message.text


@given(v2_fields)
def test_v2_round_trip(fields: tuple[bytes, Month, str, v2.Part, bytes, bytes]) -> None:
    message = v2.parse(v2.encode(*fields))
    assert message[:-1] == fields
    assert message.aad == v2.header(*fields[:4])
    assert encoded(message) == message.text


@given(payloads)
def test_payload_round_trip(payload: PairingPayload) -> None:
    assert PairingPayload.parse(payload.encode()) == payload


@settings(max_examples=1000, deadline=None)
@given(mutations(wire_texts))
def test_one_changed_character_is_malformed_or_another_message(texts: tuple[str, str]) -> None:
    text, mutated = texts
    assume(mutated == mutated.strip())  # white space around a message is no part of it
    try:
        message = wire.parse(mutated)
    except Malformed:
        return
    assert message != wire.parse(text)
    assert encoded(message) == message.text == mutated


@settings(max_examples=500, deadline=None)
@given(mutations(payloads.map(lambda payload: payload.encode())))
def test_one_changed_character_is_malformed_or_another_payload(texts: tuple[str, str]) -> None:
    text, mutated = texts
    try:
        payload = PairingPayload.parse(mutated)
    except Malformed:
        return
    assert payload != PairingPayload.parse(text)
    assert payload.encode() == mutated


def candidates(text: str) -> list[tuple[int, str]]:
    """The spec's "Finding messages in a text", word by word and without a pattern."""
    found = []
    start = text.find("[MEDCRYPT:")
    while start >= 0:
        end = start + 1
        while end < len(text) and text[end] not in "[]":
            end += 1
        found.append((start, text[start : end + 1] if text[end : end + 1] == "]" else text[start:end]))
        start = text.find("[MEDCRYPT:", end)
    return found


fragments = st.one_of(
    st.text(st.characters()),
    st.sampled_from(
        ["[MEDCRYPT:", "[MEDCRYPT", "v1:", "v2:", "v3:", ":", "]", "[", "=", "1.1", "2026-11", "d", "AAAA"]
    ),
    wire_texts,
    mutations(wire_texts).map(lambda texts: texts[1]),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(fragments, max_size=20).map("".join))
def test_find_agrees_with_the_spec_on_any_text(text: str) -> None:
    found = wire.find(text)
    expected = candidates(text)
    assert len(found) == len(expected)
    for number, (item, (offset, candidate)) in enumerate(zip(found, expected, strict=True), 1):
        if isinstance(item, wire.Bad):
            assert (item.number, item.offset) == (number, offset)
            with pytest.raises(Malformed) as caught:
                wire.parse(candidate)
            assert item.error.message == caught.value.message
        else:
            assert item == wire.parse(candidate)
            assert item.text == candidate


@given(st.text())
def test_find_never_raises(text: str) -> None:
    wire.find(text)
    wire.find("[MEDCRYPT:" + text)
    wire.find("[MEDCRYPT:v1:" + text + "]")
    wire.find("[MEDCRYPT:v2:" + text + "]")


@st.composite
def long_texts(draw: st.DrawFn) -> str:
    """Up to some twenty parts, characters of one to four bytes meeting the cuts at every offset."""
    return draw(st.text(characters, max_size=50)) * draw(st.integers(1, 500)) + draw(st.text(characters, max_size=50))


@settings(deadline=None)
@given(long_texts(), st.randoms(use_true_random=False))
def test_split_then_join_is_the_text(plaintext: str, random: Random) -> None:
    chunks = v2.split(plaintext)
    count = len(chunks)
    messages = []
    for index, chunk in enumerate(chunks, 1):
        part = v2.WHOLE if count == 1 else v2.Part(index, count, b"same")
        text = v2.encode(b"pairing.", Month(322), "d", part, bytes(12), chunk + bytes(16))
        assert len(text) <= 4000
        chunk.decode()  # a cut lies between characters
        if index < count:
            # As long as fits: the next character would not have.
            following = chunks[index].decode()[0].encode()
            wider = (len(chunk + following) * 4 + 2) // 3 - (len(chunk) * 4 + 2) // 3
            assert len(text) + wider > 4000
        messages.append(v2.parse(text))
    random.shuffle(messages)
    (group,) = group_parts(messages)
    assert join(group, dict(enumerate(chunks, 1))) == plaintext


def test_expiry_is_carried_to_the_last_minute_of_the_calendar() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    payload = PairingPayload(bytes(8), Month(1199), last, bytes(32))
    assert PairingPayload.parse(payload.encode()) == payload
    assert last - payload.expiry < timedelta(minutes=1)
