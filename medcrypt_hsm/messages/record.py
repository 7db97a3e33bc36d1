"""Audit entries and seen rows for messages: before they are opened, after a failure, and after one is encrypted.

In: batches of one key each (plan.py), inside a change. Out: rows by which a text is recognised when it comes back, and
the members of audit entries. Not here: when each of it is called (decrypt.py, encrypt.py, files.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medcrypt_hsm.errors import MedcryptError, NotAuthentic
from medcrypt_hsm.messages.patients import Pairing
from medcrypt_hsm.messages.plan import Batch
from medcrypt_hsm.messages.wire import Message
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.audit.actions import MESSAGE_FAILED
from medcrypt_hsm.vault.change import Change
from medcrypt_hsm.vault.seen import SeenKey
from medcrypt_hsm.vault.unlocked import Unlocked

if TYPE_CHECKING:
    from medcrypt_hsm.messages.wire.files import FileHeader

NEW, SEEN, CONFLICT = "", " seen", " conflict"  # what was there before a text, as the log has it


def look_up_seen(unlocked: Unlocked, batch: Batch) -> None:
    """Was each text, or its nonce, here before? Rows for the new ones are written with the intent."""
    pairing, month = batch.pairing.pairing, batch.month_text
    key = seen_key(unlocked, batch.pairing, batch.month)
    file = unlocked.file
    nonces = key.nonces([message.nonce for message in batch.messages])
    digests = key.read([message.text for message in batch.messages])
    rows = list(zip(nonces, digests, strict=True))
    # Sorted by key, so that SQLite only appends.
    if file.put_new_seen(pairing, month, sorted(rows)):  # nearly always; nothing else need be looked up then
        batch.rows = [(nonce, digest, NEW) for nonce, digest in rows]
        return
    known = file.seen_among(pairing, month, nonces)
    fresh: dict[bytes, bytes] = {}
    for message, nonce, digest in zip(batch.messages, nonces, digests, strict=True):
        before = known.get(nonce)
        if before is None or (before != digest and [before] == key.sent([message.text])):
            known[nonce] = fresh[nonce] = digest
            was = NEW
        else:
            was = SEEN if before == digest else CONFLICT
        batch.rows.append((nonce, digest, was))
    file.put_seen(pairing, month, sorted(fresh.items()))


def seen_key(unlocked: Unlocked, pairing: Pairing, month: Month | None) -> SeenKey:
    """By which texts under one message key are recognised; ``month`` is None for v1."""
    return unlocked.seen_root().key(pairing.pairing, "" if month is None else str(month))


def list_intent(change: Change, batches: list[Batch], errors: dict[int, MedcryptError]) -> None:
    """What the entry tells before anything is opened: each message, and how many were refused by which name."""
    change.detail["messages"] = [batch.listed(range(len(batch.messages))) for batch in batches]
    if errors:
        refused: dict[str, int] = {}
        for error in errors.values():
            refused[error.name] = refused.get(error.name, 0) + 1
        change.detail["refused"] = refused
    change.subject = batches[0].pairing.id if len(batches) == 1 else ""


def record_failures(
    unlocked: Unlocked,
    intent: int,
    failed: list[tuple[Batch, list[int]]],
    errors: dict[int, MedcryptError],
    outcome: str = NotAuthentic.name,
) -> None:
    """The second entry. A forged text must not occupy the nonce of the real one, so its seen row is removed."""
    with unlocked.change(MESSAGE_FAILED, outcome=outcome) as change:
        for batch, places in failed:
            rows = [batch.rows[place][:2] for place in places if batch.rows[place][2] == NEW]
            unlocked.file.delete_seen(batch.pairing.pairing, batch.month_text, rows)
        change.detail["entry"] = intent
        change.detail["messages"] = [
            batch.listed(places) | {"errors": [errors[batch.indexes[place]].name for place in places]}
            for batch, places in failed
        ]
        change.subject = failed[0][0].pairing.id if len(failed) == 1 else ""


def record_written(
    unlocked: Unlocked, change: Change, pairing: Pairing, month: Month, written: Sequence[Message | FileHeader]
) -> Batch:
    """What was encrypted is listed in the entry, and recognised when it comes back."""
    batch = Batch(pairing, pairing.protocol, None if pairing.protocol == "v1" else month)
    recognise = seen_key(unlocked, pairing, batch.month)
    batch.indexes, batch.messages = list(range(len(written))), list(written)
    nonces, digests = recognise.nonces([m.nonce for m in written]), recognise.sent([m.text for m in written])
    rows = list(zip(nonces, digests, strict=True))
    batch.rows = [(nonce, digest, NEW) for nonce, digest in rows]
    unlocked.file.put_seen(pairing.pairing, batch.month_text, rows)
    change.detail["messages"] = [batch.listed(range(len(written)))]
    return batch
