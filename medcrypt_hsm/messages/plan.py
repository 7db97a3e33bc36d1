"""Which key does each message need, and may it be read? ``plan`` gathers messages into batches of one key each.

In: parsed messages (a file's header is read like one) and an unlocked vault. Out: ``Batch`` values, and an error for
each message that may not be read. The rules are those of docs/spec/messages.md. Not here: decrypting and recording
(decrypt.py, record.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from medcrypt_hsm.crypto.handles import AeadKey
from medcrypt_hsm.errors import (
    FutureMonth,
    MedcryptError,
    MonthsBehind,
    NotAuthentic,
    Refused,
    StaleMonth,
    Unconfirmed,
    UnknownPairing,
    VaultDamaged,
)
from medcrypt_hsm.messages import months, patients
from medcrypt_hsm.messages.patients import ACTIVE, PENDING, Pairing
from medcrypt_hsm.messages.wire import Bad, Message, MessageV1, MessageV2, v1
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import MONTH_DERIVE
from medcrypt_hsm.vault.keyset import CHAIN, MESSAGE
from medcrypt_hsm.vault.store.rows import RecordRow
from medcrypt_hsm.vault.unlocked import Unlocked

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.secret import Secret
    from medcrypt_hsm.messages.wire.files import FileHeader

Dates: TypeAlias = tuple[datetime | None, datetime | None]
"""When a message was sent, and when it was last edited, as far as a chat tells."""
FRUITLESS = 12  # months of a v1 pairing, derived in one reading, that opened nothing
_ZONES = timedelta(days=1)  # a chat's local time, and a phone's clock, against UTC


class Batch:
    """The messages of one pairing and month: one key, one group in the audit entry."""

    __slots__ = ("candidates", "indexes", "key", "messages", "month", "pairing", "rows", "shredded", "version")

    def __init__(
        self,
        pairing: Pairing,
        version: str,
        month: Month | None,
        candidates: tuple[tuple[Pairing, Month], ...] = (),
        shredded: Month | None = None,
        key: AeadKey | None = None,
    ) -> None:
        self.pairing = pairing
        self.version = version
        self.month = month  # None for v1, whose messages carry none
        self.candidates = candidates  # of v1: whose key of which month, in turn
        self.shredded = shredded  # of v1: the month that the chat dates them in, if its keys are gone
        self.key = key
        self.indexes: list[int] = []  # where in the text each message stood
        self.messages: list[Message | FileHeader] = []
        self.rows: list[tuple[bytes, bytes, str]] = []  # seen rows: nonce, digest, what was there

    @property
    def month_text(self) -> str:
        return "" if self.month is None else str(self.month)

    def listed(self, places: Sequence[int]) -> dict[str, object]:
        """The group as an audit entry has it."""
        return {
            "patient": self.pairing.id,
            "pairing": self.pairing.pairing.hex(),
            "month": self.month_text,
            "version": self.version,
            "messages": [self._line(place) for place in places],
        }

    def _line(self, place: int) -> tuple[str, str, str]:
        nonce, digest, was = self.rows[place]
        return *sender_and_part(self.messages[place]), nonce.hex() + digest.hex() + was


def sender_and_part(message: Message | FileHeader) -> tuple[str, str]:
    """As the log has them."""
    if isinstance(message, MessageV2):
        return message.sender, "1.1" if message.part.count == 1 else str(message.part)
    if isinstance(message, MessageV1):
        return "unknown", "1.1"
    return message.sender, "file"


def plan(
    unlocked: Unlocked,
    found: Sequence[Message | FileHeader | Bad],
    indexes: Sequence[int],
    errors: dict[int, MedcryptError],
    *,
    archive: bool,
    month: Month | None,
    dates: Sequence[Dates] = (),
) -> list[Batch]:
    """Group the messages at ``indexes`` that may be read by pairing and month; ``errors`` gets why others may not.

    ``dates``: of each of ``found``, what a chat says; they stand for the months that v1 messages do not tell.
    """
    known: dict[tuple[object, ...], Batch | MedcryptError] = {}
    for index in indexes:
        message = found[index]
        if isinstance(message, Bad):
            errors[index] = message.error
            continue
        dated: tuple[Month, ...] = ()
        if isinstance(message, MessageV1):
            dated = _months_around(unlocked, dates[index]) if dates else ()
            where: tuple[object, ...] = (message.patient_id, *dated)
        else:
            where = (message.pairing, message.month.ordinal)
        batch = known.get(where)
        if batch is None:
            try:
                if isinstance(message, MessageV1):
                    batch = _plan_v1(unlocked, message, archive=archive, month=month, dated=dated)
                else:
                    batch = _plan_v2(unlocked, message, archive=archive or message.month == month)
                if unlocked.guest not in ("", batch.pairing.id):
                    from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule

                    raise BreakGlassRefused(
                        Rule.BG_9,
                        t("the message is of another patient than {guest}", guest=unlocked.guest),
                        "it takes a request of its own: 'medcrypt breakglass request --patient ID'",
                    )
            except (NotAuthentic, Refused) as exc:
                batch = exc
            known[where] = batch
        if isinstance(batch, Batch):
            batch.indexes.append(index)
            batch.messages.append(message)
        else:
            errors[index] = batch
    return [batch for batch in known.values() if isinstance(batch, Batch)]


def _plan_v2(unlocked: Unlocked, message: MessageV2 | FileHeader, *, archive: bool) -> Batch:
    what = t("message") if isinstance(message, MessageV2) else t("file")
    pairing = patients.by_pairing(unlocked, message.pairing)
    if pairing is None or pairing.protocol != "v2":
        raise UnknownPairing(t("the {kind} belongs to no pairing of this vault", kind=what))
    if pairing.state == PENDING:
        raise Unconfirmed(t("the pairing with {patient} is not confirmed yet", patient=pairing.id))
    months.check_readable(unlocked, message.month, archive=archive, what=what)
    if pairing.state != ACTIVE and not archive:
        raise StaleMonth(
            t("the {kind} belongs to a pairing with {patient} that has ended", kind=what, patient=pairing.id)
        )
    if message.month > unlocked.state.newest_month:  # within the skew, or the rules would have refused it
        key = _later_month_key(unlocked, pairing, message.month)
    else:
        row = unlocked.file.record(MESSAGE, pairing.pairing, str(message.month))
        if row is None and pairing.state == ACTIVE and str(message.month) >= pairing.first:
            raise VaultDamaged(
                t("the key of {patient} for {month} is missing from the vault", patient=pairing.id, month=message.month)
            )
        if row is None:
            raise NotAuthentic(
                t(
                    "there is no key of {patient} for {month}: the pairing was not in use then",
                    patient=pairing.id,
                    month=message.month,
                ),
                "ask the sender which month it was written in",
            )
        key = unlocked.keyset.aead_key(row)
    return Batch(pairing, "v2", message.month, key=key)


def _later_month_key(unlocked: Unlocked, pairing: Pairing, month: Month) -> AeadKey:
    """The next month's key, where the sender's clock is in that month already: for this one reading, nothing stored.

    In an emergency the vault may be any number of months behind.
    """
    from medcrypt_hsm.vault.ratchet import derive_message_key, step_chain

    newest = unlocked.state.newest_month
    row = unlocked.file.record(CHAIN, pairing.pairing, str(newest))
    if row is None or (newest + 1 != month and not unlocked.clock.vouched):
        raise MonthsBehind(t("the month {month} cannot be derived yet", month=month), "run 'medcrypt rotate' first")
    handle = unlocked.keyset.chain_key(row)
    try:
        chain_key = handle.step(newest + 1)
    finally:
        handle.destroy()
    for ordinal in range(newest.ordinal + 2, month.ordinal + 1):
        with chain_key as previous:
            chain_key = step_chain(previous, pairing.pairing, Month(ordinal))
    with chain_key, derive_message_key(chain_key, pairing.pairing, month) as message_key:
        return unlocked.keyset.passing_key(message_key)


def _months_around(unlocked: Unlocked, dates: Dates) -> tuple[Month, ...]:
    """In which months' keys a v1 message of these dates may be, the likeliest first; none if there is no date.

    The month before in its days of grace, the next month on the last day: a chat's times are some phone's, and a
    message may have been written a while before it was sent.
    """
    months_: list[Month] = []
    for moment in dates:
        if moment is not None:
            utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            own = Month.of(utc)
            months_ += [own, Month.of(utc - _ZONES), Month.of(utc + _ZONES)]
            if utc.day <= unlocked.state.policy.grace_days:
                months_.append(own + -1)
    return tuple(dict.fromkeys(months_))


def _plan_v1(
    unlocked: Unlocked, message: MessageV1, *, archive: bool, month: Month | None, dated: tuple[Month, ...] = ()
) -> Batch:
    archive = archive or month is not None
    known = patients.pairings_of(unlocked, message.patient_id)
    pairings = [p for p in reversed(known) if p.protocol == "v1"]
    upgraded = any(p.protocol == "v2" and p.confirmed for p in known)
    if not pairings:
        raise UnknownPairing("the message names a patient that has no v1 pairing in this vault")
    # Where a pairing was repaired there are older ones. They are for archive reading; the newest is tried first.
    pairing = next((p for p in pairings if p.state == ACTIVE), pairings[0])
    if (upgraded or pairing.state != ACTIVE) and not archive:
        raise StaleMonth(
            t(
                "{patient} writes v2 now, or the v1 pairing has ended; v1 messages are archive reading",
                patient=pairing.id,
            )
        )
    current = unlocked.clock.month()
    life = {p.pairing: _life(p, known, unlocked.state.policy.retain_months, current) for p in pairings}
    if (said := month or (dated[0] if dated else None)) is not None and current >= said > max(
        last for _, last in life.values()
    ):
        raise StaleMonth(
            t(
                "the message would be of {month}, when {patient}'s v1 pairing had ended: whoever has the old secret "
                "can write such a message",
                month=said,
                patient=pairing.id,
            ),
            "ask the patient; they write v2 since, or have a newer secret",
        )
    if month is not None:
        months.refuse_shredded(unlocked, month)
        if month > current:
            raise FutureMonth(t("{month} lies ahead of this machine's clock, {clock}", month=month, clock=current))
        likely: tuple[Month, ...] = (month,)
    elif dated:
        if dated[0] > current:
            raise FutureMonth(
                t(
                    "the chat dates the message in {month}, this machine's clock says {clock}",
                    month=dated[0],
                    clock=current,
                )
            )
        likely = tuple(near for near in dated if near <= current)
    elif archive or not months.is_archived(unlocked, current + -1):
        likely = (current, current + -1)
    else:
        likely = (current,)
    candidates = [(pairing, likely_month) for likely_month in likely]
    if archive:
        for p in (pairing, *(p for p in pairings if p is not pairing)):
            kept = {Month.parse(row.month) for row in unlocked.file.records(MESSAGE, p.pairing)}
            kept |= {opened for opened in unlocked.state.months if str(opened) >= p.first}
            if unlocked.clock.vouched:  # the vault may be months behind
                kept |= {Month(n) for n in range(unlocked.state.newest_month.ordinal + 1, current.ordinal)}
            older = likely if month is not None or dated else (*likely, *sorted(kept - set(likely), reverse=True))
            candidates += [(p, older_month) for older_month in older if (p, older_month) not in candidates]
    # The secret would give a shredded month's key again.
    kept_months = tuple(
        (p, m)
        for p, m in candidates
        if not unlocked.state.is_shredded(m)
        and m <= life[p.pairing][1]
        and (month is not None or m >= life[p.pairing][0])
    )
    gone = dated[0] if dated and month is None and unlocked.state.is_shredded(dated[0]) else None
    if gone is not None and not kept_months:
        months.refuse_shredded(unlocked, gone)
    return Batch(pairing, "v1", None, kept_months, gone)


def _life(pairing: Pairing, known: list[Pairing], retained: int, current: Month) -> tuple[Month, Month]:
    """The first and the last month that a chat may date a v1 pairing's messages in; ``known``: all of the patient's.

    A given secret is older than its pairing here, by how much nobody knows: by no more than the practice keeps at all.
    The last is the month in which v2, or a newer v1 pairing, took over; the current one where none did.
    """
    first = Month.parse(pairing.first)
    after = [
        Month.parse(p.first)
        for p in known
        if p.pairing != pairing.pairing
        and (p.replaces == pairing.pairing.hex() or (p.protocol == "v2" and p.confirmed and p.added >= pairing.added))
    ]
    return first + -min(retained, first.ordinal), min([*after, current])


class V1Keys:
    """Version 1 keys of one reading. One that opened nothing is never kept: strangers' dates decide what is tried.

    Each is derived once, and after ``FRUITLESS`` months of a pairing that opened nothing no other is derived. Raises
    Shredded: what was destroyed on purpose is not derived again.
    """

    def __init__(self, unlocked: Unlocked) -> None:
        self._unlocked = unlocked
        self._keys: dict[tuple[bytes, Month], tuple[AeadKey, Secret | None]] = {}
        self._fruitless: dict[bytes, int] = {}

    def open(self, pairing: Pairing, month: Month, message: MessageV1) -> bytes | None:
        """None where there is no such key, or it does not open the message."""
        if (found := self._find(pairing, month)) is None:
            return None
        key, fresh = found
        try:
            plaintext = key.open(message.nonce, message.sealed, message.aad)
        except NotAuthentic:
            return None
        if fresh is not None:
            self._fruitless[pairing.pairing] -= 1
            if not self._unlocked.guest:  # who may write no rows
                _keep(self._unlocked, pairing, month, fresh)
            fresh.wipe()
            self._keys[pairing.pairing, month] = key, None
        return plaintext

    def close(self) -> None:
        for key, fresh in self._keys.values():
            key.destroy()
            if fresh is not None:
                fresh.wipe()
        self._keys.clear()

    def _find(self, pairing: Pairing, month: Month) -> tuple[AeadKey, Secret | None] | None:
        months.refuse_shredded(self._unlocked, month)
        if (found := self._keys.get((pairing.pairing, month))) is not None:
            return found
        row = self._unlocked.file.record(MESSAGE, pairing.pairing, str(month))
        if row is None and self._fruitless.get(pairing.pairing, 0) >= FRUITLESS:
            return None
        if row is None:
            if (derived := _derive(self._unlocked, pairing, month)) is None:
                return None
            self._fruitless[pairing.pairing] = self._fruitless.get(pairing.pairing, 0) + 1
            found = self._unlocked.keyset.passing_key(derived), derived
        else:
            found = self._unlocked.keyset.aead_key(row), None
        self._keys[pairing.pairing, month] = found
        return found


def v1_month_key(unlocked: Unlocked, pairing: Pairing, month: Month) -> AeadKey | None:
    """To write with: derived at first use in a month, then kept wrapped. None when the secret is gone.

    Raises Shredded: what was destroyed on purpose is not derived again.
    """
    months.refuse_shredded(unlocked, month)
    row = unlocked.file.record(MESSAGE, pairing.pairing, str(month))
    if row is None:
        if (derived := _derive(unlocked, pairing, month)) is None:
            return None
        with derived as key:
            row = _keep(unlocked, pairing, month, key)
    return unlocked.keyset.aead_key(row)


def _derive(unlocked: Unlocked, pairing: Pairing, month: Month) -> Secret | None:
    """Slow on purpose, so before the write lock is taken."""
    secret = patients.v1_secret(unlocked, pairing)
    if secret is None:
        return None
    from medcrypt_hsm.crypto.secret import Secret

    return Secret(v1.month_key(secret, month))


def _keep(unlocked: Unlocked, pairing: Pairing, month: Month, key: Secret) -> RecordRow:
    with unlocked.change(MONTH_DERIVE, pairing.id) as change:
        row = unlocked.keyset.wrap(MESSAGE, pairing.pairing, str(month), change.sequence, key)
        change.put_records([row])
        change.detail["month"] = str(month)
    return row
