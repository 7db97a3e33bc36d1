"""One contract for every ``Store``: what vault/store/store.py promises, method by method.

A backend joins with a file of its own: a subclass of ``StoreContract`` beside a fixture ``location``, which names a
place for a vault where none is yet. What is promised of rows is in rows_contract.py, and comes along. Everything here
goes through the protocol and the functions that open a store; what only one backend can show, such as what it does with
a file that was tampered with, is in that backend's file.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.errors import MedcryptError, VaultBusy, VaultError, VaultMissing
from medcrypt_hsm.vault.store.rows import EntryRow, Location
from medcrypt_hsm.vault.store.store import Store, create_store, open_draft, open_store, remove_store
from tests.support.checkout import ROOT
from tests.vault.store.rows_contract import (
    FIRST,
    ONE,
    TWO,
    RowsContract,
    content,
    entry,
    record,
    sealed,
    seen,
)

# name: one write of each kind, into a store that has none of them
WRITES: dict[str, Callable[[Store], object]] = {
    "put_trust": lambda store: store.put_trust("token", "doctor", b"{}"),
    "delete_trust": lambda store: store.delete_trust("vault", ""),
    "append": lambda store: store.append(entry(1)),
    "put_records": lambda store: store.put_records([record("chain", ONE, "2026-11")]),
    "delete_record": lambda store: store.delete_record("kept", ONE, "2026-11"),
    "put_sealed": lambda store: store.put_sealed(sealed("patient", ONE)),
    "delete_sealed": lambda store: store.delete_sealed("kept", ONE),
    "put_nodes": lambda store: store.put_nodes("one", [("", b"digests")]),
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


class StoreContract(RowsContract):
    """Subclass it beside a ``location`` fixture, and every test below runs on that backend."""

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
