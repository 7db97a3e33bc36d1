"""TODO."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medcrypt_hsm.errors import (
    AuditBroken,
)
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.vault.audit import entries, trust
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.store.rows import EntryRow, RecordRow, SealedRow, record_ref, sealed_ref
from medcrypt_hsm.vault.store.store import Store


def sign_entry(
    token: Token, chain: Chain, signer: bytes, stored: bytes, trust_digest: bytes, key: str | None = None
) -> EntryRow:
    """The next entry of ``chain`` and its head, signed by the ``key`` on ``token``, whose fingerprint is ``signer``.

    Left out, it is the audit key.
    """
    key = audit_key_name(chain.vault_id) if key is None else key
    sequence = chain.sequence + 1
    hash_ = entries.entry_hash(chain.hash, sequence, trust_digest, signer, stored)
    head = entries.head_bytes(chain.vault_id, sequence, hash_, trust_digest)
    return EntryRow(sequence, stored, hash_, trust_digest, signer, token.sign(key, head))


class Change:
    """What one transaction writes, and the audit entry that will tell of it."""

    def __init__(self, file: Store, trust_digest: bytes, sequence: int, time: str) -> None:
        self.sequence = sequence
        self.time = time
        self.subject = ""
        self.outcome = "done"
        self.detail: dict[str, Any] = {}
        self.trust_changed = False
        self._file = file
        self._trust_digest = trust_digest
        self._writes: list[str] = []
        self._deletes: list[str] = []

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        rows = list(rows)
        self._file.put_records(rows)
        self._writes.extend(row.ref for row in rows)

    def delete_record(self, purpose: str, pairing: bytes, month: str) -> None:
        self._file.delete_record(purpose, pairing, month)
        self._deletes.append(record_ref(purpose, pairing, month))

    def put_sealed(self, row: SealedRow) -> None:
        self._file.put_sealed(row)
        self._writes.append(row.ref)

    def delete_sealed(self, purpose: str, pairing: bytes) -> None:
        if self._file.sealed(purpose, pairing) is not None:
            self._file.delete_sealed(purpose, pairing)
            self._deletes.append(sealed_ref(purpose, pairing))

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

    def entry_detail(self) -> dict[str, Any]:
        lists = {"writes": self._writes, "deletes": self._deletes}
        return self.detail | {name: refs for name, refs in lists.items() if refs}
