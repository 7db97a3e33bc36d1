"""The main path: ciphertext to plaintext.

    plan: which key does each message need, and may it be read? ─▶ record the intent: no record, no plaintext ─▶
    open each under its key ─▶ record what failed ─▶ bring parts together

``decrypt`` runs all steps; ``read_some`` runs all but the last, on one batch of at most ``BATCH`` messages. In: parsed
messages (wire/) and an unlocked vault. Out: one ``Opened`` for each. Not here: parsing, printing, opening months.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from medcrypt_hsm.crypto.handles import open_each
from medcrypt_hsm.errors import Malformed, MedcryptError, NonceReused, NotAuthentic, Refused, Shredded
from medcrypt_hsm.messages.plan import Batch, Dates, V1Keys, plan, sender_and_part
from medcrypt_hsm.messages.record import CONFLICT, NEW, SEEN, list_intent, look_up_seen, record_failures
from medcrypt_hsm.messages.wire import Bad, Message, MessageV1, MessageV2
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import MESSAGE_DECRYPT
from medcrypt_hsm.vault.unlocked import Unlocked

if TYPE_CHECKING:
    from medcrypt_hsm.messages.wire.files import FileHeader

BATCH = 10_000  # messages that one audit entry lists at most
FEW = 100  # messages that are opened before the garbage collector would look once


class Opened(NamedTuple):
    """One message as read: its text, or the error that keeps it from being shown. ``part`` is as on the wire.

    A tuple and not a dataclass: a pasted year of chat makes ten thousand of them.
    """

    number: int  # in the text that was read, from 1; of a message of several parts, that of its first part
    version: str
    patient: str
    month: str
    sender: str  # "d", "p" or, for v1, "unknown": proves only that a holder of the key wrote it
    part: str
    text: str | None
    error: MedcryptError | None = None
    seen: bool = False

    @property
    def status(self) -> str:
        if self.error is not None:
            return self.error.name
        return "seen" if self.seen else "ok"

    def document(self) -> dict[str, str | int | None]:
        """As it stands in JSON. Of a text that did not open, whose it says that it is may be anybody's invention."""
        error = self.error
        return {
            "number": self.number,
            "patient": None if error else self.patient,
            "version": self.version,
            "month": None if error else self.month,
            "sender": None if error else self.sender,
            "part": self.part,
            "text": self.text,
            "status": self.status,
            "message": None if error is None else error.message,
            "hint": None if error is None else error.hint,
        }

    def __repr__(self) -> str:
        return f"Opened({self.number}, {self.status})"


class Reading:
    """What is known so far of the messages of one text, by their place in it. A file's header is a single message."""

    __slots__ = ("batches", "dates", "errors", "found", "intent", "months_read", "plaintexts", "v1_keys")

    def __init__(
        self, found: Sequence[Message | FileHeader | Bad], intent: int = 0, dates: Sequence[Dates] = ()
    ) -> None:
        self.found = found
        self.intent = intent  # the newest entry that tells of the intent
        self.dates = dates
        self.batches: list[Batch] = []
        self.plaintexts: dict[int, bytes] = {}
        self.months_read: dict[int, str] = {}
        self.errors: dict[int, MedcryptError] = {}
        self.v1_keys: V1Keys | None = None


def decrypt(
    unlocked: Unlocked,
    found: Sequence[Message | Bad],
    *,
    archive: bool = False,
    month: Month | None = None,
    dates: Sequence[Dates] = (),
) -> list[Opened]:
    """Open messages in order; what cannot be shown carries its error in its place.

    ``archive`` reads older retained months, ``month`` one of them; ``dates``, one for each of ``found``, is what a chat
    says of when they were written. Raises only what stops the whole command: token, vault and clock errors.
    """
    reading = Reading(found, dates=dates)
    try:
        if len(found) <= FEW:
            return _decrypt(unlocked, reading, archive, month)
        from medcrypt_hsm.messages.gc_pause import no_collections

        with no_collections():
            return _decrypt(unlocked, reading, archive, month)
    finally:
        if reading.v1_keys is not None:
            reading.v1_keys.close()


