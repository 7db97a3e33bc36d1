"""A new break-glass key and its custodians, within the re-key that brings them in (docs/spec/breakglass.md).

    seed ─▶ shares ─▶ each on its token ─▶ read back, matched, put together again ─▶ the re-key's commit

In: an unlocked vault and the custodians' open tokens. Out: ``NewCustody``, which the re-key commits, and whose seed
lives until then. What a failure left on tokens is taken back. Not here: opening tokens (ceremony.py), the rows that the
commit writes (lifecycle/custody_upkeep.py), and the re-key.
"""

from __future__ import annotations

import hmac
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from medcrypt_hsm.crypto import shamir, xwing
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import MedcryptError, NotAuthentic, Refused, TokenUnfit, UsageError
from medcrypt_hsm.lifecycle import shares
from medcrypt_hsm.lifecycle.custody_upkeep import NewCustody, known_ceremonies
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.shares import ShareRecord
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import P256_HPKE, Token
from medcrypt_hsm.tokens.attestation import grades
from medcrypt_hsm.tokens.attestation.vendor import PINNED
from medcrypt_hsm.tokens.names import (
    anchor_name,
    approval_name,
    audit_key_name,
    kek_prefix,
    request_name,
    share_kek_name,
)
from medcrypt_hsm.vault import policy
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.statements import is_name
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.audit.trust_custody import (
    CEREMONY_BYTES,
    MOST,
    Custodian,
)
from medcrypt_hsm.vault.unlock import prove_key
from medcrypt_hsm.vault.unlocked import Unlocked

