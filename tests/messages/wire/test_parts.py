"""Parts arrive in any order, twice, or not at all."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import Incomplete, Malformed
from medcrypt_hsm.messages.wire import MessageV2, Part, v2
from medcrypt_hsm.messages.wire.parts import group_parts, join
from medcrypt_hsm.month import Month

MONTH = Month.parse("2026-11")
ID = bytes.fromhex("deadbeef")


def message(
    part: Part, content: bytes = b"", *, month: Month = MONTH, sender: str = "d", pairing: int = 1
) -> MessageV2:
    text = v2.encode(bytes([pairing] * 8), month, sender, part, bytes(12), content + bytes(16))
    return v2.parse(text)


def test_parts_join_in_any_order() -> None:
    (group,) = group_parts([message(Part(3, 3, ID)), message(Part(1, 3, ID)), message(Part(2, 3, ID))])
    assert group.present == (1, 2, 3)
    assert group.missing == ()
    # Cut inside a character: this program does not cut there, another one may.
    assert join(group, {2: b"\xb3n ", 1: b"Evoluci\xc3", 3: b"buena"}) == "Evolución buena"


def test_missing_parts_are_named() -> None:
    (group,) = group_parts([message(Part(2, 4, ID))])
    assert group.missing == (1, 3, 4)
    with pytest.raises(Incomplete, match="part 1, 3, 4 of 4 is missing"):
        join(group, {2: b"text"})


def test_many_missing_parts_are_counted() -> None:
    (group,) = group_parts([message(Part(999, 999, ID))])
    with pytest.raises(Incomplete, match="part 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 988 more of 999 is missing"):
        group.check()


def test_part_that_could_not_be_read_spoils_the_whole() -> None:
    (group,) = group_parts([message(Part(1, 2, ID)), message(Part(2, 2, ID))])
    with pytest.raises(Incomplete, match="part 2 of 2 could not be read"):
        join(group, {1: b"text"})


def test_same_part_twice_counts_once() -> None:
    first, second = message(Part(1, 2, ID)), message(Part(2, 2, ID))
    (group,) = group_parts([first, second, first, second])
    assert group.parts == (first, second)
    assert join(group, {1: b"a", 2: b"b"}) == "ab"


def test_part_that_came_twice_with_other_bytes_is_malformed() -> None:
    parts = [message(Part(1, 2, ID), b"x"), message(Part(2, 2, ID)), message(Part(1, 2, ID), b"y")]
    (group,) = group_parts(parts)
    assert group.conflicting == (1,)
    assert group.parts == (parts[0], parts[1])
    with pytest.raises(Malformed, match="part 1 of 2 came twice with different content"):
        join(group, {1: b"a", 2: b"b"})


@pytest.mark.parametrize(
    "other",
    [
        message(Part(2, 2, bytes(4))),
        message(Part(2, 3, ID)),
        message(Part(2, 2, ID), sender="p"),
        message(Part(2, 2, ID), month=MONTH + 1),
        message(Part(2, 2, ID), pairing=2),
    ],
    ids=["message id", "count", "sender", "month", "pairing"],
)
def test_parts_of_different_messages_stay_apart(other: MessageV2) -> None:
    assert [group.present for group in group_parts([message(Part(1, 2, ID)), other])] == [(1,), (2,)]


def test_whole_messages_are_groups_of_their_own() -> None:
    whole = message(v2.WHOLE)
    first, page, again = group_parts([whole, message(Part(1, 2, ID)), whole])
    assert first == again
    assert first.message_id is None
    assert join(first, {1: "sí".encode()}) == "sí"
    assert page.missing == (2,)


def test_content_that_is_not_text_is_malformed_without_repeating_it() -> None:
    (group,) = group_parts([message(v2.WHOLE)])
    with pytest.raises(Malformed, match="not UTF-8") as caught:
        join(group, {1: b"lupus \xff"})
    assert caught.value.__context__ is None