def _decrypt(unlocked: Unlocked, reading: Reading, archive: bool, month: Month | None) -> list[Opened]:
    """All of it, a batch at a time."""
    found = reading.found
    for start in range(0, len(found), BATCH):
        indexes: Sequence[int] = range(start, min(start + BATCH, len(found)))
        while indexes:
            indexes = read_some(unlocked, reading, indexes, archive=archive, month=month)
    results = _assemble(reading)
    for opened in results:
        if opened.error is not None:
            opened.error.__traceback__ = None  # its frames would keep the other messages' plaintexts with it
    return results


def read_some(
    unlocked: Unlocked, reading: Reading, indexes: Sequence[int], *, archive: bool, month: Month | None
) -> list[int]:
    """Record and open the messages at ``indexes``. Returns those to read again.

    A forged text with the same nonce came before each of them, so that the authentic one looked like a reuse of it. The
    forged text's row is deleted now.
    """
    refused: dict[int, MedcryptError] = {}
    with unlocked.change(MESSAGE_DECRYPT, outcome="intended") as change:
        batches = plan(unlocked, reading.found, indexes, refused, archive=archive, month=month, dates=reading.dates)
        for batch in batches:
            look_up_seen(unlocked, batch)
        list_intent(change, batches, refused)
    reading.intent = change.sequence
    reading.errors |= refused
    reading.batches += batches

    failed: list[tuple[Batch, list[int]]] = []
    again: list[int] = []
    for batch in batches:
        wrong = _open_batch(unlocked, batch, reading, again)
        if batch.key is not None:
            batch.key.destroy()
        if wrong:
            failed.append((batch, wrong))
    if failed:
        record_failures(unlocked, reading.intent, failed, reading.errors)
    return again


def _open_batch(unlocked: Unlocked, batch: Batch, reading: Reading, again: list[int]) -> list[int]:
    """Open a batch's messages; the places (within the batch) of those that failed. ``again`` gets those to repeat."""
    plaintexts, errors = reading.plaintexts, reading.errors
    wrong: list[int] = []
    forged: set[bytes] = set()
    key = batch.key
    opened = iter(()) if key is None else open_each(key, [(m.nonce, m.sealed, m.aad) for m in batch.messages])
    for place, (index, message, (nonce, digest, was)) in enumerate(
        zip(batch.indexes, batch.messages, batch.rows, strict=True)
    ):
        try:
            if key is None:
                plaintext, reading.months_read[index] = _open_v1(unlocked, batch, message, reading)
            elif (found := next(opened)) is not None:
                plaintext = found
            else:
                raise _altered(batch)
        except NotAuthentic as exc:
            errors[index] = exc if key is not None or batch.shredded is None else _gone(batch)
            wrong.append(place)
            if was == SEEN and batch.month is not None and not unlocked.guest:
                # This very text cannot have been opened before, because it has only one possible key: its row is left
                # from a reading that was killed before it could remove it. A guest removes only rows of their own.
                was, batch.rows[place] = NEW, (nonce, digest, NEW)
            if was == NEW:
                forged.add(nonce)
            continue
        if was == CONFLICT:
            if nonce in forged:
                again.append(index)
                continue
            errors[index] = NonceReused("a different text under the same key and nonce was read or written before")
            wrong.append(place)
            continue
        plaintexts[index] = plaintext
    return wrong


def _altered(batch: Batch) -> NotAuthentic:
    what = t("message") if isinstance(batch.messages[0], (MessageV1, MessageV2)) else t("file")
    return NotAuthentic(
        t(
            "the {kind} does not open under {patient}'s key of {month}: it was altered",
            kind=what,
            patient=batch.pairing.id,
            month=batch.month_text,
        )
    )


def _gone(batch: Batch) -> Shredded:
    return Shredded(
        t("the chat dates the message in {month}, whose keys were shredded; no other opens it", month=batch.shredded)
    )


