"""The vault's policy: days of grace, months to keep, and what a token must prove before it is registered.

In: an unlocked vault and what is to be changed. Out: the new ``Policy``, audited and in the signed trust state. Not
here: what a grade means (tokens/attestation/grades.py) and who obeys the grace days (messages/months.py).
"""

from __future__ import annotations

from datetime import UTC, datetime

from medcrypt_hsm.errors import Refused, UsageError
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.vault.audit.actions import VAULT_POLICY
from medcrypt_hsm.vault.audit.trust import Policy, RegisteredToken, TrustState
from medcrypt_hsm.vault.unlocked import Unlocked

GRACE_DAYS = range(29)  # every month has a 28th
RETAIN_MONTHS = range(1, 1201)


def set_policy(
    unlocked: Unlocked,
    *,
    grace_days: int | None = None,
    retain_months: int | None = None,
    require_attestation: str | None = None,
) -> Policy:
    """Change what is given; without a difference nothing is written. Raises UsageError out of bounds."""

    def changed(old: Policy) -> Policy:
        return Policy(
            old.grace_days if grace_days is None else grace_days,
            old.retain_months if retain_months is None else retain_months,
            old.require_attestation if require_attestation is None else require_attestation,
        )

    check(changed(unlocked.state.policy))
    if changed(unlocked.state.policy) == unlocked.state.policy:
        return unlocked.state.policy
    with unlocked.change(VAULT_POLICY) as change:
        old = unlocked.state.policy  # looked at again under the write lock
        new = changed(old)
        change.put_trust("policy", "", new.value())
        change.detail.update(old=old.whole(), new=new.whole())
    return new


def check(policy: Policy) -> None:
    """Raises UsageError."""
    for what, value, bounds in (
        (t("grace days"), policy.grace_days, GRACE_DAYS),
        (t("months to keep"), policy.retain_months, RETAIN_MONTHS),
    ):
        if value not in bounds:
            raise UsageError(
                t("{value} is no number of {unit}", value=value, unit=what),
                t("give one from {least} to {most}", least=bounds[0], most=bounds[-1]),
            )
    if policy.require_attestation not in requirements():
        raise UsageError(
            t("{required!r} is no grade to require", required=policy.require_attestation),
            t("give one of {grades}", grades=", ".join(requirements())),
        )


def requirements() -> tuple[str, ...]:
    """What a policy can ask of tokens, the least first."""
    from medcrypt_hsm.tokens.attestation.grades import GRADES

    return ("none", *GRADES[1:])


def meets(policy: Policy, grade: str) -> bool:
    """Is a token of ``grade`` as good as the policy requires? An unknown grade is the worst."""
    from medcrypt_hsm.tokens.attestation.grades import GRADES

    required = policy.require_attestation
    return required == "none" or (grade in GRADES and GRADES.index(grade) >= GRADES.index(required))


def check_grade(policy: Policy, grade: str, reasons: tuple[str, ...] = ()) -> None:
    """Raises Refused."""
    if not meets(policy, grade):
        why = t(
            "this vault requires tokens that are {required}, and this one is {grade}",
            required=policy.require_attestation,
            grade=grade,
        )
        if reasons:
            why = t("{refusal} ({reasons})", refusal=why, reasons=joined("; ", reasons))
        raise Refused(why, "use another token, or give its vendor's certificates with --roots DIR")


def below(policy: Policy, token: RegisteredToken) -> str:
    """What keeps the policy from accepting this registered token today, in words; or ""."""
    if meets(policy, token.attestation):
        return ""
    return t(
        "token {token} is {attestation}, below what the policy requires: {required}",
        token=token.name,
        attestation=token.attestation,
        required=policy.require_attestation,
    )


def in_grace(month: Month, now: datetime, policy: Policy) -> bool:
    """Is ``month`` the one before the current, and the current one's grace days (UTC) not over?"""
    return month + 1 == Month.of(now) and now.astimezone(UTC).day <= policy.grace_days


def past_retention(state: TrustState, now: datetime) -> list[Month]:
    """The months that were kept as long as the policy asks, counted from their end, and are not shredded."""
    oldest = Month.of(now).ordinal - state.policy.retain_months
    return sorted(month for month in state.months if month.ordinal < oldest and not state.is_shredded(month))
