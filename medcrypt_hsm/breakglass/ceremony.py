"""Ceremony, rotation, replacement: custodians' tokens opened, and the re-key that brings them in.

In: an unlocked vault, who is to hold a share, and how their PINs are asked for. Out: a certificate, which is the
ceremony's transcript. Not here: the shares themselves (custodians.py), and the re-key (lifecycle/rekey.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from medcrypt_hsm.breakglass import custodians as newcustody
from medcrypt_hsm.breakglass.custodians import Candidate, Wanted
from medcrypt_hsm.errors import PinNeeded, TokenAbsent, UsageError
from medcrypt_hsm.lifecycle.certificate import Certificate, base_of
from medcrypt_hsm.lifecycle.commit import Purpose
from medcrypt_hsm.lifecycle.others import Agree, OpenToken, OtherTokens, gather_all
from medcrypt_hsm.lifecycle.rekey import rekey_locked
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import PinPrompt, Token
from medcrypt_hsm.tokens.uri import stored_uri
from medcrypt_hsm.vault.audit.actions import (
    BREAKGLASS_CEREMONY,
    BREAKGLASS_REPLACE,
    BREAKGLASS_ROTATE,
    CEREMONY,
    REPLACE,
    ROTATE,
)
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.change import refusals_recorded
from medcrypt_hsm.vault.unlocked import Unlocked

PinOf = Callable[[str], PinPrompt]
"""How the PIN of the custodian of that name is asked for."""
ACTIONS = {CEREMONY: BREAKGLASS_CEREMONY, ROTATE: BREAKGLASS_ROTATE, REPLACE: BREAKGLASS_REPLACE}


def check(state: TrustState, reason: str) -> None:
    """Raises UsageError for a first ceremony where there was one, or another where there was none."""
    if reason == CEREMONY and state.breakglass is not None:
        raise UsageError(
            t("this vault has custodians since {since}", since=state.breakglass.since),
            "use 'medcrypt breakglass rotate', or 'replace NAME'",
        )
    if reason != CEREMONY and state.breakglass is None:
        raise UsageError("this vault has no custodians", "hold a ceremony: 'medcrypt breakglass ceremony'")


def replaced(state: TrustState, gone: str, name: str, uri: str) -> dict[str, str]:
    """Custodians and their tokens with one exchanged, in their order. Raises UsageError."""
    check(state, REPLACE)
    assert state.breakglass is not None
    custodians = sorted(state.breakglass.custodians.values(), key=lambda custodian: custodian.x)
    names = [custodian.name for custodian in custodians]
    if gone not in names:
        raise UsageError(
            t("there is no custodian {custodian}", custodian=gone),
            t("they are: {custodians}", custodians=", ".join(names)),
        )
    if name in names and name != gone:
        raise UsageError(t("{custodian} is a custodian already", custodian=name), "each custodian holds one share")
    return {name if c.name == gone else c.name: uri if c.name == gone else stored_uri(c.uri) for c in custodians}


def present_ones(state: TrustState, instead: Mapping[str, str]) -> dict[str, str]:
    """The custodians on record and their tokens; ``instead``: tokens that somebody has in place of theirs."""
    check(state, ROTATE)
    assert state.breakglass is not None
    custodians = sorted(state.breakglass.custodians.values(), key=lambda custodian: custodian.x)
    if unknown := set(instead) - {custodian.name for custodian in custodians}:
        raise UsageError(
            t("there is no custodian {custodian}", custodian=", ".join(sorted(unknown))),
            "to exchange one: 'medcrypt breakglass replace NAME --share-token NEW=URI'",
        )
    return {c.name: instead.get(c.name) or stored_uri(c.uri) for c in custodians}


@contextmanager
def opened(
    unlocked: Unlocked, wanted: Mapping[str, str], pin_of: PinOf, company: OtherTokens
) -> Iterator[list[Candidate]]:
    """Each custodian's token, open. Raises TokenAbsent, BreakGlassRefused (BG-1), and what is wrong with a PIN."""
    seen = {unlocked.token.info.uri: t("the token in use, {token}", token=unlocked.registered.name)}
    registered = {
        token.serial: t("token {token} of the vault", token=token.name) for token in unlocked.state.tokens.values()
    }
    for name, uri in wanted.items():
        try:
            info = company.access.find(uri)
        except TokenAbsent as exc:
            raise TokenAbsent(
                t("the token of custodian {custodian} is not there: {reason}", custodian=name, reason=exc.message),
                exc.hint,
            ) from exc
        whose = seen.get(info.uri) or registered.get(info.serial)  # one of the vault's may be open already
        if whose is not None:
            raise BreakGlassRefused(
                Rule.BG_1, t("the token for {custodian} is {other}", custodian=name, other=whose), "use another token"
            )
        seen[info.uri] = t("the token for {custodian}", custodian=name)
    with ExitStack() as stack:
        yield [Candidate(name, stack.enter_context(_open(uri, pin_of(name), company))) for name, uri in wanted.items()]


