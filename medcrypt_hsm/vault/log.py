"""Reading and verifying the whole log with the token (docs/spec/audit.md).

In: an unlocked vault, a filter or checkpoints. Out: opened entries, or what was verified; quiet when all is well,
otherwise AuditBroken with the entry or row that is wrong. Not here: what can be verified without a token
(audit/verify.py), and which rows an entry makes come or go (ledger.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.actions import AUDIT_SHOW
from medcrypt_hsm.vault.audit.chain import Chain, check_token
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.consent import GuestRun, follow_guest
from medcrypt_hsm.vault.audit.entries import Entry, genesis, read_clear
from medcrypt_hsm.vault.audit.filter import EVERY_ENTRY, EntryFilter
from medcrypt_hsm.vault.audit.trust import finished_state
from medcrypt_hsm.vault.audit.verify import Verified, check_time, covered, verify_chain
from medcrypt_hsm.vault.audit.walk import guest_may_write
from medcrypt_hsm.vault.ledger import Ledger
from medcrypt_hsm.vault.store.store import Store
from medcrypt_hsm.vault.unlocked import Unlocked

PAGE, PAGE_BYTES = 2_000, 1 << 20  # entries that a page looks at, and bytes of those that it gives


def numbered(unlocked: Unlocked) -> Iterator[tuple[int, Entry]]:
    for row in unlocked.file.entries():
        yield row.sequence, unlocked.log.read_entry(row)


def show(unlocked: Unlocked, where: EntryFilter = EVERY_ENTRY) -> list[tuple[int, Entry]]:
    """Entries, opened, oldest first; reading them is recorded."""
    unlocked.record(AUDIT_SHOW, detail=where.told())
    with unlocked.file.snapshot():
        return [(sequence, entry) for sequence, entry in numbered(unlocked) if where.takes(entry)]


class Pages:
    """The log up to its newest verified entry, a page at a time, by sequence: between two pages the vault is free.

    Each entry's hash is recomputed on the way. What reads it records that first.
    """

    def __init__(self, unlocked: Unlocked, where: EntryFilter = EVERY_ENTRY) -> None:
        self._where = where
        self._upto, self._head = unlocked.log.sequence, unlocked.log.head
        self._chain = Chain(unlocked.state.vault_id, 0, genesis(unlocked.state.vault_id), {})

    @property
    def at_end(self) -> bool:
        return self._chain.sequence >= self._upto

    def next(self, unlocked: Unlocked) -> list[tuple[int, Entry, bytes]]:
        """Sequence, entry and hash of those that are wanted among the next ones. Raises AuditBroken."""
        found: list[tuple[int, Entry, bytes]] = []
        size = 0
        with unlocked.file.snapshot(), closing(unlocked.file.entries(self._chain.sequence)) as rows:
            for looked, row in enumerate(rows, 1):
                self._chain.extend(row, check_head=False)
                entry = unlocked.log.read_entry(row)
                check_token(row, entry, self._chain.names)
                if self._where.takes(entry):
                    found.append((row.sequence, entry, row.hash))
                    size += len(row.stored)
                if row.sequence == self._upto or looked == PAGE or size > PAGE_BYTES:
                    break
            else:
                raise AuditBroken("audit entries have vanished", at=self._chain.sequence + 1)
        if self.at_end and self._chain.hash != self._head:
            raise AuditBroken("the entries are not those that the newest head signs", at=self._chain.sequence)
        return found


def verify(unlocked: Unlocked, since: Sequence[Checkpoint] = ()) -> Verified:
    """Everything: chain and heads from the first entry, each entry opened, each stored row against the log.

    Raises AuditBroken naming the entry or row; of checkpoints as ``verify_with_public_keys``.
    """
    with unlocked.file.snapshot():
        return verify_here(unlocked, since)


def verify_here(unlocked: Unlocked, since: Sequence[Checkpoint] = ()) -> Verified:
    """The same, inside a snapshot or change."""
    state = finished_state(unlocked.file)
    chain = verify_chain(unlocked.file, state, since)
    for note in since:
        row = unlocked.file.entry(note.sequence)
        assert row is not None  # it has the checkpoint's hash
        check_time(note, unlocked.log.read_entry(row))
    return covered(chain, since, _compare_rows(unlocked), bound=bool(state.roots))


def verify_rows(unlocked: Unlocked) -> int:
    """Of a file whose chain was verified: each entry opened, each stored row against the log; how many rows."""
    with unlocked.file.snapshot():
        return _compare_rows(unlocked)


def _compare_rows(unlocked: Unlocked) -> int:
    unlocked.file.check_integrity()
    names = finished_state(unlocked.file).token_names
    erased = _erased(unlocked.file)
    run: GuestRun | None = None

    def is_of(pairing: bytes, patient: str) -> bool:
        return pairing.hex() in erased or unlocked.is_of(pairing, patient)

    with Ledger() as ledger:
        for row in unlocked.file.entries():
            entry = unlocked.log.read_entry(row)
            check_token(row, entry, names)
            with guest_may_write(row.sequence):
                run = follow_guest(run, row.sequence, entry, is_of, guest=row.signer not in names)
            ledger.take(row.sequence, entry)
        return ledger.compare(unlocked)


def _erased(file: Store) -> set[str]:
    """The pairings of which nothing is left to tell whose they were."""
    entries = (read_clear(row) for row in file.clear_entries())
    return {pairing for entry in entries if entry is not None for pairing in entry.detail.get("erased", ())}
