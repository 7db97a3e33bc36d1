"""The contract for every ``Store``, as far as rows go: what is put comes out again, in the order that is promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from medcrypt_hsm.errors import VaultDamaged
from medcrypt_hsm.vault.store.rows import EntryRow, Location, RecordRow, SealedRow, TrustRow
from medcrypt_hsm.vault.store.store import Store, create_store

FIRST: TrustRow = ("vault", "", b'{"id":"00"}')
ONE, TWO = b"pairing1", b"pairing2"
# In the order of their UTF-8, which is neither a dictionary's nor that of UTF-16.
NAMES = (
    "",
    "1:a",
    "2",
    "A",
    "Z",
    "a",
    "a ",
    "a-b",
    "ab",
    "b",
    "z",
    "à",
    "é",
    "中",
    "\uffff",
    "\U00010000",
    "\U0001f511",
)


def entry(sequence: int, stored: bytes = b"\x01sealed") -> EntryRow:
    return EntryRow(sequence, stored, hash_of(sequence), b"t" * 32, b"s" * 32, b"g" * 64)


def hash_of(sequence: int) -> bytes:
    return sequence.to_bytes(8, "big") * 4


def record(purpose: str, pairing: bytes, month: str, sequence: int = 1, wrapped: bytes = b"wrapped") -> RecordRow:
    return RecordRow(purpose, pairing, month, sequence, wrapped, b"mac")


def sealed(purpose: str, pairing: bytes, sequence: int = 1, lookup: bytes = b"", body: bytes = b"body") -> SealedRow:
    return SealedRow(purpose, pairing, lookup, sequence, b"nonce", body)


def seen(*numbers: int, digest: int = 0) -> list[tuple[bytes, bytes]]:
    return [(number.to_bytes(16, "big"), digest.to_bytes(16, "big")) for number in numbers]


def content(store: Store) -> Sequence[Any]:
    """Everything there is in it."""
    with store.snapshot():
        rows = list(store.written())
        return store.trust_rows(), list(store.entries()), rows, sorted(store.all_seen())


class RowsContract:
    """Part of ``StoreContract`` (store_contract.py), which says how a backend joins."""

    @pytest.fixture
    def store(self, location: Location) -> Iterator[Store]:
        with closing(create_store(location, FIRST)) as store:
            yield store

    # Trust state

    def test_trust_rows_are_in_the_order_of_bytes(self, store: Store) -> None:
        wanted = [(kind, name, b"{}") for kind in ("a", "ab", "b") for name in NAMES]
        assert wanted == sorted(wanted, key=lambda row: (row[0].encode(), row[1].encode()))
        with store.transaction():
            store.delete_trust("vault", "")
            for row in reversed(wanted):
                store.put_trust(*row)
        assert store.trust_rows() == wanted

    def test_a_trust_row_is_replaced_and_taken_away(self, store: Store) -> None:
        with store.transaction():
            store.put_trust("token", "a", b"1")
            store.put_trust("token", "b", b"2")
            store.put_trust("token", "a", b"")
            store.delete_trust("token", "b")
            store.delete_trust("token", "none")
        assert store.trust_rows() == [("token", "a", b""), FIRST]

    # Entries

    def test_entries_are_in_their_sequence(self, store: Store) -> None:
        last = (1 << 63) - 1
        with store.transaction():
            for sequence in (3, 1, 300, 2, last, 20):
                store.append(entry(sequence))
        assert [row.sequence for row in store.entries()] == [1, 2, 3, 20, 300, last]
        assert [row.sequence for row in store.entries(3)] == [20, 300, last]
        assert [row.sequence for row in store.entries(last)] == []
        assert store.newest() == entry(last)
        assert store.entry(20) == entry(20)
        assert store.entry(4) is None

    def test_an_entry_is_kept_to_the_last_byte(self, store: Store) -> None:
        long = EntryRow(1, bytes(range(256)) * (1 << 14), b"", b"\x00", b"\xff" * 40, b"x")
        with store.transaction():
            store.append(long)
        assert store.entry(1) == long
        assert list(store.entries()) == [long]

    def test_no_entry_comes_over_another(self, store: Store, other: Store) -> None:
        with store.transaction():
            store.append(entry(1))

        def append_over() -> None:
            with store.transaction():
                store.put_trust("token", "doctor", b"{}")
                store.append(entry(2))
                store.append(entry(1, b"another"))

        with pytest.raises(VaultDamaged):
            append_over()
        assert content(other) == content(store) == ([FIRST], [entry(1)], [], [])

    def test_how_much_stands_after_an_entry(self, store: Store) -> None:
        assert store.stored_after(0) == 0
        with store.transaction():
            for sequence in range(1, 5):
                store.append(entry(sequence, b"x" * 10**sequence))
        assert [store.stored_after(sequence) for sequence in (0, 1, 3, 4, 9)] == [11110, 11100, 10000, 0, 0]

    def test_entries_in_the_clear_begin_with_a_zero(self, store: Store) -> None:
        stored = {1: b"\x00{}", 2: b"\x01\x00", 3: b"", 4: b"\x00", 5: b"0"}
        with store.transaction():
            for sequence in reversed(stored):
                store.append(entry(sequence, stored[sequence]))
        assert [row.sequence for row in store.clear_entries()] == [1, 4]

    def test_an_entry_is_known_by_its_hash(self, store: Store) -> None:
        with store.transaction():
            store.append(entry(1))
            assert store.has_entry_hash(hash_of(1))
        assert store.has_entry_hash(hash_of(1))
        for unknown in (hash_of(2), b"", hash_of(1)[:-1]):
            assert not store.has_entry_hash(unknown)

    def test_a_log_is_read_one_entry_at_a_time(self, store: Store) -> None:
        with store.transaction():
            for sequence in range(1, 2001):
                store.append(entry(sequence))
        entries = store.entries()
        assert next(entries).sequence == 1
        assert store.entry(2000) == entry(2000)  # another question in between
        assert sum(1 for _ in entries) == 1999

    # Records

    def test_records_are_found_and_in_the_order_of_bytes(self, store: Store) -> None:
        wanted = [
            record(purpose, pairing, month)
            for purpose in ("chain", "message", "messages")
            for pairing in (b"", b"\x00", b"a", b"\xff")
            for month in ("", "2026-11", "2026-12")
        ]
        with store.transaction():
            store.put_records(iter(wanted[::-1]))
        assert store.records() == wanted
        assert store.records("message") == wanted[12:24]
        assert store.records("message", b"a") == wanted[18:21]
        assert store.records(pairing=b"") == [row for row in wanted if row.pairing == b""]
        assert store.records("mess") == store.records("chain", b"none") == []
        assert store.record("chain", b"\x00", "2026-12") == wanted[5]
        assert store.record("chain", b"\x00", "2027-01") is None

    def test_a_record_is_replaced_and_taken_away(self, store: Store) -> None:
        with store.transaction():
            store.put_records([])
            store.put_records([record("chain", ONE, "2026-11"), record("chain", TWO, "2026-11")])
            store.put_records([record("chain", ONE, "2026-11", 2), record("chain", ONE, "2026-11", 3, b"new")])
            store.delete_record("chain", TWO, "2026-11")
            store.delete_record("chain", TWO, "2026-12")
        assert store.records() == [record("chain", ONE, "2026-11", 3, b"new")]

    # Sealed rows

    def test_sealed_rows_are_in_the_order_in_which_they_were_written(self, store: Store) -> None:
        wanted = [
            sealed("qr", TWO, 1),
            sealed("patient", ONE, 2),
            sealed("patient", TWO, 2),
            sealed("qr", ONE, 2),
            sealed("hold", b"", 3),
        ]
        with store.transaction():
            for row in wanted[::-1]:
                store.put_sealed(row)
        assert store.all_sealed() == wanted
        assert store.all_sealed("patient") == wanted[1:3]
        assert store.all_sealed("pat") == []
        assert store.sealed("qr", ONE) == wanted[3]
        assert store.sealed("qr", b"none") is None
        assert store.count_pairings() == 2

    def test_sealed_rows_are_found_by_their_lookup(self, store: Store) -> None:
        wanted = [sealed("patient", bytes([9 - number]), 1 + number // 2, b"L") for number in range(4)]
        with store.transaction():
            for row in (*wanted, sealed("patient", b"x", 1, b"other"), sealed("patient", b"y", 1, b"")):
                store.put_sealed(row)
        assert store.sealed_of(b"L") == [wanted[1], wanted[0], wanted[3], wanted[2]]
        assert store.sealed_of(b"none") == []

    # By the digits of their keys

    def test_rows_are_found_by_the_beginning_of_their_keys(self, store: Store) -> None:
        keys = [bytes([number]) for number in range(5)]
        with store.transaction():
            store.put_records(record(purpose, key, "2026-11") for key in keys for purpose in ("chain", "message"))
            store.put_records([record("message", keys[0], "2026-10")])
            for key in keys[::-1]:
                store.put_sealed(sealed("patient", key, lookup=b"L" + key if key != keys[2] else b""))
        assert store.has_tree
        assert store.record_groups() == [("chain", "2026-11"), ("message", "2026-10"), ("message", "2026-11")]
        assert store.record_groups("chain") == [("chain", "2026-11")]
        assert store.sealed_purposes() == ["patient"]
        found = store.records_between("message", "2026-11", keys[1], keys[3])
        assert [(row.purpose, row.pairing, row.month) for row in found] == [
            ("message", k, "2026-11") for k in keys[1:4]
        ]
        assert store.records_between("message", "2026-11", keys[1], keys[3], 2) == found[:2]
        assert [row.pairing for row in store.sealed_between("patient", keys[1], keys[3])] == keys[1:4]
        listed = store.lookups_between(b"", b"\xff" * 9)
        assert listed == [(b"L" + key, "patient", key) for key in keys if key != keys[2]]
        assert store.lookups_between(b"", b"\xff" * 9, 1) == listed[:1]

    def test_nodes_are_kept_by_group_and_prefix(self, store: Store) -> None:
        with store.transaction():
            store.put_nodes("one", [("", b"0"), ("a", b"1"), ("ab", b"2"), ("b", b"3")])
            store.put_nodes("two", [("a", b"4")])
            store.put_nodes("one", [("a", b"5")])
        assert store.nodes("one", ["", "a", "c"]) == {"": b"0", "a": b"5"}
        with store.transaction():
            store.delete_nodes("one", "a")
        assert store.nodes("one", ["", "a", "ab", "b"]) == {"": b"0", "b": b"3"}
        with store.transaction():
            store.delete_nodes("one", "")
        assert store.nodes("one", ["", "b"]) == {}
        assert store.nodes("two", ["a"]) == {"a": b"4"}
        with store.transaction():
            store.clear_tree()
        assert store.nodes("two", ["a"]) == {}

    def test_it_is_told_whether_reads_are_of_one_moment(self, store: Store) -> None:
        assert (store.steady, store.writing) == (False, False)
        with store.snapshot():
            assert (store.steady, store.writing) == (True, False)
        with store.transaction():
            assert (store.steady, store.writing) == (True, True)
        assert (store.steady, store.writing) == (False, False)

    def test_a_sealed_row_is_replaced_and_taken_away(self, store: Store) -> None:
        with store.transaction():
            store.put_sealed(sealed("patient", ONE, 1, b"old"))
            store.put_sealed(sealed("patient", TWO))
            store.put_sealed(sealed("patient", ONE, 5, b"new", b"new body"))
            store.delete_sealed("patient", TWO)
            store.delete_sealed("patient", b"none")
        assert store.all_sealed() == [sealed("patient", ONE, 5, b"new", b"new body")]
        assert store.sealed_of(b"old") == []
        assert store.count_pairings() == 1

    def test_what_was_written_is_told_by_key(self, store: Store) -> None:
        """Records first, each kind in the order of bytes of its key: a ledger goes along beside it."""
        records = [record("chain", TWO, "2026-11", 7), record("message", ONE, "2026-11", 2)]
        values = [sealed("hold", TWO, 9), sealed("patient", ONE, 3), sealed("patient", TWO, 1)]
        with store.transaction():
            for value in values[::-1]:
                store.put_sealed(value)
            store.put_records(records[::-1])
        assert list(store.written()) == [*records, *values]

    # Seen messages

    def test_seen_messages_are_found_among_many(self, store: Store) -> None:
        with store.transaction():
            store.put_seen(ONE, "2026-11", seen(*range(2000), digest=7))
            store.put_seen(TWO, "2026-11", seen(5000))
        asked = [nonce for nonce, _ in seen(*range(1500, 5001))]
        assert store.seen_among(ONE, "2026-11", asked) == dict(seen(*range(1500, 2000), digest=7))
        assert store.seen_among(ONE, "2026-12", asked) == store.seen_among(ONE, "2026-11", []) == {}
        assert [store.seen_count(*where) for where in ((ONE, "2026-11"), (TWO, "2026-11"), (TWO, ""))] == [2000, 1, 0]

    def test_a_seen_message_is_replaced(self, store: Store) -> None:
        with store.transaction():
            store.put_seen(ONE, "", [])
            store.put_seen(ONE, "", seen(1, 2))
            store.put_seen(ONE, "", [*seen(2, digest=3), *seen(3), *seen(3, digest=4)])
        assert store.seen_among(ONE, "", [nonce for nonce, _ in seen(1, 2, 3)]) == dict(
            [*seen(1), *seen(2, digest=3), *seen(3, digest=4)]
        )

    def test_new_ones_go_in_together_or_not_at_all(self, store: Store, other: Store) -> None:
        with store.transaction():
            assert store.put_new_seen(ONE, "2026-11", [])
            assert store.put_new_seen(ONE, "2026-11", seen(1))
            assert not store.put_new_seen(ONE, "2026-11", seen(2, 3, 1))
            assert not store.put_new_seen(ONE, "2026-11", [*seen(2), *seen(2, digest=1)])
            assert not store.put_new_seen(ONE, "2026-11", seen(1, digest=9))
            assert store.put_new_seen(TWO, "2026-11", seen(1, 2))
            assert store.put_new_seen(ONE, "2026-12", iter(seen(1)))
            store.append(entry(1))  # the transaction goes on
        expected = [(ONE, "2026-11", *seen(1)[0]), (ONE, "2026-12", *seen(1)[0])]
        expected += [(TWO, "2026-11", *row) for row in seen(1, 2)]
        assert sorted(other.all_seen()) == expected
        assert other.newest() == entry(1)

    def test_only_the_very_row_is_taken_away(self, store: Store) -> None:
        with store.transaction():
            store.put_seen(ONE, "2026-11", seen(1, 2, 3))
            store.put_seen(TWO, "2026-11", seen(1))
            store.delete_seen(ONE, "2026-11", [*seen(1), *seen(2, digest=5), *seen(4)])
            store.delete_seen(ONE, "2026-12", seen(3))
        assert sorted(store.all_seen()) == [
            *((ONE, "2026-11", *row) for row in seen(2, 3)),
            (TWO, "2026-11", *seen(1)[0]),
        ]

    def test_a_month_and_a_pairing_are_forgotten(self, store: Store) -> None:
        with store.transaction():
            for pairing in (ONE, TWO):
                for month in ("", "2026-11", "2026-12"):
                    store.put_seen(pairing, month, seen(1, 2))
            store.forget_month("2026-11")
            store.forget_pairing(TWO)
            store.forget_month("2027-01")
        assert sorted(store.all_seen()) == [(ONE, month, *row) for month in ("", "2026-12") for row in seen(1, 2)]
