"""How a vault stands, verified: what its file says (vault/inspection.py), and what only its token can tell.

In: an unlocked vault. Out: ``Status`` with its problems in words. Not here: how it is shown (cli/commands/status.py).
"""

from __future__ import annotations

from dataclasses import replace

from medcrypt_hsm.errors import ClockBehind
from medcrypt_hsm.lifecycle import holds
from medcrypt_hsm.messages import patients
from medcrypt_hsm.sentences import counted, t
from medcrypt_hsm.vault.inspection import Status, file_status, find_orphans
from medcrypt_hsm.vault.policy import past_retention
from medcrypt_hsm.vault.unlocked import Unlocked


def status(unlocked: Unlocked) -> Status:
    """Nothing is recorded: no name is shown."""
    first: list[str] = []
    try:
        now = unlocked.clock.now()
    except ClockBehind as exc:
        now = unlocked.clock.newest_moment()
        first.append(t("{reason}: nothing is written until it is set", reason=exc.message))
    if unlocked.unsettled:
        first.append(t("what an interrupted command left could not be ended now: {reason}", reason=unlocked.unsettled))
    held = holds.held_months(unlocked, past_retention(unlocked.state, now))
    of_file = file_status(unlocked.file, unlocked.state, verified=True, now=now, held=held, uses=unlocked.uses)
    last: list[str] = []
    if compromised := len(patients.compromised(unlocked)):
        last.append(
            t(
                "{pairings} could be followed {source}: 'medcrypt patient list' names them; make new ones with "
                "'medcrypt patient repair ID'",
                pairings=counted(compromised, "{count} pairing", "{count} pairings"),
                source=_by_whom(unlocked),
            )
        )
    name = unlocked.registered.name
    orphans = find_orphans(unlocked.token, unlocked.state, name)
    last += [t("the token holds an object that this vault does not use: {object}", object=orphan) for orphan in orphans]
    return replace(
        of_file,
        problems=(*first, *of_file.problems, *last),
        orphans=orphans,
        anchor=unlocked.anchor.sequence if unlocked.anchor else None,
        in_use=name,
    )


def _by_whom(unlocked: Unlocked) -> str:
    if unlocked.state.retired and unlocked.uses:
        return t("with a token that was removed unseen or from the machine where break-glass was used")
    if unlocked.state.retired:
        return t("with a token that was removed unseen")
    return t("from the machine where break-glass was used") if unlocked.uses else ""
