"""Approvals put together: one patient read, or the whole practice brought to a new token.

    log verified ─▶ request and approvals checked ─▶ shares opened, combined ─▶ escrow ─▶ every row verified ─▶
    ``breakglass.open`` committed ─▶ texts, or a new token and a re-key that retires every other

In: a vault file, a request, its approvals, the requester's open token. The order is the point: nothing is unwrapped
before it is known whose log this is, and nothing shown before it is recorded. Not here: what counts as consent
(vault/audit/consent.py).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from medcrypt_hsm.breakglass.approve import open_approval
from medcrypt_hsm.breakglass.request import end_request, unwrap_seed, withdraw
from medcrypt_hsm.crypto import shamir, xwing
from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import MedcryptError, NotAuthentic, Refused, TokenUnfit, UsageError, VaultBusy, VaultError
from medcrypt_hsm.lifecycle import add_token, enroll, escrow
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.commit import Purpose
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens, nobody
from medcrypt_hsm.lifecycle.rekey import rekey_locked
from medcrypt_hsm.lifecycle.shares import ShareRecord
from medcrypt_hsm.messages import decrypt
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.messages.wire import Bad, Message
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import signer_name
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.anchoring import put_anchor
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.actions import (
    BREAKGLASS_CLOSE,
    BREAKGLASS_OPEN,
    BREAKGLASS_READ,
    BREAKGLASS_RECOVER,
    RECOVER,
)
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.consent import Opening, check_approvals, check_moment, check_request, guest_name
from medcrypt_hsm.vault.audit.entries import read_clear
from medcrypt_hsm.vault.audit.fields import introduction
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.statements import Approval, Request, RequestedBy, Signed
from medcrypt_hsm.vault.audit.trust import ABSENT, RegisteredToken, TrustState, finished_state
from medcrypt_hsm.vault.audit.trust_custody import OPEN, PATIENT, PRACTICE, Use
from medcrypt_hsm.vault.audit.verify import verify_chain
from medcrypt_hsm.vault.clock import Clock
from medcrypt_hsm.vault.keyset import VaultKeyset
from medcrypt_hsm.vault.store.store import Store
from medcrypt_hsm.vault.unlock import unlock
from medcrypt_hsm.vault.unlocked import Unlocked

_ANY = TokenOptions()


@dataclass(frozen=True, slots=True)
class Emergency:
    """What whoever uses break-glass brings. ``since``: checkpoints that were kept elsewhere."""

    request: Signed[Request]
    approvals: Sequence[Signed[Approval]]
    token: Token
    since: Sequence[Checkpoint] = ()
    options: TokenOptions = _ANY  # how the token is to serve, where it becomes the practice's
    end_session: Callable[[], object] = lambda: None  # whoever keeps the vault unlocked must stop

    @property
    def by(self) -> RequestedBy:
        return statements.requested_by(self.request)


def read(
    file: Store, emergency: Emergency, found: Sequence[Message | Bad], month: Month | None, actor: str, clock: Clock
) -> list[Opened]:
    """The one patient's messages among ``found``; then the request is used. Raises what stops it."""
    if emergency.request.told.scope != PATIENT:
        raise UsageError("this request is for the whole practice", "use it with 'medcrypt breakglass recover'")
    by = emergency.by
    with _opened(file, emergency, actor, clock) as (unlocked, opening, _):
        unlocked.guest = by.patient
        if not _goes_on(unlocked, emergency.request):
            with unlocked.change(BREAKGLASS_OPEN) as change:
                change.detail.update(opening.detail())
        newest = file.newest()
        assert newest is not None
        try:
            if read_clear(newest) is not None:  # the opening itself
                with unlocked.change(BREAKGLASS_READ, by.patient) as change:
                    change.detail["enclosure"] = emergency.request.enclosure.decode()
            return decrypt.decrypt(unlocked, found, archive=True, month=month)
        finally:
            with suppress(MedcryptError):  # the next entry of one of the vault's tokens ends the run as well
                with suppress(BreakGlassRefused), unlocked.change(BREAKGLASS_CLOSE) as change:  # or its time is over
                    change.detail["request"] = emergency.request.id.hex()
                withdraw(emergency.token, unlocked.state.vault_id)


