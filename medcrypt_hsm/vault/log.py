"""Reading and verifying the whole log with the token (docs/spec/audit.md).

In: an unlocked vault, a filter or checkpoints. Out: opened entries, or what was verified; quiet when all is well,
otherwise AuditBroken with the entry or row that is wrong. Not here: what can be verified without a token
(audit/verify.py), and which rows an entry makes come or go (ledger.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medcrypt_hsm.vault.audit.actions import AUDIT_SHOW
from medcrypt_hsm.vault.audit.chain import check_token
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.consent import GuestRun, follow_guest
from medcrypt_hsm.vault.audit.entries import Entry, read_clear
from medcrypt_hsm.vault.audit.filter import EVERY_ENTRY, EntryFilter
from medcrypt_hsm.vault.audit.trust import finished_state
from medcrypt_hsm.vault.audit.verify import Verified, check_time, covered, verify_chain
from medcrypt_hsm.vault.audit.walk import guest_may_write
from medcrypt_hsm.vault.ledger import Ledger
from medcrypt_hsm.vault.store.store import Store
from medcrypt_hsm.vault.unlocked import Unlocked


def numbered(unlocked: Unlocked) -> Iterator[tuple[int, Entry]]:
    for row in unlocked.file.entries():
        yield row.sequence, unlocked.log.read_entry(row)


def show(unlocked: Unlocked, where: EntryFilter = EVERY_ENTRY) -> list[tuple[int, Entry]]:
    """Entries, opened, oldest first; reading them is recorded."""
    unlocked.record(AUDIT_SHOW, detail=where.told())
    with unlocked.file.snapshot():
        return [(sequence, entry) for sequence, entry in numbered(unlocked) if where.takes(entry)]


def verify(unlocked: Unlocked, since: Sequence[Checkpoint] = ()) -> Verified:
    """Everything: chain and heads from the first entry, each entry opened, each stored row against the log.

    Raises AuditBroken naming the entry or row; of checkpoints as ``verify_with_public_keys``.
    """
    with unlocked.file.snapshot():
        chain = verify_chain(unlocked.file, finished_state(unlocked.file), since)
        for note in since:
            row = unlocked.file.entry(note.sequence)
            assert row is not None  # it has the checkpoint's hash
            check_time(note, unlocked.log.read_entry(row))
        return covered(chain, since, _compare_rows(unlocked))


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
