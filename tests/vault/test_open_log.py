"""``OpenLog``: entries opened with their log keys, new ones sealed, and the newest head as a note."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.entries import Entry, read_clear
from medcrypt_hsm.vault.keyset import LOG, log_month
from medcrypt_hsm.vault.open_log import OpenLog
from tests.support.practice import Practice, unlocked


def test_what_is_sealed_and_what_is_not(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        first, second = opened.file.entry(1), opened.file.entry(2)
        assert first is not None
        assert second is not None
        assert (read_clear(first), read_clear(second)) == (opened.log.read_entry(first), None)
        assert [opened.log.read_entry(row).action for row in (first, second)] == ["token.introduce", "vault.create"]
        assert opened.log.newest_time() == opened.log.read_entry(second).time == "2026-11-22T12:00:00Z"
        assert (opened.log.sequence, opened.log.head) == (2, second.hash)
        assert [opened.log.hash_of(at) for at in (1, 2, 3)] == [first.hash, second.hash, None]


def test_a_new_entry_is_stored_as_its_action_wants_it(shared_practice: Practice) -> None:
    entry = Entry("2026-11-22T12:00:00Z", "mara", "doctor", "patient.list", "EXP-1", "done")
    with shared_practice.open() as vault:
        log = unlocked(vault).log
        assert b"EXP-1" not in log.stored(entry, 3, 1)
        assert b"EXP-1" in log.stored(Entry(entry.time, "mara", "doctor", "vault.restore", "EXP-1", "done"), 3, 1)


@pytest.mark.parametrize("fault", ["missing", "altered"])
def test_a_log_key_that_is_not_as_it_was(shared_practice: Practice, fault: str) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        file, old = opened.file, opened.log
        row, key = file.entry(2), file.record(LOG, b"", log_month(1))
        assert row is not None
        assert key is not None
        fresh = OpenLog(file, old.chain, old.keyset, opened.token, opened.registered.id)

        def read() -> Entry:
            with file.transaction():
                if fault == "missing":
                    file.delete_record(LOG, b"", log_month(1))
                else:
                    file.put_records([key._replace(wrapped=bytes(40))])
                return fresh.read_entry(row)

        with pytest.raises(AuditBroken, match=f"the log key of audit entry 2 (is|was) {fault}") as caught:
            read()
        assert caught.value.at == 2
        assert fresh.read_entry(row).action == "vault.create"  # the transaction came to nothing


def test_a_checkpoint_is_of_the_newest_head(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        note = Checkpoint.parse(opened.log.checkpoint().encode())
        assert (note.vault_id, note.sequence, note.hash) == (opened.state.vault_id, 2, opened.log.head)
        note.verify([opened.registered.audit_key])


def test_dropped_keys_are_opened_again(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        log = unlocked(vault).log
        log.drop_keys()
        log.drop_keys()
        assert log.newest_time()
