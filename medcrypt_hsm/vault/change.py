"""``Change``: what one transaction writes into a vault file, and the audit entry that tells of it.

In: rows to write and to delete, and what else the entry should tell. Out: the rows in the file, an ``Entry`` that names
each of them, and the entry's row with its signed head. ``refusals_recorded`` and ``failures_recorded`` record what is
refused or fails outside a change. Not here: the transaction, and the order in which it checks (``Unlocked.change``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

from medcrypt_hsm.crypto.p256 import verify_signature
from medcrypt_hsm.errors import AuditBroken, ClockBehind, MedcryptError, MonthsBehind, Refused, UsageError
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.vault.audit import entries, trust
from medcrypt_hsm.vault.audit.bound import BoundRows
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.rowtree import LOOKUP, NOTHING, Group
from medcrypt_hsm.vault.store.rows import EntryRow, RecordRow, SealedRow, record_ref, sealed_ref
from medcrypt_hsm.vault.store.store import Store


def sign_entry(
    token: Token,
    chain: Chain,
    signer: bytes,
    stored: bytes,
    trust_digest: bytes,
    key: str | None = None,
    *,
    public: bytes | None = None,
) -> EntryRow:
    """The next entry of ``chain`` and its head, signed by the ``key`` on ``token``, whose fingerprint is ``signer``.

    Left out, it is the audit key. ``public``: the SPKI under which the signature must verify. Raises NotAuthentic.
    """
    key = audit_key_name(chain.vault_id) if key is None else key
    sequence = chain.sequence + 1
    hash_ = entries.entry_hash(chain.hash, sequence, trust_digest, signer, stored)
    head = entries.head_bytes(chain.vault_id, sequence, hash_, trust_digest)
    if public is None:
        return EntryRow(sequence, stored, hash_, trust_digest, signer, token.sign(key, head))
    signature = token.sign(key, head, public=public)
    verify_signature(public, signature, head)
    return EntryRow(sequence, stored, hash_, trust_digest, signer, signature)


class Change:
    """What one transaction writes, and the audit entry that will tell of it."""

    def __init__(self, file: Store, rows: BoundRows, trust_digest: bytes, sequence: int, time: str) -> None:
        self.sequence = sequence
        self.time = time
        self.subject = ""
        self.outcome = "done"
        self.detail: dict[str, Any] = {}
        self.trust_changed = False
        self._file = file
        self._rows = rows
        self._trust_digest = trust_digest
        self._writes: list[str] = []
        self._deletes: list[str] = []

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        rows = list(rows)
        touched: dict[Group, list[bytes]] = defaultdict(list)
        for row in rows:
            touched[Group("record", row.purpose, row.month)].append(row.pairing)
        with self._rows.touched(touched):
            self._file.put_records(rows)
        self._writes.extend(row.ref for row in rows)

    def delete_record(self, purpose: str, pairing: bytes, month: str) -> None:
        with self._rows.touched({Group("record", purpose, month): [pairing]}):
            self._file.delete_record(purpose, pairing, month)
        self._deletes.append(record_ref(purpose, pairing, month))

    def delete_all_records(self, purpose: str, rows: Iterable[RecordRow]) -> None:
        """``rows``: all that there are of this purpose, as ``BoundRows.all_records`` has read them in this change."""
        months = set()
        for row in rows:
            self._file.delete_record(purpose, row.pairing, row.month)
            self._deletes.append(row.ref)
            months.add(row.month)
        for month in months:
            self._rows.gone(Group("record", purpose, month))

    def put_sealed(self, row: SealedRow) -> None:
        with self._rows.touched(self._found_by(row.purpose, row.pairing, row.lookup)):
            self._file.put_sealed(row)
        self._writes.append(row.ref)

    def delete_sealed(self, purpose: str, pairing: bytes) -> None:
        if self._rows.sealed(purpose, pairing) is not None:
            with self._rows.touched(self._found_by(purpose, pairing)):
                self._file.delete_sealed(purpose, pairing)
            self._deletes.append(sealed_ref(purpose, pairing))

    def _found_by(self, purpose: str, pairing: bytes, lookup: bytes = b"") -> dict[Group, list[bytes]]:
        """What a write of this sealed row touches: also how it is found, where that changes."""
        before = self._rows.sealed(purpose, pairing)
        lookups = [each for each in {lookup, b"" if before is None else before.lookup} if each]
        changes = before is None or before.lookup != lookup
        return {Group("sealed", purpose): [pairing]} | ({Group(LOOKUP): lookups} if lookups and changes else {})

    def put_roots(self) -> None:
        """At the end: the roots of what was written and deleted, so that the head binds it."""
        for name, root in self._rows.new_roots().items():
            if root == NOTHING:
                self.delete_trust("rows", name)
            else:
                self.put_trust("rows", name, trust.Root(name, root).value())

    def put_trust(self, kind: str, name: str, value: dict[str, Any]) -> None:
        self._before_trust()
        self._file.put_trust(kind, name, canonical(value))

    def delete_trust(self, kind: str, name: str) -> None:
        self._before_trust()
        self._file.delete_trust(kind, name)

    def _before_trust(self) -> None:
        if not self.trust_changed and trust.digest(self._file.trust_rows()) != self._trust_digest:
            # The new head would sign for rows that nobody verified.
            raise AuditBroken("the trust state was exchanged", at=self.sequence)
        self.trust_changed = True

    def entry(self, action: str, actor: str, token: str) -> Entry:
        """What the log will tell of it: also each row that was written or deleted."""
        lists = {"writes": self._writes, "deletes": self._deletes}
        detail = self.detail | {name: refs for name, refs in lists.items() if refs}
        return Entry(self.time, actor, token, action, self.subject, self.outcome, detail)


class Changeable(Protocol):
    """What has a log to enter something in: an ``Unlocked``."""

    def change(self, action: str, subject: str = "", *, outcome: str = "done") -> AbstractContextManager[Change]: ...


@contextmanager
def refusals_recorded(vault: Changeable, action: str, subject: str) -> Iterator[None]:
    """Around a check that comes before any change: a refusal leaves an entry of that action, by its own name.

    If the entry cannot be written, that error is raised instead of the refusal: a refusal may tell what is sealed, such
    as a hold, and nobody reads that unrecorded. Only a clock in doubt does not hide the refusal.
    """
    try:
        yield
    except (Refused, UsageError) as exc:
        with suppress(MonthsBehind, ClockBehind), vault.change(action, subject, outcome=exc.name):
            pass
        raise


@contextmanager
def failures_recorded(
    vault: Changeable, action: str, subject: str, *, undo: Callable[[Change], None] | None = None
) -> Iterator[None]:
    """Around what is done when its intent is on record: a failure leaves an entry of that action, by its own name.

    ``undo`` takes back, in the change that tells of the failure, what the intent wrote.
    """
    try:
        yield
    except (MedcryptError, OSError) as exc:
        enter_failure(vault, action, subject, exc, undo=undo)
        raise


def enter_failure(
    vault: Changeable,
    action: str,
    subject: str,
    exc: MedcryptError | OSError,
    *,
    undo: Callable[[Change], None] | None = None,
) -> None:
    """Record what failed, if that is possible; the failure matters more, and the log holds the intent in any case.

    Raises AuditBroken, which matters more than any failure; with ``undo`` also whatever keeps ``undo`` from being done.
    """
    outcome = getattr(exc, "name", "") or MedcryptError.name
    try:
        with vault.change(action, subject, outcome=outcome) as change:
            if undo is not None:
                undo(change)
    except AuditBroken:
        raise
    except MedcryptError:
        if undo is not None:
            raise