def recover(file: Store, emergency: Emergency, actor: str, clock: Clock) -> tuple[Unlocked, Certificate]:
    """The practice on the requester's token, every other one retired. The vault is unlocked with it when it returns."""
    if emergency.request.told.scope != PRACTICE:
        raise UsageError("this request is for one patient", "use it with 'medcrypt breakglass decrypt'")
    name = emergency.by.name
    with file.surroundings.alone():
        if (use := _interrupted(file, emergency.request)) is None:
            with _opened(file, emergency, actor, clock) as (unlocked, opening, secret):
                _introduce(unlocked, emergency, opening, secret)
        unlocked = unlock(file, emergency.token, name, actor=actor, clock=clock)
        unlocked.clock.vouched = True
        unlocked.end_session = emergency.end_session
        if use is not None and not any(known.request == use.request for known in unlocked.state.uses):
            raise VaultBusy("the vault changed meanwhile", "run the command again")
        withdraw(emergency.token, unlocked.state.vault_id)
        former = [token for token in unlocked.state.tokens.values() if token.id != unlocked.registered.id]
        purpose = Purpose(
            RECOVER,
            BREAKGLASS_RECOVER,
            name,
            retire=former,
            detail={"enclosure": emergency.request.enclosure.decode(), "was": ABSENT},
            may=lambda vault: _still_recovering(vault, emergency.request),
        )
        others = OtherTokens(nobody, roots=emergency.options.roots, pins=emergency.options.pins)
        made = rekey_locked(unlocked, purpose, [], others)
    return unlocked, made


def _still_recovering(unlocked: Unlocked, request: Signed[Request]) -> None:
    if not any(use.request == request.id and use.phase == OPEN for use in unlocked.uses):
        raise BreakGlassRefused(Rule.BG_5, "this request was used already")


def _interrupted(file: Store, request: Signed[Request]) -> Use | None:
    """A recovery with this very request that was begun and not ended. Not verified yet: the unlock does that."""
    with file.snapshot():
        state = finished_state(file)
    return next((use for use in state.uses if use.request == request.id and use.phase == OPEN), None)


@contextmanager
def _opened(
    file: Store, emergency: Emergency, actor: str, clock: Clock
) -> Iterator[tuple[Unlocked, Opening, KeysetSecret]]:
    """The vault under the escrowed keyset, verified to the last row; its keys are wiped at the end."""
    request, now = emergency.request, clock()
    with file.snapshot():
        state = finished_state(file)
        chain = verify_chain(file, state, emergency.since)
        _check(file, chain, state, emergency)
    _check_moment(now, emergency)
    with ExitStack() as stack:
        secrets = _escrowed(state, chain, emergency)
        keys = HostKeys()
        stack.callback(keys.wipe)
        keyset = VaultKeyset(keys.handles(secrets), state.vault_id)
        unlocked = Unlocked(file, emergency.token, _guest(emergency), state, keyset, chain, actor, clock)
        unlocked.signing_key = signer_name(state.vault_id)
        unlocked.clock.vouched = True
        log.verify_rows(unlocked)
        unlocked.look_at_clock()
        _check_moment(unlocked.clock.now(), emergency)  # the next entries' time, which is never before the newest one's
        wrapping, mac, sealing = secrets
        yield unlocked, Opening(request, tuple(emergency.approvals), None), (wrapping.value, mac.value, sealing.value)


def _check_moment(now: datetime, emergency: Emergency) -> None:
    """BG-4; what a request that ended left on its token goes. Raises BreakGlassRefused."""
    try:
        check_moment(now, emergency.request, emergency.approvals)
    except BreakGlassRefused:
        if timestamp(now) > emergency.request.told.expires:
            with suppress(MedcryptError):
                end_request(emergency.token, emergency.request)
        raise


