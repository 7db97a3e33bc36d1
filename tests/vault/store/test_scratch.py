"""``Scratch``: rows and seen texts that are expected, in room that does not grow with the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from medcrypt_hsm.vault.store.scratch import Part, Parts, Scratch

ONE, TWO = "11" * 8, "22" * 8


ROWS = [(bytes([n]) * 16, bytes([n + 100]) * 16) for n in range(4)]


@pytest.fixture
def scratch() -> Scratch:
    made = Scratch()
    for pairing in (ONE, TWO):
        for month in ("2026-10", "2026-11", ""):
            made.put_seen(pairing, month, ROWS)
    return made


class TestScratch:
    def test_rows_by_their_newest_writer_and_in_order(self, scratch: Scratch) -> None:
        scratch.put_rows(["b", "a"], 7)
        scratch.put_rows(["c", "b"], 8)
        scratch.drop_rows(["c", "never there"])
        assert list(scratch.rows()) == [("a", 7), ("b", 8)]
        assert scratch.has_row("a")
        assert not scratch.has_row("c")
        scratch.drop_rows(["a"])
        scratch.put_rows(["b"], 9)
        assert list(scratch.rows()) == [("b", 9)]

    def test_rows_that_are_more_than_what_is_kept_in_memory(self, scratch: Scratch) -> None:
        many = [f"{number:05}" for number in range(40_000)]
        scratch.put_rows(many, 7)
        scratch.drop_rows(many[1:])
        assert list(scratch.rows()) == [("00000", 7)]

    def test_seen_texts_once(self, scratch: Scratch) -> None:
        nonce, digest = ROWS[0]
        assert scratch.take_seen(ONE, "2026-11", nonce) == digest
        assert scratch.take_seen(ONE, "2026-11", nonce) is None
        assert scratch.count_seen() == 6 * 4 - 1

    def test_a_seen_text_replaces_the_one_at_its_nonce(self, scratch: Scratch) -> None:
        nonce, digest = ROWS[0]
        scratch.put_seen(ONE, "", [(nonce, b"new")])
        scratch.drop_seen(ONE, "", [(nonce, digest)])
        assert scratch.take_seen(ONE, "", nonce) == b"new"

    def test_dropping_a_pairing(self, scratch: Scratch) -> None:
        scratch.drop_seen_of_pairing(ONE)
        assert scratch.count_seen() == 12
        assert scratch.take_seen(ONE, "2026-11", ROWS[0][0]) is None
        assert scratch.take_seen(TWO, "2026-11", ROWS[0][0]) == ROWS[0][1]

    def test_dropping_a_month(self, scratch: Scratch) -> None:
        scratch.drop_seen_of_month("2026-10")
        assert scratch.count_seen() == 16
        assert scratch.take_seen(TWO, "2026-10", ROWS[0][0]) is None
        assert scratch.take_seen(TWO, "", ROWS[0][0]) == ROWS[0][1]


class TestParts:
    """The parts of long messages, as a chat has them."""

    @pytest.fixture
    def parts(self) -> Iterator[Parts]:
        with closing(Parts()) as made:
            for number, text in enumerate(("one", "two", "three"), 1):
                made.put("message", number, text, "mara, 9:00")
            yield made

    def test_they_come_in_the_chats_order_and_no_more_than_asked_for(self, parts: Parts) -> None:
        assert [part.text for part in parts.of("message", 9)] == ["one", "two", "three"]
        assert [part.number for part in parts.of("message", 2)] == [1, 2]
        assert parts.of("another", 9) == []

    def test_a_text_that_comes_again_counts_once_where_it_came_first(self, parts: Parts) -> None:
        parts.put("message", 8, "one", "berta, 10:00")
        assert parts.of("message", 1) == [Part(1, "one", "mara, 9:00", taken=False)]

    def test_what_was_read_is_known(self, parts: Parts) -> None:
        parts.take([3])
        assert [part.taken for part in parts.of("message", 9)] == [False, False, True]
        parts.take(before=2)
        assert [part.taken for part in parts.of("message", 9)] == [True, False, True]
