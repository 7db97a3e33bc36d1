"""``OpenLog``: the audit log of an unlocked vault, whose entries can be read.

In: a vault file, its verified chain, the vault keyset. Out: entries, opened with their log keys; new ones, sealed; and
the newest head as a signed note. Not here: how an entry is made (change.py), the chain's own rules (audit/chain.py),
and going through the whole log (log.py).
"""

from __future__ import annotations

import os

from medcrypt_hsm.crypto.handles import AeadKey
from medcrypt_hsm.errors import AuditBroken, NotAuthentic, VaultDamaged
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.actions import CLEAR_ACTIONS
from medcrypt_hsm.vault.audit.bound import BoundRows
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.keyset import LOG, VaultKeyset, log_month
from medcrypt_hsm.vault.store.rows import EntryRow
from medcrypt_hsm.vault.store.store import Store


class OpenLog:
    """The log, verified up to ``sequence``.

    ``chain`` is exchanged for a longer one when the log grew, and never extended in place.
    """

    def __init__(
        self, file: Store, rows: BoundRows, chain: Chain, keyset: VaultKeyset, token: Token, token_id: bytes
    ) -> None:
        self.file = file
        self._rows = rows
        self.chain = chain
        self.keyset = keyset
        self._token = token
        self._token_id = token_id
        self._keys: dict[int, AeadKey] = {}  # log keys, by number

    @property
    def sequence(self) -> int:
        return self.chain.sequence

    @property
    def head(self) -> bytes:
        """The hash of the entry at ``sequence``."""
        return self.chain.hash

    def hash_of(self, sequence: int) -> bytes | None:
        """Of an entry of this file."""
        row = self.file.entry(sequence)
        return None if row is None else row.hash

    def newest_time(self) -> str:
        """When the newest entry of the file was written. Raises AuditBroken."""
        row = self.file.newest()
        assert row is not None
        return self.read_entry(row).time

    def read_entry(self, row: EntryRow) -> Entry:
        """An entry's content, sealed or not. Raises AuditBroken."""
        clear = entries.read_clear(row)
        if clear is not None:
            return clear
        return entries.open_entry(row, self._key(entries.log_key_number(row), row.sequence), self.chain.vault_id)

    def stored(self, entry: Entry, sequence: int, log_key: int) -> bytes:
        """What the file holds of a new entry: in the clear or sealed, as its action wants it. Raises AuditBroken."""
        if entry.action in CLEAR_ACTIONS:
            return entries.clear_entry(entry)
        key = self._key(log_key, sequence)
        return entries.seal_entry(entry, key, log_key, os.urandom(12), self.chain.vault_id, sequence)

    def _key(self, number: int, at: int) -> AeadKey:
        if number not in self._keys:
            row = self._rows.record(LOG, b"", log_month(number))
            if row is None:
                raise AuditBroken(t("the log key of audit entry {entry} is missing", entry=at), at=at)
            try:
                self._keys[number] = self.keyset.aead_key(row)
            except (NotAuthentic, VaultDamaged) as exc:
                raise AuditBroken(t("the log key of audit entry {entry} was altered", entry=at), at=at) from exc
        return self._keys[number]

    def checkpoint(self) -> str:
        """The newest head as a signed note, for the officer to keep elsewhere."""
        from medcrypt_hsm.vault.audit.checkpoints import Checkpoint

        with self.file.snapshot():
            row = self.file.newest()
            assert row is not None
            time = self.read_entry(row).time
            note = Checkpoint(self.chain.vault_id, row.sequence, row.hash, row.trust, time)
        return self.signed_note(note.text)

    def signed_note(self, text: str) -> str:
        """``text``, which ends with a newline, as a C2SP signed note by this token's audit key."""
        from medcrypt_hsm.vault.audit.checkpoints import note_name, signed_note

        vault_id = self.chain.vault_id
        signature = self._token.sign(audit_key_name(vault_id), text.encode())
        return signed_note(text, note_name(vault_id), self._token_id[:4], signature)

    def drop_keys(self) -> None:
        """Destroy the log keys that were opened. Raises TokenError."""
        try:
            for key in self._keys.values():
                key.destroy()
        finally:
            self._keys.clear()
