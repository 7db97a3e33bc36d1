"""What is destroyed for good: months, a patient, a token (docs/spec/rekey.md). Each of them is a re-key.

In: an unlocked vault, the tokens that are there. Out: a ``Certificate``. Here is decided what may be destroyed, and
what is kept by a hold, for its age or because the practice needs it. Not here: how it is destroyed (rekey.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from medcrypt_hsm.errors import Refused, Shredded, UsageError
from medcrypt_hsm.lifecycle import holds
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.commit import Purpose
from medcrypt_hsm.lifecycle.holds import Held
from medcrypt_hsm.lifecycle.others import OpenToken, OtherTokens
from medcrypt_hsm.lifecycle.rekey import rekey
from medcrypt_hsm.messages import months, patients
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import ERASE, MONTH_SHRED, PATIENT_ERASE, REMOVE, SHRED, TOKEN_REMOVE
from medcrypt_hsm.vault.audit.trust import ABSENT, PRESENT, RegisteredToken
from medcrypt_hsm.vault.change import refusals_recorded
from medcrypt_hsm.vault.policy import past_retention
from medcrypt_hsm.vault.unlocked import Unlocked


def due(unlocked: Unlocked) -> tuple[list[Month], dict[Month, Held]]:
    """The months past the policy's retention that no hold keeps, and those that one does."""
    past = past_retention(unlocked.state, unlocked.clock.now())
    held = holds.held_months(unlocked, past)
    return [month for month in past if month not in held], held


def check_months(unlocked: Unlocked, wanted: Collection[Month]) -> None:
    """Raises UsageError, Refused, Shredded or OnHold for months that may not be shredded."""
    if not wanted:
        raise UsageError("no month is named", "see 'medcrypt status'")
    for month in sorted(wanted):
        if month not in unlocked.state.months:
            raise UsageError(t("this vault has no month {month}", month=month), "see 'medcrypt status'")
        if unlocked.state.is_shredded(month):
            raise Shredded(t("{month} was shredded already", month=month), "see 'medcrypt status'")
        if not months.is_archived(unlocked, month):
            raise Refused(
                t("{month} is in use: only archived months can be shredded", month=month),
                "a month is archived when the days of grace behind it are over; see 'medcrypt status'",
            )
        if month >= unlocked.state.newest_month:
            # Its chain keys are still there, and the month's keys follow from them: nothing would be destroyed.
            raise Refused(
                t("{month} is the newest month that is open: its chain keys would give its keys again", month=month),
                "open the current month first: 'medcrypt rotate'",
            )
    holds.refuse_held(unlocked, wanted)


def check_shred(unlocked: Unlocked, wanted: Collection[Month]) -> None:
    """Before any other token is looked for. A refusal leaves an entry, as with the two that follow."""
    with refusals_recorded(unlocked, MONTH_SHRED, ", ".join(map(str, sorted(set(wanted))))):
        check_months(unlocked, wanted)


def check_erase(unlocked: Unlocked, patient_id: str) -> None:
    with refusals_recorded(unlocked, PATIENT_ERASE, patient_id):
        check_patient(unlocked, patient_id)


def check_remove(unlocked: Unlocked, name: str) -> None:
    with refusals_recorded(unlocked, TOKEN_REMOVE, name):
        check_removable(unlocked, name)


def shred(
    unlocked: Unlocked, wanted: Collection[Month], others: Sequence[OpenToken], options: OtherTokens, to: Path | None
) -> Certificate:
    """Destroy every key of these months, in every backup too."""
    chosen = tuple(sorted(set(wanted)))
    purpose = Purpose(
        SHRED,
        MONTH_SHRED,
        ", ".join(map(str, chosen)),
        months=chosen,
        detail={"months": [str(month) for month in chosen]},
        may=lambda vault: check_months(vault, chosen),
    )
    return rekey(unlocked, purpose, others, options, to)


def check_patient(unlocked: Unlocked, patient_id: str) -> None:
    """Raises UsageError or OnHold."""
    patients.find(unlocked, patient_id)
    holds.refuse_held_patient(unlocked, patient_id, patients.pairings_of(unlocked, patient_id))


def erase(
    unlocked: Unlocked, patient_id: str, others: Sequence[OpenToken], options: OtherTokens, to: Path | None
) -> Certificate:
    """Destroy every key and everything else that is kept of a patient, but for what the log tells."""
    pairings = frozenset(pairing.pairing for pairing in patients.pairings_of(unlocked, patient_id))

    def may(vault: Unlocked) -> None:
        check_patient(vault, patient_id)
        if {pairing.pairing for pairing in patients.pairings_of(vault, patient_id)} != pairings:
            raise Refused(
                t("another command changed the pairings of {patient} meanwhile", patient=patient_id),
                "run the command again",
            )

    purpose = Purpose(
        ERASE,
        PATIENT_ERASE,
        patient_id,
        pairings=pairings,
        detail={"pairings": sorted(pairing.hex() for pairing in pairings)},
        may=may,
    )
    return rekey(unlocked, purpose, others, options, to)


def check_removable(unlocked: Unlocked, name: str) -> RegisteredToken:
    """Raises UsageError or Refused."""
    token = unlocked.state.tokens.get(name)
    if token is None:
        known = ", ".join(sorted([*unlocked.state.tokens, *unlocked.state.adding]))
        raise UsageError(t("this vault has no token {token}", token=name), t("its tokens are: {tokens}", tokens=known))
    if len(unlocked.state.tokens) == 1:
        raise Refused(
            t("{token} is the vault's only token", token=name), "add another first: 'medcrypt vault add-token'"
        )
    if name == unlocked.registered.name:
        raise Refused(
            t("{token} is the token in use, and cannot remove itself", token=name), "name another with --token"
        )
    return token


def remove_token(
    unlocked: Unlocked, name: str, others: Sequence[OpenToken], options: OtherTokens, to: Path | None
) -> Certificate:
    """Take a token away: it opens nothing of the vault from now on, and signs nothing that counts."""
    token = check_removable(unlocked, name)
    was = PRESENT if any(other.name == name for other in others) else ABSENT

    def may(vault: Unlocked) -> None:
        check_removable(vault, name)

    purpose = Purpose(
        REMOVE,
        TOKEN_REMOVE,
        name,
        retire=[token],
        detail={"was": was, "serial": token.serial},
        may=may,
    )
    return rekey(unlocked, purpose, others, options, to)
