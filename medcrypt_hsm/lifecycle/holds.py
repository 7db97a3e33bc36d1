"""Holds: what must not be destroyed, and why (docs/spec/rekey.md, "Holds").

In: an unlocked vault, a patient or a month, a reason. Out: ``Held`` values, and refusals by name. A hold is a row of
the trust state, so that nobody without a token takes one away; what it says is sealed, so that the file tells nobody
whom it is about. Not here: what is destroyed when there is no hold (shred.py).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from medcrypt_hsm.errors import OnHold, Refused, UsageError, VaultDamaged
from medcrypt_hsm.messages import patients
from medcrypt_hsm.messages.patients import Pairing
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.vault.audit.actions import HOLD_ADD, HOLD_LIST, HOLD_REMOVE
from medcrypt_hsm.vault.audit.trust import Hold
from medcrypt_hsm.vault.change import Change
from medcrypt_hsm.vault.keyset import MESSAGE, V1_SECRET, VaultKeyset
from medcrypt_hsm.vault.store.rows import SealedRow
from medcrypt_hsm.vault.unlocked import Unlocked

_PURPOSE = "hold"


@dataclass(frozen=True, slots=True)
class Held:
    """A patient or a month, and one reason or more why it is kept."""

    patient: str
    month: str
    reasons: tuple[str, ...]
    since: str

    @property
    def what(self) -> str:
        return t("patient {patient}", patient=self.patient) if self.patient else t("month {month}", month=self.month)


def add(unlocked: Unlocked, reason: str, *, patient: str = "", month: Month | None = None) -> Held:
    """Put a hold on a patient or a month; where there is one, another reason. Raises UsageError, Refused."""
    _check(patient, month, reason)
    with unlocked.change(HOLD_ADD, patient or str(month)) as change:
        if month is None:
            patients.find(unlocked, patient)
        elif month not in unlocked.state.months:
            raise UsageError(t("this vault has no month {month}", month=month), "see 'medcrypt status'")
        elif unlocked.state.is_shredded(month):
            raise Refused(
                t("{month} was shredded; there is nothing left to hold", month=month), "see 'medcrypt status'"
            )
        name, held = _find(unlocked, patient, month) or (os.urandom(8).hex(), None)
        if held is None:
            held = Held(patient, "" if month is None else str(month), (), change.time)
        held = replace(held, reasons=(*held.reasons, reason))
        _put(unlocked.keyset, change, name, held, change.sequence)
        change.detail["reason"] = reason
    return held


def remove(unlocked: Unlocked, reason: str, *, patient: str = "", month: Month | None = None) -> Held:
    """Lift the hold, with all its reasons; ``reason`` is why. Raises UsageError."""
    _check(patient, month, reason)
    with unlocked.change(HOLD_REMOVE, patient or str(month)) as change:
        found = _find(unlocked, patient, month)
        if found is None:
            raise UsageError(t("there is no hold on {held}", held=patient or month), "see 'medcrypt hold list'")
        name, held = found
        change.delete_trust("hold", name)
        change.detail.update(reason=reason, lifted=list(held.reasons))
    return held


def list_all(unlocked: Unlocked) -> list[Held]:
    """Every hold, oldest first; reading names is recorded."""
    unlocked.record(HOLD_LIST)
    return opened(unlocked)


def opened(unlocked: Unlocked) -> list[Held]:
    """Oldest first; not recorded, for they are part of every refusal."""
    holds = [_open(unlocked.keyset, hold) for hold in unlocked.state.holds.values()]
    return sorted(holds, key=lambda held: (held.since, held.what))


def held_months(unlocked: Unlocked, among: Iterable[Month]) -> dict[Month, Held]:
    """Those months that a hold keeps from being shredded: on the month itself, or on a patient whose keys it holds."""
    holds, among = opened(unlocked), list(among)
    kept: dict[Month, Held] = {}
    for held in holds:
        months = {held.month} if held.month else _months_with_keys(unlocked, held.patient, among)
        kept |= {month: held for month in among if str(month) in months and month not in kept}
    return kept


def refuse_held(unlocked: Unlocked, months: Collection[Month]) -> None:
    """Raises OnHold for a month that must not be shredded."""
    for month, held in held_months(unlocked, months).items():
        raise OnHold(
            t(
                "{month} cannot be shredded: {held} is on hold ({reasons})",
                month=month,
                held=held.what,
                reasons="; ".join(held.reasons),
            )
        )


def refuse_held_patient(
    unlocked: Unlocked, patient: str, pairings: Collection[Pairing], what: str = t("erased")
) -> None:
    """Raises OnHold for a patient who must not be erased: a hold is on them, or on a month with keys of theirs."""
    holds = opened(unlocked)
    months = {month for month in unlocked.state.months if any(held.month == str(month) for held in holds)}
    with_keys = _months_with_keys(unlocked, patient, months, pairings)
    if found := [held for held in holds if held.patient == patient or held.month in with_keys]:
        told = joined(
            t(", and "),
            (t("{held} is on hold ({reasons})", held=held.what, reasons="; ".join(held.reasons)) for held in found),
        )
        raise OnHold(t("patient {patient} cannot be {done}: {holds}", patient=patient, done=what, holds=told))


def refuse_held_secret(unlocked: Unlocked, patient: str, pairings: Collection[Pairing]) -> None:
    """Raises OnHold for a patient whose v1 secret must stay: it gives the keys of months that nobody has read yet."""
    if any(unlocked.rows.sealed(V1_SECRET, pairing.pairing) is not None for pairing in pairings):
        refuse_held_patient(unlocked, patient, pairings, t("removed"))


def carry(unlocked: Unlocked, into: VaultKeyset, change: Change) -> None:
    """Seal every hold under another keyset: when the vault is re-keyed."""
    for hold in unlocked.state.holds.values():
        _put(into, change, hold.name, _open(unlocked.keyset, hold), hold.sequence)


def _months_with_keys(
    unlocked: Unlocked, patient: str, among: Iterable[Month], pairings: Collection[Pairing] | None = None
) -> set[str]:
    """The months among these for which there are keys of this patient, or a v1 secret that would give them."""
    months: set[str] = set()
    for pairing in patients.pairings_of(unlocked, patient) if pairings is None else pairings:
        months |= {row.month for row in unlocked.rows.records_of(MESSAGE, pairing.pairing)}
        if unlocked.rows.sealed(V1_SECRET, pairing.pairing) is not None:
            months |= set(map(str, among))
    return months


def _check(patient: str, month: Month | None, reason: str) -> None:
    if bool(patient) == (month is not None):
        raise UsageError("a hold is on one patient or one month", "give --patient ID or --month YYYY-MM")
    if not reason.strip():
        raise UsageError("a hold needs a reason", "say with --reason why, for whoever reads the log")


def _find(unlocked: Unlocked, patient: str, month: Month | None) -> tuple[str, Held] | None:
    wanted = (patient, "" if month is None else str(month))
    for hold in unlocked.state.holds.values():
        held = _open(unlocked.keyset, hold)
        if (held.patient, held.month) == wanted:
            return hold.name, held
    return None


def _put(keyset: VaultKeyset, change: Change, name: str, held: Held, sequence: int) -> None:
    value = {"patient": held.patient, "month": held.month, "reasons": list(held.reasons), "since": held.since}
    row = keyset.seal(_PURPOSE, bytes.fromhex(name), sequence, value)
    change.put_trust("hold", name, Hold(name, sequence, row.nonce, row.body).value())


def _open(keyset: VaultKeyset, hold: Hold) -> Held:
    """Raises VaultDamaged."""
    value = keyset.open(SealedRow(_PURPOSE, bytes.fromhex(hold.name), b"", hold.sequence, hold.nonce, hold.sealed))
    try:
        patient, month, since = (str(value[field]) for field in ("patient", "month", "since"))
        return Held(patient, month, tuple(map(str, value["reasons"])), since)
    except (KeyError, TypeError) as exc:
        raise VaultDamaged("a hold cannot be read") from exc