MOST_SUBSETS = 200  # of t shares that are put together as a proof; 3 for 2 of 3, 120 for 3 of 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who is to hold a share, and the token for it, open."""

    name: str
    token: Token


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ceremony that is to be held. ``roots`` and ``pins`` as in ``TokenOptions``."""

    candidates: Sequence[Candidate]
    threshold: int
    roots: Sequence[bytes] = ()
    pins: Mapping[bytes, str] | None = None


def check_names(names: Sequence[str], threshold: int) -> None:
    """Raises UsageError, before any token is looked for."""
    if not 2 <= threshold <= len(names) <= MOST:
        raise UsageError(
            t("{threshold} of {count} custodians cannot be", threshold=threshold, count=len(names)),
            t("the threshold is at least 2 and at most the number of custodians, which is at most {most}", most=MOST),
        )
    for name in names:
        if not is_name(name):
            raise UsageError(
                t("{name!r} is no name for a custodian", name=name), "use letters, digits, - and _, for example ana"
            )
        if names.count(name) > 1:
            raise UsageError(
                t("custodian {custodian} is named twice", custodian=name), "give each custodian a name of their own"
            )


def check_candidates(state: TrustState, candidates: Sequence[Candidate]) -> None:
    """BG-1. Raises BreakGlassRefused."""
    taken = {token.serial: t("token {token} of the vault", token=token.name) for token in state.tokens.values()}
    taken |= {
        begun.serial: t("token {token}, which is being added", token=begun.name) for begun in state.adding.values()
    }
    for candidate in candidates:
        serial = candidate.token.info.serial
        if serial in taken:
            raise BreakGlassRefused(
                Rule.BG_1,
                t(
                    "the token for {custodian} has the serial {serial}, as has {other}",
                    custodian=candidate.name,
                    serial=serial,
                    other=taken[serial],
                ),
            )
        taken[serial] = t("the token for {custodian}", custodian=candidate.name)
        if holds_other_than_shares(candidate.token, state.vault_id):  # serials are only claims, and this is not
            raise BreakGlassRefused(
                Rule.BG_1,
                t(
                    "the token for {custodian} holds keys of this vault that are no share: it is a doctor's, or a "
                    "requester's",
                    custodian=candidate.name,
                ),
                "use another token",
            )


def holds_other_than_shares(token: Token, vault_id: bytes) -> bool:
    """Does the token hold what opens this vault, signs its log, or asks for it?"""
    others = (audit_key_name(vault_id), anchor_name(vault_id), request_name(vault_id))
    return any(name in others or name.startswith(kek_prefix(vault_id)) for name in token.names())


@contextmanager
def made(unlocked: Unlocked, wanted: Wanted) -> Iterator[NewCustody]:
    """Every share on its token, read back and verified. Raising inside takes everything back.

    Raises BreakGlassRefused, Refused (below the policy), TokenUnfit, NotAuthentic.
    """
    state, count = unlocked.state, len(wanted.candidates)
    check_names([candidate.name for candidate in wanted.candidates], wanted.threshold)
    check_candidates(state, wanted.candidates)
    known = known_ceremonies(state)
    left = {c.name: shares.leftovers(c.token, state.vault_id, known, unlocked.log.hash_of) for c in wanted.candidates}
    for candidate in wanted.candidates:
        for ceremony in left[candidate.name]:
            shares.destroy(candidate.token, state.vault_id, ceremony)
    ceremony = os.urandom(CEREMONY_BYTES)  # one that was there before would be refused at the commit
    try:
        with ExitStack() as stack:
            seed = stack.enter_context(Secret(os.urandom(xwing.SEED)))
            parts = [stack.enter_context(y) for y in shamir.split(seed.value, wanted.threshold, count)]
            custodians = []
            for x, (candidate, y) in enumerate(zip(wanted.candidates, parts, strict=True), 1):
                history = unlocked.log.sequence, unlocked.log.head
                whose = state.vault_id, ceremony, unlocked.registered.id
                record = ShareRecord(*whose, x, wanted.threshold, count, candidate.name, *history)
                custodians.append(_place(candidate, record, y, wanted, unlocked))
                y.wipe()
            _prove(wanted, state.vault_id, custodians, ceremony, seed)
            key = xwing.public_key(seed.value)
            yield NewCustody(ceremony, key, wanted.threshold, tuple(custodians), seed)
    except BaseException:
        if unlocked.state.breakglass is None or unlocked.state.breakglass.ceremony != ceremony:
            take_back(unlocked, wanted.candidates, ceremony)
        raise


def take_back(unlocked: Unlocked, candidates: Sequence[Candidate], ceremony: bytes) -> None:
    """Take back what was made for a ceremony that failed. Why it failed matters more than what fails here."""
    with suppress(MedcryptError):
        with unlocked.file.transaction():
            unlocked.catch_up()  # an interrupt can come after the commit and before this process knows of it
            if unlocked.state.breakglass is not None and unlocked.state.breakglass.ceremony == ceremony:
                return
            # As when a re-key is rolled back: a commit that failed half-way on a dying disk must not come back when its
            # shares are gone. If this write fails too, nothing is destroyed; the next ceremony takes the shares back.
            unlocked.file.write_nothing()
        for candidate in candidates:
            with suppress(MedcryptError):
                shares.destroy(candidate.token, unlocked.state.vault_id, ceremony)


def _place(candidate: Candidate, record: ShareRecord, y: Secret, wanted: Wanted, unlocked: Unlocked) -> Custodian:
    """Both keys and the share on one token."""
    token, vault_id, ceremony = candidate.token, record.vault_id, record.ceremony
    kek, approval = share_kek_name(vault_id, ceremony), approval_name(vault_id, ceremony)
    profile = TokenOptions().profile_of(token)
    token.make_kek(kek, profile)
    spki = token.make_signing_key(approval)
    pins = PINNED if wanted.pins is None else wanted.pins
    grade, reasons = grades.together(grades.grade(token, (kek, approval), wanted.roots, pins))
    try:
        policy.check_grade(unlocked.state.policy, grade, reasons)
    except Refused as exc:
        raise BreakGlassRefused(
            Rule.BG_7, t("custodian {custodian}: {reason}", custodian=candidate.name, reason=exc.message), exc.hint
        ) from exc
    try:
        prove_key(token, approval, spki, vault_id)
    except NotAuthentic as exc:
        raise TokenUnfit(
            t("the approval key of {custodian} does not sign for its public key", custodian=candidate.name)
        ) from exc
    written = shares.place(token, record, y.value)
    info = token.info
    public = token.public_key(kek) if profile == P256_HPKE else b""
    told = (info.uri, info.label, info.serial, info.model, profile, grade)
    return Custodian(candidate.name, spki, public, written.commitment, record.x, *told)


def _prove(wanted: Wanted, vault_id: bytes, custodians: Sequence[Custodian], ceremony: bytes, seed: Secret) -> None:
    """BG-6: read back from the tokens, each matches its commitment, and t at a time they are the seed."""
    with ExitStack() as stack:
        opened = {}
        for candidate, custodian in zip(wanted.candidates, custodians, strict=True):
            record = shares.read_record(candidate.token, vault_id, ceremony)
            opened[custodian.x] = stack.enter_context(shares.open_share(candidate.token, record, custodian.commitment))
        for some in itertools.islice(itertools.combinations(opened, wanted.threshold), MOST_SUBSETS):
            with shamir.combine({x: opened[x].value for x in some}) as found:
                if not hmac.compare_digest(found.value, seed.value):
                    raise TokenUnfit(
                        t(
                            "the shares {custodians} do not give the break-glass key ({rule})",
                            custodians=some,
                            rule=Rule.BG_6,
                        )
                    )
