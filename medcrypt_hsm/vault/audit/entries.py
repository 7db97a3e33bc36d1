"""The audit log's bytes: entries in the clear and sealed, their hashes, and what a head signs (docs/spec/audit.md).

In: what happened, or a stored row and the log key that opens it. Out: bytes to store, hash or sign; or the ``Entry``
in a row, or AuditBroken that names it. Not here: signatures and what follows from entries (chain.py), what a token
remembers of the log (vault/anchoring.py), who signs (vault/change.py), and where rows are kept (vault/store/).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn

from medcrypt_hsm.crypto.handles import AeadKey
from medcrypt_hsm.errors import AuditBroken, NotAuthentic
from medcrypt_hsm.notation import canonical, ctx, parse_time, u64
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import CLEAR_ACTIONS
from medcrypt_hsm.vault.store.rows import EntryRow

PROFILES = ("aes-kw", "p256-hpke")  # of a token that is introduced, as tokens has them
GRADES = ("not-attested", "token-claimed", "device-attested")  # likewise, as tokens/attestation/grades.py has them


class Entry(NamedTuple):
    """What happened, as the log tells it. ``detail`` never holds a key, a secret, a PIN or a plaintext."""

    time: str
    actor: str
    token: str
    action: str
    subject: str
    outcome: str
    detail: Mapping[str, Any] = {}

    def encode(self) -> bytes:
        return canonical({name: getattr(self, name) for name in self._fields})

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Raises ValueError."""
        value = json.loads(data, parse_float=_refuse_number, parse_constant=_refuse_number)
        if not isinstance(value, dict) or set(value) != set(cls._fields) or canonical(value) != data:
            raise ValueError("not a canonical audit entry")
        if not isinstance(value["detail"], dict) or not all(
            isinstance(value[name], str) for name in cls._fields if name != "detail"
        ):
            raise ValueError("not an audit entry")
        parse_time(value["time"])
        return cls(**value)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"canonical JSON has no number {text}")


def genesis(vault_id: bytes) -> bytes:
    """hash(0)."""
    return sha256(ctx("medcrypt/audit/genesis", vault_id)).digest()


def entry_hash(previous: bytes, sequence: int, trust: bytes, signer: bytes, stored: bytes) -> bytes:
    """hash(i): over the entry, the trust state after it and who signed, so that a later head vouches for all three."""
    return sha256(ctx("medcrypt/audit/entry", previous, u64(sequence), trust, signer, stored)).digest()


def clear_entry(entry: Entry) -> bytes:
    return b"\x00" + entry.encode()


def seal_entry(entry: Entry, log_key: AeadKey, number: int, nonce: bytes, vault_id: bytes, sequence: int) -> bytes:
    sealed = log_key.seal(nonce, entry.encode(), _sealed_aad(vault_id, sequence, number))
    return b"\x01" + number.to_bytes(4, "big") + nonce + sealed


def _sealed_aad(vault_id: bytes, sequence: int, number: int) -> bytes:
    return ctx("medcrypt/audit/sealed", vault_id, u64(sequence), u64(number))


def read_clear(row: EntryRow) -> Entry | None:
    """The entry, or None if it is sealed. Raises AuditBroken."""
    if row.stored[:1] == b"\x01":
        return None
    try:
        if row.stored[:1] != b"\x00":
            raise ValueError("unknown kind of entry")
        entry = Entry.decode(row.stored[1:])
        if entry.outcome not in CLEAR_ACTIONS.get(entry.action, ()):
            raise ValueError("an entry that must be sealed is in the clear")
        return entry
    except (ValueError, RecursionError) as exc:
        raise AuditBroken(
            t("audit entry {entry} cannot be read: {reason}", entry=row.sequence, reason=exc), at=row.sequence
        ) from exc


def log_key_number(row: EntryRow) -> int:
    """Which log key seals this entry. Raises AuditBroken."""
    number = int.from_bytes(row.stored[1:5], "big")
    if len(row.stored) < 1 + 4 + 12 + 16 or number < 1:
        raise AuditBroken(
            t("audit entry {entry} is cut short, or names no log key", entry=row.sequence), at=row.sequence
        )
    return number


def open_entry(row: EntryRow, log_key: AeadKey, vault_id: bytes) -> Entry:
    """A sealed entry's content. Raises AuditBroken."""
    number = log_key_number(row)
    try:
        data = log_key.open(row.stored[5:17], row.stored[17:], _sealed_aad(vault_id, row.sequence, number))
        entry = Entry.decode(data)
        if entry.action in CLEAR_ACTIONS:
            raise ValueError("an entry that must be in the clear is sealed")
        return entry
    except (NotAuthentic, ValueError, RecursionError) as exc:
        raise AuditBroken(
            t("audit entry {entry} does not open under its log key", entry=row.sequence), at=row.sequence
        ) from exc


def head_bytes(vault_id: bytes, sequence: int, hash_: bytes, trust: bytes) -> bytes:
    """What the audit key signs for every entry."""
    return ctx("medcrypt/head", vault_id, u64(sequence), hash_, trust)
