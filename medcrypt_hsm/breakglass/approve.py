"""The custodian's side: a request is read, and the share on the custodian's token sealed to it.

In: a request file and the custodian's token, on a machine of their own, without the vault. Out: an approval, entered in
the journal before it leaves. Not here: whether enough of them came together (vault/audit/consent.py, recover.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from medcrypt_hsm.breakglass.journal import Journal
from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, TokenUnfit
from medcrypt_hsm.lifecycle import shares
from medcrypt_hsm.lifecycle.shares import ShareRecord
from medcrypt_hsm.notation import ctx, timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import approval_name
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_APPROVE
from medcrypt_hsm.vault.audit.consent import check_moment
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.statements import Approval, Request, RequestedBy, Signed


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A request that this custodian may approve: what they should read before they do."""

    request: Signed[Request]
    by: RequestedBy
    record: ShareRecord
    seen_before: int  # the highest entry of the vault's log that an earlier request named, on this machine


def review(token: Token, request: Signed[Request], journal: Journal, now: datetime) -> Reviewed:
    """Raises BreakGlassRefused for a request that this token has no share for, or that has ended; NotAuthentic."""
    told = request.told
    request.verify(told.signer)
    by = statements.requested_by(request)
    check_moment(now, request, ())
    try:
        record = shares.read_record(token, told.vault_id, told.ceremony)
    except TokenUnfit as exc:
        held = ", ".join(sorted({r.ceremony.hex() for r in shares.records_on(token) if r.vault_id == told.vault_id}))
        if held:
            why = t(
                "the request is to the custodians of ceremony {ceremony} of vault {vault}, and this token's share is "
                "of {held}",
                ceremony=told.ceremony.hex(),
                vault=told.vault_id.hex(),
                held=held,
            )
        else:
            why = t(
                "the request is to the custodians of ceremony {ceremony} of vault {vault}, and this token holds no "
                "share of that vault",
                ceremony=told.ceremony.hex(),
                vault=told.vault_id.hex(),
            )
        raise BreakGlassRefused(Rule.BG_3, why, "use the right token, or have a new request made") from exc
    if by.token["serial"] == token.info.serial:
        raise BreakGlassRefused(Rule.BG_2, "the request was made with this very token")
    return Reviewed(request, by, record, journal.highest(told.vault_id))


def approve(token: Token, reviewed: Reviewed, journal: Journal, actor: str, now: datetime) -> Signed[Approval]:
    """The share, opened, matched and sealed to the request alone. Raises NotAuthentic, TokenUnfit, Failed."""
    statements.check_person(actor)
    request, record = reviewed.request, reviewed.record
    told, key = request.told, approval_name(record.vault_id, record.ceremony)
    with shares.open_share(token, record) as y:
        enclosure = xwing.seal(told.key, share_info(request, record.x), y.value).hex().encode()
    approval = Approval(
        told.vault_id,
        told.ceremony,
        request.id,
        record.name,
        record.x,
        record.commitment,
        record.audit_key,
        timestamp(now),
        sha256(enclosure).digest(),
    )
    signed = sign(token, key, approval, enclosure)
    journal.enter(token, key, signed, BREAKGLASS_APPROVE, actor, timestamp(now), told.sequence)
    return signed


def sign(token: Token, key: str, told: statements.T, enclosure: bytes = b"") -> Signed[statements.T]:
    """A statement signed by that key on the token."""
    unsigned = Signed(told, statements.encode(told), bytes(64), enclosure)
    try:
        return Signed(told, unsigned.statement, token.sign(key, unsigned.to_sign), enclosure)
    except KeyError as exc:
        raise TokenUnfit(
            t("token {token} holds no approval key for its share", token=token.info.label), "tell the security officer"
        ) from exc


def share_info(request: Signed[Request], x: int) -> bytes:
    """What a share that is sealed to a request is bound to."""
    told = request.told
    return ctx("medcrypt/approval", told.vault_id, told.ceremony, request.id, bytes([x]))


def open_approval(approval: Signed[Approval], request: Signed[Request], seed: Secret, record: ShareRecord) -> Secret:
    """y of one approval; the caller wipes it. ``record``: what the log tells of this share.

    Raises NotAuthentic, naming the custodian.
    """
    who = approval.told.custodian
    try:
        sealed = bytes.fromhex(approval.enclosure.decode("ascii"))
        y = xwing.open_with_seed(seed, share_info(request, approval.told.x), sealed)
    except (ValueError, NotAuthentic) as exc:
        raise NotAuthentic(
            t("the share in the approval of {custodian} does not open", custodian=who),
            "ask the custodian to approve the request again",
        ) from exc
    if len(y.value) != 32 or record.commit_to(y.value) != record.commitment:
        y.wipe()
        raise NotAuthentic(
            t(
                "the share in the approval of {custodian} does not match its commitment ({rule})",
                custodian=who,
                rule=Rule.BG_6,
            ),
            "the share was altered: go on with other custodians, and tell the security officer",
        )
    return y