def _open(uri: str, pin: PinPrompt, company: OtherTokens) -> Token:
    return company.access._replace(pin=pin).open(uri)


@contextmanager
def former(
    unlocked: Unlocked, already: Sequence[Candidate], pin_of: PinOf, company: OtherTokens
) -> Iterator[list[Token]]:
    """Those tokens beside them that hold old shares, or will, and are there with their PIN."""
    known = {candidate.token.info.uri for candidate in already} | {unlocked.token.info.uri}
    state = unlocked.state
    told = [(share.name, share.uri) for share in state.old_shares]
    told += [] if state.breakglass is None else [(c.name, c.uri) for c in state.breakglass.custodians.values()]
    with ExitStack() as stack:
        found = []
        for name, uri in told:
            with suppress(TokenAbsent, PinNeeded):  # it stays on record as not destroyed
                info = company.access.find(stored_uri(uri))
                if info.uri not in known:
                    found.append(stack.enter_context(_open(info.uri, pin_of(name), company)))
                    known.add(info.uri)
        yield found


class Convened(NamedTuple):
    """Who is to hold a share, and why they come together."""

    reason: str  # CEREMONY, ROTATE or REPLACE
    shares: Mapping[str, str]  # name → URI of the token for the share
    threshold: int | None  # None: as before
    subject: str  # whom the log names


def convene(
    unlocked: Unlocked,
    convened: Convened,
    pin_of: PinOf,
    company: OtherTokens,
    *,
    agree: Agree,
    transcript: Path | None,
) -> Certificate:
    """Check, ask, open every token, and hold the ceremony. What is refused leaves an entry."""
    reason, shares, threshold, subject = convened
    to = base_of(transcript)
    present = unlocked.state.breakglass
    before = 2 if present is None else present.threshold
    wanted_threshold = before if threshold is None else threshold

    def check_wanted() -> None:
        newcustody.check_names(list(shares), wanted_threshold)
        check(unlocked.state, reason)

    refusing(unlocked, reason, subject, check_wanted)
    agree()
    with (
        gather_all(unlocked, company) as others,
        opened(unlocked, shares, pin_of, company) as candidates,
        former(unlocked, candidates, pin_of, company) as old,
    ):
        wanted = Wanted(candidates, wanted_threshold, company.roots, company.pins)
        refusing(unlocked, reason, subject, lambda: newcustody.check_candidates(unlocked.state, candidates))
        return hold(unlocked, reason, subject, wanted, others, company, old, to)


def hold(
    unlocked: Unlocked,
    reason: str,
    subject: str,
    wanted: Wanted,
    others: Sequence[OpenToken],
    company: OtherTokens,
    old: Sequence[Token],
    to: Path | None,
) -> Certificate:
    """New custodians, by a re-key. ``old``: further tokens, with shares of custodians who are none any more."""
    names = [candidate.name for candidate in wanted.candidates]

    def may(vault: Unlocked) -> None:
        check(vault.state, reason)
        newcustody.check_candidates(vault.state, wanted.candidates)

    purpose = Purpose(
        reason,
        ACTIONS[reason],
        subject,
        custody=lambda vault: newcustody.made(vault, wanted),
        detail={"custodians": names, "threshold": wanted.threshold},
        may=may,
    )
    holders = [*(candidate.token for candidate in wanted.candidates), *old]
    with unlocked.file.surroundings.alone():
        return rekey_locked(unlocked, purpose, others, company, to, holders)


def refusing(unlocked: Unlocked, reason: str, subject: str, check: Callable[[], None]) -> None:
    """``check``; a refusal leaves an entry, also before any token is asked for a PIN."""
    with refusals_recorded(unlocked, ACTIONS[reason], subject):
        check()