def _open_v1(unlocked: Unlocked, batch: Batch, message: Message | FileHeader, reading: Reading) -> tuple[bytes, str]:
    """Version 1 carries no month: the candidates in turn. Raises NotAuthentic."""
    if reading.v1_keys is None:
        reading.v1_keys = V1Keys(unlocked)
    assert isinstance(message, MessageV1)
    for pairing, month in batch.candidates:
        plaintext = reading.v1_keys.open(pairing, month, message)
        if plaintext is not None:
            return plaintext, str(month)
    tried = ", ".join(dict.fromkeys(str(month) for _, month in batch.candidates))
    shredded = ", ".join(str(month) for month in sorted(unlocked.state.months) if unlocked.state.is_shredded(month))
    hint = t("it was altered, or is of another month: name that with --month YYYY-MM, or try all with --archive")
    if shredded:
        hint = t("{hint}; what was written in {months} cannot be read any more", hint=hint, months=shredded)
    raise NotAuthentic(
        t("the message does not open under {patient}'s key of {months}", patient=batch.pairing.id, months=tried), hint
    )


def _assemble(reading: Reading) -> list[Opened]:
    """Results in the order of the text; a message of several parts stands where its first part stood."""
    plaintexts, months_read, errors = reading.plaintexts, reading.months_read, reading.errors
    results: dict[int, Opened] = {}
    several: list[tuple[int, MessageV2, str, bool]] = []
    for batch in reading.batches:
        patient, version, month = batch.pairing.id, batch.version, batch.month_text
        for index, message, (_, _, was) in zip(batch.indexes, batch.messages, batch.rows, strict=True):
            number, seen = index + 1, was == SEEN
            error = errors.get(index)
            if was == CONFLICT and error is None:
                continue  # it was read again: a later batch has it
            text: str | None = None
            if error is None:
                if isinstance(message, MessageV2) and message.part.count > 1:
                    several.append((index, message, patient, seen))
                    continue
                text, error = _text(plaintexts[index])
            sender, part = sender_and_part(message)
            month_read = months_read.get(index, month)
            results[index] = Opened(number, version, patient, month_read, sender, part, text, error, seen)
    for index, error in errors.items():
        if index not in results:
            results[index] = _unread(reading.found[index], index + 1, error)
    if several:
        _join_parts(several, plaintexts, results)
    return [results[index] for index in sorted(results)]


def _text(plaintext: bytes) -> tuple[str | None, MedcryptError | None]:
    """The text, or why there is none."""
    text = plaintext.decode("utf-8", "replace")
    if text.encode() != plaintext:  # compared, not caught: a UnicodeDecodeError carries the plaintext along
        return None, Malformed("the message is authentic, but its content is not UTF-8 text", "tell its sender")
    return text, None


def _unread(message: Message | FileHeader | Bad, number: int, error: MedcryptError) -> Opened:
    """Of a message that was not opened: what its own text claims."""
    if isinstance(message, Bad):
        return Opened(number, "", "", "", "unknown", "", None, error)
    if isinstance(message, MessageV1):
        return Opened(number, "v1", message.patient_id, "", "unknown", "1.1", None, error)
    return Opened(number, "v2", "", str(message.month), *sender_and_part(message), None, error)


def _join_parts(
    several: list[tuple[int, MessageV2, str, bool]],
    plaintexts: dict[int, bytes],
    results: dict[int, Opened],
) -> None:
    """Put each message of several parts where its first part stood."""
    from medcrypt_hsm.messages.wire.parts import group_parts, join  # of most texts every message is whole

    where = {id(message): (index, patient, seen) for index, message, patient, seen in several}
    for group in group_parts(message for _, message, _, _ in sorted(several, key=lambda item: item[0])):
        places = [where[id(message)] for message in group.parts]
        index, patient, _ = min(places)
        text: str | None = None
        error: MedcryptError | None = None
        try:
            text = join(group, {m.part.index: plaintexts[where[id(m)][0]] for m in group.parts})
        except (Malformed, Refused) as exc:
            error = exc
        part = t("{present} of {count} parts", present=len(group.parts), count=group.count)
        seen = all(seen for _, _, seen in places)
        results[index] = Opened(index + 1, "v2", patient, str(group.month), group.sender, part, text, error, seen)
