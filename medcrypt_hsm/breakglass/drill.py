"""Drills prove that a share is there, opens and matches: alone on the custodian's machine, or together with others.

In: custodians' open tokens. Out: a signed result for the practice to record, or the escrow opened and thrown away. A
drill shows and keeps nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from hashlib import sha256

from medcrypt_hsm.breakglass.approve import sign
from medcrypt_hsm.breakglass.custodians import MOST_SUBSETS, Candidate
from medcrypt_hsm.breakglass.journal import Journal
from medcrypt_hsm.crypto import shamir, xwing
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.errors import NotAuthentic, Refused, TokenUnfit, UsageError
from medcrypt_hsm.lifecycle import enroll, escrow, shares
from medcrypt_hsm.lifecycle.shares import ShareRecord
from medcrypt_hsm.notation import parse_time, timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import approval_name
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_DRILL
from medcrypt_hsm.vault.audit.consent import SKEW
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.statements import Drill, Signed, check_person
from medcrypt_hsm.vault.audit.trust_custody import BreakGlass
from medcrypt_hsm.vault.change import Change, failures_recorded
from medcrypt_hsm.vault.keyset import VaultKeyset
from medcrypt_hsm.vault.unlocked import Unlocked


def present(unlocked: Unlocked) -> BreakGlass:
    """Raises UsageError for a vault without custodians."""
    if (found := unlocked.state.breakglass) is None:
        raise UsageError("this vault has no custodians", "hold a ceremony: 'medcrypt breakglass ceremony'")
    return found


def alone(
    token: Token, journal: Journal, actor: str, now: datetime, ceremony: bytes | None = None
) -> tuple[Signed[Drill], ShareRecord]:
    """One custodian's drill, without the vault; ``ceremony`` where the token holds shares of several vaults.

    Raises TokenUnfit, NotAuthentic, UsageError, Failed.
    """
    check_person(actor)
    records = [r for r in shares.records_on(token) if ceremony in (None, r.ceremony)]
    if not records:
        raise TokenUnfit(t("token {token} holds no such share", token=token.info.label), "use the custodian's token")
    if len({record.vault_id for record in records}) > 1:
        ids = ", ".join(sorted(record.ceremony.hex() for record in records))
        raise UsageError(
            "this token holds shares of several vaults",
            t("name the ceremony with --ceremony: {ceremonies}", ceremonies=ids),
        )
    record = max(records, key=lambda record: record.entry)  # an old one may be left beside it
    shares.open_share(token, record).wipe()
    key = approval_name(record.vault_id, record.ceremony)
    told = Drill(
        record.vault_id,
        record.ceremony,
        record.name,
        record.x,
        record.commitment,
        actor,
        timestamp(now),
        sha256(b"").digest(),
    )
    signed = sign(token, key, told)
    journal.enter(token, key, signed, BREAKGLASS_DRILL, actor, timestamp(now))
    return signed, record


def record(unlocked: Unlocked, results: Sequence[Signed[Drill]]) -> list[str]:
    """Enter what custodians proved alone; their names. Raises BreakGlassRefused, NotAuthentic, Refused."""
    with unlocked.change(BREAKGLASS_DRILL, ", ".join(sorted(result.told.custodian for result in results))) as change:
        now = unlocked.clock.now()
        for result in sorted(results, key=lambda result: result.told.time):  # of two results the newer one counts
            _check(unlocked, result, now)
            custodian = present(unlocked).custodians[result.told.custodian]
            change.put_trust("custodian", custodian.name, custodian._replace(drilled=result.told.time).value())
        change.detail["results"] = [result.quoted() for result in results]
    return [result.told.custodian for result in results]


def _check(unlocked: Unlocked, result: Signed[Drill], now: datetime) -> None:
    glass, told = present(unlocked), result.told
    custodian = glass.custodians.get(told.custodian)
    whose = t("the drill result of {custodian!a}", custodian=told.custodian)
    if custodian is None or (told.vault_id, told.ceremony) != (unlocked.state.vault_id, glass.ceremony):
        raise BreakGlassRefused(
            Rule.BG_3, t("{result} is of another ceremony than {ceremony}", result=whose, ceremony=glass.ceremony.hex())
        )
    try:
        result.verify(custodian.approval_key)
        if (told.x, told.commitment) != (custodian.x, custodian.commitment):
            raise NotAuthentic("another share")
    except NotAuthentic as exc:
        raise NotAuthentic(
            t("{result} is not of the share on record: it was altered, or is forged", result=whose)
        ) from exc
    moment, since = parse_time(told.time), parse_time(glass.since)
    if told.time <= custodian.drilled or not since - SKEW <= moment <= now + SKEW:
        raise Refused(
            t(
                "{result} is of {time}: older than the last one or the ceremony, or ahead of the clock",
                result=whose,
                time=told.time,
            ),
            "have the custodian do the drill again",
        )


def reconstruct(unlocked: Unlocked, candidates: Sequence[Candidate]) -> list[tuple[str, ...]]:
    """Every t of these custodians open the escrow; which sets were tried. Raises NotAuthentic, TokenUnfit."""
    glass = present(unlocked)
    names = [candidate.name for candidate in candidates]
    if unknown := set(names) - set(glass.custodians):
        raise UsageError(
            t("there is no custodian {custodian}", custodian=", ".join(sorted(unknown))),
            t("they are: {custodians}", custodians=", ".join(glass.custodians)),
        )
    if len(set(names)) < glass.threshold:
        raise BreakGlassRefused(
            Rule.BG_2,
            t("{count} tokens are there, and {threshold} are needed", count=len(set(names)), threshold=glass.threshold),
        )
    with unlocked.change(BREAKGLASS_DRILL, ", ".join(names)) as change:
        change.detail["reconstructed"] = names
        for name in names:
            custodian = present(unlocked).custodians[name]
            change.put_trust("custodian", name, custodian._replace(drilled=change.time).value())

    def not_drilled(change: Change) -> None:
        for name in names:
            change.put_trust("custodian", name, glass.custodians[name].value())

    with failures_recorded(unlocked, BREAKGLASS_DRILL, ", ".join(names), undo=not_drilled):
        return _reconstruct(unlocked, glass, candidates)


def _reconstruct(unlocked: Unlocked, glass: BreakGlass, candidates: Sequence[Candidate]) -> list[tuple[str, ...]]:
    state, tried = unlocked.state, []
    with ExitStack() as stack:
        opened = {}
        for candidate in candidates:
            custodian = glass.custodians[candidate.name]
            found = shares.read_record(candidate.token, state.vault_id, glass.ceremony)
            y = stack.enter_context(shares.open_share(candidate.token, found, custodian.commitment))
            opened[candidate.name] = (custodian.x, y)
        for some in itertools.islice(itertools.combinations(opened, glass.threshold), MOST_SUBSETS):
            with shamir.combine({x: y.value for x, y in (opened[name] for name in some)}) as seed:
                if xwing.public_key(seed.value) != glass.key:
                    raise NotAuthentic(
                        t("the shares of {custodians} do not give the break-glass key", custodians=", ".join(some))
                    )
                keys = HostKeys()
                try:
                    secrets = escrow.open_keyset(
                        seed, glass.escrow.sealed, state.vault_id, state.generation, glass.ceremony
                    )
                    escrowed = VaultKeyset(keys.handles(secrets), state.vault_id)
                    enroll.prove_same(unlocked.keyset, escrowed)
                finally:
                    keys.wipe()
            tried.append(some)
    return tried
