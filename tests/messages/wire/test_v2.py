"""Version 2, against messages that another program made: tests/vectors/wire-v2.json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.wire import v2
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import decode_base64
from tests.support.checkout import VECTOR_DIRECTORY

MESSAGES = json.loads((VECTOR_DIRECTORY / "wire-v2.json").read_text("utf-8"))["messages"]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
MONTH = Month.parse("2026-11")
PAIRING = bytes.fromhex("c0ffee0123456789")
ID = bytes.fromhex("deadbeef")


def part_of(vector: dict[str, Any]) -> v2.Part:
    message_id = vector["message_id_hex"]
    return v2.Part(vector["index"], vector["count"], bytes.fromhex(message_id) if message_id else None)


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["name"])
def test_message_is_read(vector: dict[str, Any]) -> None:
    message = wire.parse(vector["wire"])
    assert isinstance(message, wire.MessageV2)
    assert message.pairing.hex() == vector["pairing_hex"]
    assert str(message.month) == vector["month"]
    assert message.sender == vector["sender"]
    assert message.part == part_of(vector)
    assert message.nonce.hex() == vector["nonce_hex"]
    assert message.aad == vector["aad"].encode()
    assert message.text == vector["wire"]
    opened = AESGCM(bytes.fromhex(vector["key_hex"])).decrypt(message.nonce, message.sealed, message.aad)
    assert opened.hex() == vector["plaintext_hex"]


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["name"])
def test_message_is_written(vector: dict[str, Any]) -> None:
    pairing, month, part = bytes.fromhex(vector["pairing_hex"]), Month.parse(vector["month"]), part_of(vector)
    nonce, plaintext = bytes.fromhex(vector["nonce_hex"]), bytes.fromhex(vector["plaintext_hex"])
    aad = v2.header(pairing, month, vector["sender"], part)
    assert aad == vector["aad"].encode()
    sealed = AESGCM(bytes.fromhex(vector["key_hex"])).encrypt(nonce, plaintext, aad)
    assert v2.encode(pairing, month, vector["sender"], part, nonce, sealed) == vector["wire"]


@pytest.mark.parametrize(("field", "ending"), [(2, ""), (5, "1.2.AAAAA"), (7, "A"), (7, "AA"), (8, "")])
def test_last_character_is_judged_as_the_strict_decoder_does(field: int, ending: str) -> None:
    """The pattern knows trailing bits by listing characters; every character agrees with decoding and re-encoding."""
    fields = v2.encode(PAIRING, MONTH, "d", v2.WHOLE, bytes(12), bytes(16))[1:-1].split(":")
    start = ending or fields[field][:-1]
    for last in ALPHABET:
        fields[field] = start + last
        try:
            decode_base64(fields[field].rpartition(".")[2], padded=False, field="field")
        except Malformed:
            with pytest.raises(Malformed):
                v2.parse("[" + ":".join(fields) + "]")
        else:
            assert v2.parse("[" + ":".join(fields) + "]").text == "[" + ":".join(fields) + "]"


@pytest.mark.parametrize(
    ("pairing", "sender", "part"),
    [
        (bytes(7), "d", v2.WHOLE),
        (PAIRING, "x", v2.WHOLE),
        (PAIRING, "dp", v2.WHOLE),
        (PAIRING, "d", v2.Part(0, 1, None)),
        (PAIRING, "d", v2.Part(2, 1, None)),
        (PAIRING, "d", v2.Part(1, 1000, ID)),
        (PAIRING, "d", v2.Part(1, 2, None)),
        (PAIRING, "d", v2.Part(1, 1, ID)),
        (PAIRING, "d", v2.Part(1, 2, ID[:3])),
    ],
)
def test_header_of_no_message_is_misuse(pairing: bytes, sender: str, part: v2.Part) -> None:
    with pytest.raises(ValueError, match=r"a pairing is|a part is|parts of one"):
        v2.header(pairing, MONTH, sender, part)


def test_longest_message_is_4000_characters() -> None:
    assert len(v2.encode(PAIRING, MONTH, "d", v2.WHOLE, bytes(12), bytes(2940 + 16))) == 4000
    with pytest.raises(ValueError, match="4,000"):
        v2.encode(PAIRING, MONTH, "d", v2.WHOLE, bytes(12), bytes(2941 + 16))


@pytest.mark.parametrize(
    ("length", "parts"),
    [(0, 1), (1, 1), (2940, 1), (2941, 2), (2 * 2934, 2), (2 * 2934 + 1, 3), (9 * 2934, 9), (9 * 2934 + 1, 10)],
)
def test_split_uses_as_few_parts_as_fit(length: int, parts: int) -> None:
    chunks = v2.split("x" * length)
    assert len(chunks) == parts
    assert b"".join(chunks) == b"x" * length


def test_split_makes_at_most_999_parts() -> None:
    #          1.999 to 9.999  10.999 to 99.999  100.999 to 999.999
    longest = 9 * 2933 + 90 * 2932 + 900 * 2931
    chunks = v2.split("x" * longest)
    assert len(chunks) == 999
    texts = [
        v2.encode(PAIRING, MONTH, "d", v2.Part(index, 999, ID), bytes(12), chunk + bytes(16))
        for index, chunk in enumerate(chunks, 1)
    ]
    assert max(map(len, texts)) <= 4000
    with pytest.raises(UsageError, match="999 parts"):
        v2.split("x" * (longest + 1))


def test_split_cuts_between_characters() -> None:
    chunks = v2.split("x" + "🩺" * 2000)
    assert [chunk.decode()[-1] for chunk in chunks] == ["🩺"] * 3


def test_half_a_character_is_refused_without_repeating_the_text() -> None:
    with pytest.raises(UsageError, match="half a character") as caught:
        v2.split("lupus \ud83e")
    assert caught.value.__context__ is None
