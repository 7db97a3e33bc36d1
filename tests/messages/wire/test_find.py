"""``find`` in whole chats, and in texts made to hurt it."""

from __future__ import annotations

import traceback

import pytest

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.wire import v1, v2
from medcrypt_hsm.month import Month

V1 = v1.encode("EXP-1", bytes(12), b"ciphertext" + bytes(16))
V2 = v2.encode(bytes(8), Month.parse("2026-11"), "d", v2.WHOLE, bytes(12), b"ciphertext" + bytes(16))
V2_HEAD = V2[: V2.index(":1.1:") + 5] + "A" * 16 + ":"


def test_messages_come_in_order_among_other_text() -> None:
    found = wire.find(f"[20/11/26, 10:31] Dra. Ruiz: {V2}\n[20/11/26, 10:32] Luc\u00eda [mamá]: {V1}{V2} gracias]")
    assert [item.text for item in found if not isinstance(item, wire.Bad)] == [V2, V1, V2]
    assert [type(item) for item in found] == [wire.MessageV2, wire.MessageV1, wire.MessageV2]


def test_malformed_message_is_reported_in_its_place() -> None:
    text = f"{V2} [MEDCRYPT:v9:x] {V1} [MEDCRYPT:v2:cut {V2} [MEDCRYPT:"
    found = wire.find(text)
    bad = [item for item in found if isinstance(item, wire.Bad)]
    assert [item.number for item in bad] == [2, 4, 6]
    assert [text[item.offset :][:13] for item in bad] == ["[MEDCRYPT:v9:", "[MEDCRYPT:v2:", "[MEDCRYPT:"]
    assert [item.error.message for item in bad] == [
        "the message's version is unknown",
        "the message is cut off: its ']' is missing",
        "the message is cut off: its ']' is missing",
    ]
    assert [item for item in found if item not in bad] == [v2.parse(V2), v1.parse(V1), v2.parse(V2)]


def test_nothing_to_find() -> None:
    assert wire.find("") == []
    assert wire.find("no message [MEDCRYPT] here, [MEDCRYPT v2:…] nor here") == []


def test_parse_allows_white_space_around() -> None:
    assert wire.parse(f"\n  {V2}\r\n") == wire.parse(V2)


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("[MEDCRYPT:" * 100_000, 10_001),
        ("[MEDCRYPT" * 110_000, 0),
        ("[" * 1_000_000, 0),
        ("[MEDCRYPT:v2:" + "]" * 1_000_000, 1),
        ("[MEDCRYPT:v1:" + "A" * 1_000_000 + "]", 1),
        ("[MEDCRYPT:v1:" + ":" * 1_000_000 + "]", 1),
        ("[MEDCRYPT:v2:" + ":" * 1_000_000 + "]", 1),
        (V2_HEAD + "A" * 1_000_000, 1),
        (V2_HEAD + "A" * 1_000_000 + ":" + "A" * 22 + "]", 1),
        (V2_HEAD * 16_000, 10_001),
        ((V2_HEAD + "A" * 1000) * 1000, 1000),
    ],
    ids=lambda value: f"{value[:24]}…" if isinstance(value, str) else str(value),
)
def test_a_hostile_megabyte_is_read_once(text: str, candidates: int) -> None:
    """Quadratic work over a megabyte would take hours, and this test would not end."""
    found = wire.find(text)
    assert len(found) == candidates
    assert all(isinstance(item, wire.Bad) for item in found)


def test_ten_thousand_messages_in_one_call() -> None:
    assert wire.find((V2 + "\n") * 10_000) == [v2.parse(V2)] * 10_000


@pytest.mark.parametrize("secret_part", ["CONFIDENCIAL", "Q09ORklERU5DSUFM", "\x1b[2J", "ñ"])
def test_errors_repeat_nothing_of_the_text(secret_part: str) -> None:
    for text in (f"[MEDCRYPT:v1:{secret_part}:a:b:c]", f"[MEDCRYPT:v2:{secret_part}:]", f"[MEDCRYPT:{secret_part}:]"):
        for item in wire.find(text):
            assert isinstance(item, wire.Bad)
            assert secret_part not in repr(item)
        with pytest.raises(Malformed) as caught:
            wire.parse(text)
        shown = "".join(traceback.format_exception_only(caught.value))
        assert secret_part not in shown
        assert secret_part not in repr(caught.value.__context__)


def test_of_more_messages_than_anybody_pastes_the_rest_is_said_to_be_unread() -> None:
    found = wire.find("[MEDCRYPT:x]" * 10_000)
    assert len(found) == 10_000
    *first, last = wire.find("[MEDCRYPT:x]" * 20_000)
    assert [bad.number for bad in first if isinstance(bad, wire.Bad)] == list(range(1, 10_001))
    assert isinstance(last, wire.Bad)
    assert (last.number, last.offset) == (10_001, 120_000)
    assert last.error.message == "there are more than 10,000 messages in this text: the rest was not read"
