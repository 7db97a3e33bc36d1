"""``Scratch``: rows and seen texts that are expected, in room that does not grow with the log."""

from __future__ import annotations

import pytest

from medcrypt_hsm.vault.store.scratch import Scratch

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
