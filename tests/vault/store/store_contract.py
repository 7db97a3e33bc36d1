"""One contract for every ``Store``: what vault/store/store.py promises, method by method.

A backend joins with a file of its own: a subclass of ``StoreContract`` beside a fixture ``location``, which names a
place for a vault where none is yet. Everything here goes through the protocol and the functions that open a store; what
only one backend can show, such as what it does with a file that was tampered with, is in that backend's file.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.errors import MedcryptError, VaultBusy, VaultDamaged, VaultError, VaultMissing
from medcrypt_hsm.vault.store.rows import EntryRow, Location, RecordRow, SealedRow, TrustRow
from medcrypt_hsm.vault.store.store import Store, create_store, open_draft, open_store, remove_store
from tests.support.checkout import ROOT

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


# name: one write of each kind, into a store that has none of them
WRITES: dict[str, Callable[[Store], object]] = {
    "put_trust": lambda store: store.put_trust("token", "doctor", b"{}"),
    "delete_trust": lambda store: store.delete_trust("vault", ""),
    "append": lambda store: store.append(entry(1)),
    "put_records": lambda store: store.put_records([record("chain", ONE, "2026-11")]),
    "delete_record": lambda store: store.delete_record("kept", ONE, "2026-11"),
    "put_sealed": lambda store: store.put_sealed(sealed("patient", ONE)),
    "delete_sealed": lambda store: store.delete_sealed("kept", ONE),
    "put_seen": lambda store: store.put_seen(ONE, "2026-11", seen(1)),
    "put_new_seen": lambda store: store.put_new_seen(ONE, "2026-11", seen(2)),
    "delete_seen": lambda store: store.delete_seen(TWO, "2026-10", seen(9)),
    "forget_month": lambda store: store.forget_month("2026-10"),
    "forget_pairing": lambda store: store.forget_pairing(TWO),
    "write_nothing": lambda store: store.write_nothing(),
}

_WRITE_AND_DIE = """
import os, sys
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
store = open_store(Location.parse(sys.argv[1]))
with store.transaction():
    store.put_trust("token", "doctor", b"{}")
    store.put_seen(b"pairing1", "2026-11", [(bytes(16), bytes(16))])
    os.kill(os.getpid(), 9)
"""


class Stop(BaseException):
    """What a person's Ctrl-C is to a transaction."""


def content(store: Store) -> Sequence[Any]:
    """Everything there is in it."""
    with store.snapshot():
        rows = list(store.written())
        return store.trust_rows(), list(store.entries()), rows, sorted(store.all_seen())