def _check(file: Store, chain: Chain, state: TrustState, emergency: Emergency) -> None:
    """Consent, and that it was asked for in this very history. Raises BreakGlassRefused, NotAuthentic, VaultError."""
    request, custody = emergency.request, chain.uses.custody
    if custody is None:
        raise BreakGlassRefused(Rule.BG_3, "this file has no custodians: it is from before the ceremony")
    statements.requested_by(request)
    used = {*chain.uses.noted, *chain.unnoted} - ({chain.guest.request.id} if chain.guest is not None else set())
    try:
        check_request(request, custody, state.vault_id, used)
    except BreakGlassRefused as exc:
        if exc.rule is Rule.BG_5:  # a run that was killed after its close may have left its request on the token
            with suppress(MedcryptError):
                end_request(emergency.token, request)
        raise
    row = file.entry(request.told.sequence)
    if row is None or row.hash != request.told.hash:
        raise VaultError(
            t(
                "the request was made in another history than this file's: audit entry {entry} differs, "
                "or is not there",
                entry=request.told.sequence,
            ),
            "use the file with which the request was made, or a newer one",
        )
    check_approvals(emergency.approvals, request, custody)
    serial = emergency.token.info.serial
    for name, told in custody.told.items():
        if told["serial"] == serial:
            raise BreakGlassRefused(
                Rule.BG_2, t("this token has the serial of the custodian {custodian}", custodian=name)
            )


def _escrowed(state: TrustState, chain: Chain, emergency: Emergency) -> tuple[Secret, Secret, Secret]:
    """The keyset. A commitment, a key or a seal proves each step's result. Raises NotAuthentic, VaultDamaged."""
    custody, present = chain.uses.custody, state.breakglass
    assert custody is not None
    assert present is not None
    with ExitStack() as stack:
        seed = stack.enter_context(unwrap_seed(emergency.token, emergency.request))
        shares = {}
        for approval in emergency.approvals:
            told = custody.told[approval.told.custodian]
            record = ShareRecord(
                state.vault_id,
                custody.ceremony,
                custody.signer,
                told["x"],
                custody.threshold,
                len(custody.told),
                told["name"],
                0,
                b"",
                bytes.fromhex(told["commitment"]),
            )
            y = stack.enter_context(open_approval(approval, emergency.request, seed, record))
            shares[record.x] = y.value
        key = stack.enter_context(shamir.combine(shares))
        if not hmac.compare_digest(hashlib.sha256(xwing.public_key(key.value)).digest(), custody.key):
            raise NotAuthentic(
                "the shares do not give the break-glass key on record", "try other custodians; then call the officer"
            )
        return escrow.open_keyset(key, present.escrow.sealed, state.vault_id, state.generation, custody.ceremony)


def _guest(emergency: Emergency) -> RegisteredToken:
    """The signer of the request, as the token that writes the log's next entries."""
    info, signer = emergency.token.info, emergency.request.told.signer
    name = guest_name(emergency.request.id)
    told = (info.uri, info.label, info.serial, info.model)
    return RegisteredToken(name, fingerprint(signer), signer, *told, "", b"", "never", "not-attested")


def _goes_on(unlocked: Unlocked, request: Signed[Request]) -> bool:
    """Was this very use interrupted after its opening?"""
    guest = unlocked.log.chain.guest
    return guest is not None and guest.request.id == request.id


def _introduce(unlocked: Unlocked, emergency: Emergency, opening: Opening, secret: KeysetSecret) -> None:
    """The requester's token becomes one of the vault's, in the one commit that says by whose consent."""
    token, state, name = emergency.token, unlocked.state, emergency.by.name
    add_token.check_name(unlocked, name)
    add_token.check_leftovers(unlocked, token)
    enroll.take_back(token, state.vault_id)
    try:
        registered = enroll.make_keys(token, name, state.vault_id, state.generation, emergency.options, state.policy)
        wrapped, keyset = enroll.wrap_keyset(token, registered, state.vault_id, state.generation, secret)
        try:
            enroll.prove_same(unlocked.keyset, keyset)
        finally:
            keyset.destroy()
    except (TokenUnfit, Refused):  # it cannot serve: the request stays on it, and nothing else of this vault
        enroll.take_back(token, state.vault_id)
        raise
    introduced = Opening(opening.request, opening.approvals, introduction(registered.value(), name))
    with unlocked.change(BREAKGLASS_OPEN) as change:
        put_anchor(token, registered.id, unlocked.log.chain, unlocked.clock.now())
        change.put_trust("token", name, registered.value())
        generation = state.generation
        change.put_trust("keyset", f"{generation}:{name}", wrapped.value())
        use = Use(opening.request.id, PRACTICE, change.sequence, change.time, OPEN)
        change.put_trust("use", use.request.hex(), use.value())
        change.detail.update(introduced.detail())
