"""The requester's side: a request made on a token that opens nothing yet, and what the token keeps of it.

In: the vault's file, a token, a reason. Out: a signed request, for the custodians; on the token the seed that will open
their approvals. Not here: what follows when they have approved (recover.py).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from medcrypt_hsm.breakglass.journal import Journal
from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, Refused, TokenUnfit, UsageError
from medcrypt_hsm.lifecycle import shares
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.messages.wire.v1 import check_patient_id
from medcrypt_hsm.notation import canonical, ctx, timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import (
    anchor_name,
    audit_key_name,
    kek_prefix,
    request_kek_name,
    request_name,
    signer_name,
)
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_REQUEST
from medcrypt_hsm.vault.audit.consent import check_request
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.statements import Request, RequestedBy, Signed
from medcrypt_hsm.vault.audit.trust import finished_state
from medcrypt_hsm.vault.audit.trust_custody import GUEST, PATIENT, PRACTICE
from medcrypt_hsm.vault.audit.verify import verify_chain
from medcrypt_hsm.vault.store.store import Store

HOURS = 24


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What the requester asks for. ``patient``: its id, or "" for the whole practice."""

    name: str
    reason: str
    requester: str
    patient: str = ""
    hours: int = HOURS

    def check(self) -> None:
        """Raises UsageError, BreakGlassRefused."""
        if not statements.is_name(self.name) or self.name.startswith(GUEST):
            raise UsageError(
                t("{name!r} is no name for a token", name=self.name), "use letters, digits, - and _, for example new"
            )
        if not self.reason.strip() or len(self.reason) > statements.LONGEST_REASON:
            raise UsageError(
                t("a reason is needed, of at most {most} characters", most=statements.LONGEST_REASON),
                "say why: the custodians read it, and so will the auditor",
            )
        statements.check_text(self.reason)
        statements.check_person(self.requester)
        if self.patient:
            check_patient_id(self.patient)
        if not 1 <= self.hours <= statements.LONGEST_HOURS:
            raise BreakGlassRefused(
                Rule.BG_4, t("{hours} hours are not possible", hours=self.hours), "give 1 to 72 hours"
            )


def make(file: Store, token: Token, options: RequestOptions, journal: Journal, now: datetime) -> Signed[Request]:
    """A request to the vault's present custodians; an earlier one of this token is taken back.

    Raises UsageError, BreakGlassRefused (BG-1), Refused, TokenUnfit, AuditBroken, Failed.
    """
    options.check()
    with file.snapshot():
        state = finished_state(file)
        chain = verify_chain(file, state)
    if chain.uses.custody is None:
        raise Refused(
            "this vault has no custodians: nobody can open it but its own tokens",
            "hold a ceremony while a token is there: 'medcrypt breakglass ceremony'",
        )
    if options.name in chain.names.values():
        raise UsageError(t("this vault has, or had, a token called {name}", name=options.name), "choose another name")
    vault_id = state.vault_id
    _check_token(token, vault_id)
    withdraw(token, vault_id)
    token.put_object(request_name(vault_id), _Kept(b"", b"").encode())
    token.make_kek(request_kek_name(vault_id), TokenOptions().profile_of(token))
    signer = token.make_signing_key(signer_name(vault_id))
    with Secret(os.urandom(xwing.SEED)) as seed:
        key = xwing.public_key(seed.value)
        wrapped = token.wrap_key(request_kek_name(vault_id), seed.value, _info(vault_id, signer))
    info = token.info
    about = {"label": info.label, "model": info.model, "serial": info.serial, "uri": info.uri}
    enclosure = RequestedBy(
        options.name, options.patient, options.reason, options.requester, about, os.urandom(16).hex()
    ).encode()
    told = Request(
        vault_id,
        chain.uses.custody.ceremony,
        timestamp(now),
        timestamp(now + timedelta(hours=options.hours)),
        *chain.settled,
        key,
        PATIENT if options.patient else PRACTICE,
        signer,
        sha256(enclosure).digest(),
    )
    unsigned = Signed(told, statements.encode(told), bytes(64), enclosure)
    signed = Signed(told, unsigned.statement, token.sign(signer_name(vault_id), unsigned.to_sign), enclosure)
    check_request(signed, chain.uses.custody, vault_id, ())
    token.put_object(request_name(vault_id), _Kept(signed.id, wrapped).encode())
    with unwrap_seed(token, signed):  # it comes back, or the approvals would be in vain
        pass
    journal.enter(
        token, signer_name(vault_id), signed, BREAKGLASS_REQUEST, options.requester, told.created, told.sequence
    )
    return signed


def _check_token(token: Token, vault_id: bytes) -> None:
    names = token.names()
    kept = (audit_key_name(vault_id), anchor_name(vault_id))
    if request_name(vault_id) not in names and any(n in kept or n.startswith(kek_prefix(vault_id)) for n in names):
        raise BreakGlassRefused(
            Rule.BG_1,
            "this token is or was one of the vault's",
            "if it opens the vault, nothing has to be asked for; otherwise use another token",
        )
    if shares.ceremonies_on(token, vault_id):
        raise BreakGlassRefused(Rule.BG_1, "this token holds a custodian's share", "use another token")


@dataclass(frozen=True, slots=True)
class _Kept:
    """The object on the token: of which request, and the wrapped seed. Empty while the request is being made."""

    request: bytes
    seed: bytes

    def encode(self) -> bytes:
        return canonical({"request": self.request.hex(), "seed": self.seed.hex(), "version": 1})

    @classmethod
    def parse(cls, data: bytes) -> _Kept:
        """Raises ValueError, KeyError, TypeError."""
        value = json.loads(data)
        kept = cls(bytes.fromhex(value["request"]), bytes.fromhex(value["seed"]))
        if kept.encode() != data:
            raise ValueError("not a request's object")
        return kept


def _info(vault_id: bytes, signer: bytes) -> bytes:
    return ctx("medcrypt/request-kek", vault_id, fingerprint(signer))


def unwrap_seed(token: Token, request: Signed[Request]) -> Secret:
    """What opens the approvals of this request; the caller wipes it.

    Raises TokenUnfit for a token that did not make it, NotAuthentic for one whose objects were altered.
    """
    vault_id = request.told.vault_id
    try:
        found = [_Kept.parse(value) for value in token.read_objects(request_name(vault_id))]
        kept = next((kept for kept in found if kept.request == request.id), None)
        if kept is None or token.public_key(signer_name(vault_id)) != request.told.signer:
            raise KeyError
        seed = token.unwrap_key(request_kek_name(vault_id), kept.seed, _info(vault_id, request.told.signer))
    except (KeyError, ValueError, TypeError) as exc:
        raise TokenUnfit(
            t("this request was not made with token {token}, or was taken back since", token=token.info.label),
            "use the token that made it, or make a new request: 'medcrypt breakglass request'",
        ) from exc
    if xwing.public_key(seed.value) != request.told.key:
        seed.wipe()
        raise NotAuthentic("the request's key on the token was exchanged", "make a new request with another token")
    return seed


def end_request(token: Token, request: Signed[Request]) -> None:
    """Take this request back, and no newer one that the token may have made."""
    vault_id = request.told.vault_id
    with suppress(ValueError, KeyError, TypeError):
        if any(_Kept.parse(value).request == request.id for value in token.read_objects(request_name(vault_id))):
            withdraw(token, vault_id)


def withdraw(token: Token, vault_id: bytes) -> None:
    """Destroy what a request put on the token, and nothing else: it may be a token of the vault by now."""
    for name in (request_kek_name(vault_id), signer_name(vault_id), request_name(vault_id)):
        token.destroy(name)