class StoreContract:
    """Subclass it beside a ``location`` fixture, and every test below runs on that backend."""

    @pytest.fixture
    def store(self, location: Location) -> Iterator[Store]:
        with closing(create_store(location, FIRST)) as store:
            yield store

    @pytest.fixture
    def other(self, store: Store) -> Iterator[Store]:
        """The same vault as another command has it, which does not wait for long."""
        with closing(open_store(store.location, busy_seconds=0.05)) as other:
            yield other

    @pytest.fixture
    def full(self, store: Store) -> Store:
        """With something of every kind that ``WRITES`` takes away."""
        with store.transaction():
            store.put_records([record("kept", ONE, "2026-11")])
            store.put_sealed(sealed("kept", ONE))
            store.put_seen(TWO, "2026-10", seen(9))
        return store

    @pytest.fixture
    def backup(self, full: Store, tmp_path: Path) -> Iterator[Store]:
        """A copy of it, from before whatever the test does."""
        target = Location.parse(tmp_path / "backup")
        full.copy_to(target)
        with closing(open_store(target, in_use=False)) as backup:
            yield backup

    # Opening and making

    def test_where_there_is_none(self, location: Location) -> None:
        for in_use in (True, False):
            with pytest.raises(VaultMissing):
                open_store(location, in_use=in_use)
        remove_store(location)
        with pytest.raises(VaultMissing):
            open_store(location)

    def test_a_new_one_holds_its_first_row(self, store: Store, location: Location) -> None:
        assert store.location == location
        assert content(store) == ([FIRST], [], [], [])
        assert store.newest() is None

    def test_none_is_made_over_another(self, full: Store) -> None:
        before = content(full)
        with pytest.raises(VaultError, match="already"):
            create_store(full.location, ("vault", "", b"another"))
        assert content(full) == before

    def test_what_was_committed_is_there_again(self, full: Store) -> None:
        before = content(full)
        full.close()
        full.close()
        for in_use in (True, False):
            with closing(open_store(full.location, in_use=in_use)) as again:
                assert content(again) == before

    def test_one_that_was_removed_is_gone(self, full: Store) -> None:
        full.close()
        remove_store(full.location)
        with pytest.raises(VaultMissing):
            open_store(full.location)
        with closing(create_store(full.location, FIRST)) as new:
            assert content(new) == ([FIRST], [], [], [])

    def test_its_surroundings_are_those_of_its_name(self, store: Store) -> None:
        with store.surroundings.alone(), pytest.raises(VaultBusy), store.surroundings.alone():
            pass
        assert store.surroundings.vault_exists
        assert not store.surroundings.notes.pending()

    # Transactions

    def test_everything_is_committed(self, full: Store, other: Store) -> None:
        with full.transaction():
            for write in WRITES.values():
                write(full)
            assert (full.newest(), full.seen_count(ONE, "2026-11")) == (entry(1), 2)
        trust, entries, rows, texts = content(other)
        assert trust == [("token", "doctor", b"{}")]
        assert entries == [entry(1)]
        assert rows == [record("chain", ONE, "2026-11"), sealed("patient", ONE)]
        assert texts == [(ONE, "2026-11", *row) for row in seen(1, 2)]

    @pytest.mark.parametrize("stop", [Stop(), MedcryptError("no"), ValueError()], ids=["Ctrl-C", "refusal", "mistake"])
    def test_nothing_is_committed_if_the_block_raises(self, full: Store, other: Store, stop: BaseException) -> None:
        before = content(full)

        def write_and_stop() -> None:
            with full.transaction():
                for write in WRITES.values():
                    write(full)
                raise stop

        with pytest.raises(type(stop)):
            write_and_stop()
        assert content(full) == content(other) == before
        with full.transaction():
            full.put_trust("token", "doctor", b"{}")
        assert len(other.trust_rows()) == 2

    def test_nothing_is_committed_by_who_is_killed(self, full: Store) -> None:
        before = content(full)
        command = [sys.executable, "-c", _WRITE_AND_DIE, str(full.location)]
        assert subprocess.run(command, cwd=ROOT).returncode == -9
        assert content(full) == before
        with full.transaction():  # and nothing of it is in the way
            full.append(entry(1))

    @pytest.mark.parametrize("write", WRITES)
    def test_a_write_outside_is_misuse(self, full: Store, write: str) -> None:
        before = content(full)
        with pytest.raises(RuntimeError):
            WRITES[write](full)
        with full.transaction():
            pass
        with pytest.raises(RuntimeError):
            WRITES[write](full)
        with full.snapshot(), pytest.raises(RuntimeError):
            WRITES[write](full)
        assert content(full) == before

    def test_one_writes_at_a_time(self, store: Store, other: Store) -> None:
        with store.transaction():
            store.append(entry(1))
            with pytest.raises(VaultBusy, match="busy"), other.transaction():
                raise AssertionError("two write")
        with other.transaction():
            other.append(entry(2))
        assert [row.sequence for row in store.entries()] == [1, 2]

    def test_who_waited_sees_what_the_others_wrote(self, store: Store) -> None:
        """However old the look is that it had before: a change builds on the newest head, or the log forks."""
        found: list[int] = []
        waiting = threading.Event()

        def write() -> None:
            with closing(open_store(store.location, busy_seconds=60)) as late:
                assert late.newest() is None
                waiting.set()
                with late.transaction():
                    newest = late.newest()
                    assert newest is not None
                    found.append(newest.sequence)
                    late.append(entry(newest.sequence + 1))

        thread = threading.Thread(target=write)
        with store.transaction():
            thread.start()
            assert waiting.wait(60)
            store.append(entry(1))
        thread.join(60)
        assert found == [1]
        assert [row.sequence for row in store.entries()] == [1, 2]

    def test_readers_see_nothing_of_it_before_its_end(self, store: Store, other: Store) -> None:
        with store.transaction():
            store.put_trust("token", "doctor", b"{}")
            store.append(entry(1))
            assert len(store.trust_rows()) == 2
            assert (other.newest(), len(other.trust_rows())) == (None, 1)
        assert (other.newest(), len(other.trust_rows())) == (entry(1), 2)

    def test_a_write_that_changes_nothing(self, full: Store, other: Store) -> None:
        before = content(full)
        with full.transaction():
            full.write_nothing()
        assert content(full) == content(other) == before

    # Snapshots

    def test_a_snapshot_is_of_one_moment(self, full: Store, other: Store) -> None:
        before = content(other)
        with other.snapshot():
            assert other.newest() is None
            with full.transaction():
                for write in WRITES.values():
                    write(full)
            assert (other.newest(), other.trust_rows(), list(other.entries())) == (None, before[0], [])
            assert list(other.written()) == before[2]
            assert sorted(other.all_seen()) == before[3]
        assert other.newest() == entry(1)

    def test_a_snapshot_ends_with_what_stopped_it(self, store: Store) -> None:
        with pytest.raises(Stop), store.snapshot():
            raise Stop
        with store.transaction():
            store.append(entry(1))

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

    # As a whole

    def test_a_copy_is_a_file_with_everything_in_it(self, full: Store, other: Store, tmp_path: Path) -> None:
        target = tmp_path / "copy"
        with full.transaction():
            full.append(entry(1))
        before = content(full)
        with full.transaction():
            full.put_trust("token", "doctor", b"not committed yet")
            other.copy_to(Location.parse(target))
        assert target.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == ["copy"]
        with closing(open_store(Location.parse(target), in_use=False)) as copy:
            copy.check_integrity()
            assert content(copy) == before
        with full.transaction():
            full.append(entry(2))
        with closing(open_store(Location.parse(target), in_use=False)) as copy:
            assert content(copy) == before

    def test_a_copy_comes_over_nothing(self, full: Store, tmp_path: Path) -> None:
        target = tmp_path / "copy"
        target.write_bytes(b"precious")
        with pytest.raises(FileExistsError):
            full.copy_to(Location.parse(target))
        assert target.read_bytes() == b"precious"

    def test_it_is_whole(self, full: Store) -> None:
        full.check_integrity()

    def test_compacting_changes_nothing(self, full: Store, other: Store) -> None:
        with full.transaction():
            full.put_seen(ONE, "2026-11", seen(*range(1000)))
        with full.transaction():
            full.forget_month("2026-11")
        before = content(full)
        full.compact()
        assert content(full) == content(other) == before

    def test_compacting_waits_for_readers_and_gives_up(self, full: Store, other: Store) -> None:
        before = content(full)
        with full.snapshot():
            full.trust_rows()
            with pytest.raises(VaultBusy):
                other.compact()
        other.compact()
        assert content(full) == before

    # Drafts

    def test_a_draft_is_a_copy_of_its_own(self, full: Store, backup: Store, location: Location) -> None:
        before = content(full)
        with closing(open_draft(location, backup)) as draft:
            assert content(draft) == before
            with draft.transaction():
                draft.append(entry(1))
            assert draft.newest() == entry(1)
            assert content(full) == content(backup) == before
            draft.discard()
        assert content(full) == before

    def test_a_draft_takes_anothers_place(self, full: Store, backup: Store, location: Location) -> None:
        old = content(full)
        with full.transaction():
            full.append(entry(1, b"will be lost"))
        full.close()
        shown: list[EntryRow | None] = []
        draft = open_draft(location, backup)
        with draft.transaction():
            draft.append(entry(1, b"the restore"))
        draft.take_place(shown.append)
        assert shown == [entry(1, b"will be lost")]
        with closing(open_store(location)) as new:
            assert content(new) == (old[0], [entry(1, b"the restore")], *old[2:])
            new.check_integrity()
            with new.transaction():
                new.append(entry(2))

    def test_a_draft_takes_an_empty_place(self, full: Store, backup: Store, location: Location) -> None:
        old = content(full)
        full.close()
        remove_store(location)
        shown: list[EntryRow | None] = []
        open_draft(location, backup).take_place(shown.append)
        assert shown == []
        with closing(open_store(location)) as new:
            assert content(new) == old

    def test_whoever_looks_may_stop_it(self, full: Store, backup: Store, location: Location) -> None:
        with full.transaction():
            full.append(entry(1))
        before = content(full)
        full.close()

        def stop(newest: EntryRow | None) -> None:
            raise Stop

        draft = open_draft(location, backup)
        with pytest.raises(Stop):
            draft.take_place(stop)
        draft.discard()
        with closing(open_store(location)) as present:
            assert content(present) == before

    def test_a_draft_does_not_come_between_a_writer(
        self, full: Store, backup: Store, other: Store, location: Location
    ) -> None:
        before = content(full)
        draft = open_draft(location, backup, busy_seconds=0.05)
        with other.transaction():
            other.append(entry(1))
            with pytest.raises(VaultBusy):
                draft.take_place(lambda newest: None)
        draft.discard()
        assert content(full) == (before[0], [entry(1)], *before[2:])

    def test_who_had_it_open_does_not_write_into_what_took_its_place(
        self, full: Store, backup: Store, location: Location
    ) -> None:
        """Nor into what is gone. A backend may as well refuse to replace what others have open."""
        before = content(full)
        with full.transaction():
            full.append(entry(1))
        draft = open_draft(location, backup, busy_seconds=0.05)
        try:
            draft.take_place(lambda newest: None)
        except VaultBusy:
            draft.discard()
            with full.transaction():
                full.append(entry(2))
            expected = (before[0], [entry(1), entry(2)], *before[2:])
        else:
            with pytest.raises(VaultBusy, match="restored meanwhile"), full.transaction():
                raise AssertionError("it was let in")
            expected = (before[0], [], *before[2:])
        with closing(open_store(location)) as present:
            assert content(present) == expected
