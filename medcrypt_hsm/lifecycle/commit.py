"""TODO."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import VaultBusy, VaultDamaged
from medcrypt_hsm.lifecycle import enroll, escrow, holds
from medcrypt_hsm.lifecycle.custody_upkeep import end_recoveries, reescrow
from medcrypt_hsm.lifecycle.others import OpenToken, OtherTokens
from medcrypt_hsm.messages.months import drop_expired_codes
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.names import kek_name
from medcrypt_hsm.tokens.p256_hpke import wrap_keyset
from medcrypt_hsm.vault import policy
from medcrypt_hsm.vault.audit.actions import RECOVER, VAULT_REKEY
from medcrypt_hsm.vault.audit.chain_signers import NewKek
from medcrypt_hsm.vault.audit.trust import (
    ABSENT,
    COMMITTED,
    MonthState,
    OldKek,
    RegisteredToken,
    RetiredToken,
    WrappedKeyset,
)
from medcrypt_hsm.vault.change import Change
from medcrypt_hsm.vault.keyset import CHAIN, LOG, MESSAGE, HostKeyset, VaultKeyset
from medcrypt_hsm.vault.unlock import keyset_to_host
from medcrypt_hsm.vault.unlocked import Unlocked, keyset_info, log_month


class NewCustody(Protocol):
    """A new break-glass key whose shares are on custodians' tokens already (breakglass/custodians.py)."""

    @property
    def ceremony(self) -> bytes: ...
    @property
    def key(self) -> bytes:
        """The public one."""

    @property
    def seed(self) -> Secret:
        """The private one, until the commit."""

    def commit(self, unlocked: Unlocked, change: Change, generation: int, escrowed: bytes) -> None:
        """The rows, and what the entry tells. Inside the re-key's change."""


MakeCustody = Callable[[Unlocked], AbstractContextManager[NewCustody]]
"""Makes the shares, verified; raising inside takes everything back."""


def _may_always(unlocked: Unlocked) -> None: ...


@dataclass(frozen=True, slots=True)
class Purpose:
    """Why the vault is re-keyed, and what is not carried over.

    ``action`` and ``subject`` are those of the sealed entries that tell of it; ``may`` raises if it must not be, and is
    asked again under the write lock.
    """

    reason: str
    action: str
    subject: str
    months: Collection[Month] = ()
    pairings: Collection[bytes] = ()
    retire: Collection[RegisteredToken] = ()
    custody: MakeCustody | None = None  # new custodians, and with them a new break-glass key
    detail: Mapping[str, Any] = field(default_factory=dict)
    may: Callable[[Unlocked], None] = _may_always


def make_and_commit(
    unlocked: Unlocked, purpose: Purpose, presents: Sequence[OpenToken], generation: int, company: OtherTokens
) -> None:
    made = {p.name: new_kek(unlocked, p, generation, company) for p in presents}
    with ExitStack() as stack:
        custody = None if purpose.custody is None else stack.enter_context(purpose.custody(unlocked))
        old_keys, new_keys = HostKeys(), HostKeys()
        stack.callback(old_keys.wipe)
        stack.callback(new_keys.wipe)
        old = HostKeyset(old_keys, keyset_to_host(unlocked), unlocked.state.vault_id)
        wrapping, mac, sealing = (Secret(os.urandom(32)) for _ in range(3))
        new = HostKeyset(new_keys, (wrapping, mac, sealing), unlocked.state.vault_id)
        secret = (wrapping.value, mac.value, sealing.value)
        keysets, handles = _wrap(unlocked, purpose, presents, made, generation, secret, new)
        try:
            escrowed = _escrow(unlocked, custody, generation, secret)
            _commit(unlocked, purpose, made, keysets, old, new, company, custody, escrowed)
        except BaseException:
            handles.destroy()
            raise
    unlocked.exchange_keyset(handles)
    unlocked.registered = unlocked.state.tokens[unlocked.registered.name]


def _escrow(unlocked: Unlocked, custody: NewCustody | None, generation: int, secret: KeysetSecret) -> bytes:
    """The new keyset for the break-glass key that will count; empty where there is none."""
    vault_id, present = unlocked.state.vault_id, unlocked.state.breakglass
    if custody is not None:
        sealed = escrow.seal(custody.key, secret, vault_id, generation, custody.ceremony)
        escrow.prove(custody.seed, sealed, secret, vault_id, generation, custody.ceremony)
        return sealed
    return b"" if present is None else escrow.seal(present.key, secret, vault_id, generation, present.ceremony)


def new_kek(unlocked: Unlocked, present: OpenToken, generation: int, company: OtherTokens) -> RegisteredToken:
    """A root KEK of ``generation`` made on the token, and the token's row with it. Raises TokenUnfit, Refused."""
    name, token = kek_name(unlocked.state.vault_id, generation), present.token
    registered = unlocked.state.tokens[present.name]
    token.destroy(name)  # a leftover of what was interrupted; it wraps nothing
    token.make_kek(name, registered.profile, touch=registered.touch)
    keys = enroll.keys_of(unlocked.state.vault_id, generation)
    grade, reasons = enroll.grade(token, keys, registered.touch, company.roots, company.pins)
    policy.check_grade(unlocked.state.policy, grade, reasons)
    kek = token.public_key(name) if registered.profile == P256_HPKE else b""
    return registered._replace(kek=kek, attestation=grade)


def _wrap(
    unlocked: Unlocked,
    purpose: Purpose,
    presents: Sequence[OpenToken],
    made: Mapping[str, RegisteredToken],
    generation: int,
    secret: KeysetSecret,
    new: HostKeyset,
) -> tuple[dict[str, WrappedKeyset], VaultKeyset]:
    """The new keyset for every token that can have it, and as the token in use unwraps it."""
    vault_id = unlocked.state.vault_id
    keysets: dict[str, WrappedKeyset] = {}
    handles: VaultKeyset | None = None
    for present in presents:
        wrapped, keyset = enroll.wrap_keyset(present.token, made[present.name], vault_id, generation, secret)
        try:
            enroll.prove_same(new, keyset)
        except BaseException:
            keyset.destroy()
            raise
        keysets[present.name] = WrappedKeyset(present.id, generation, wrapped)
        if present.token is unlocked.token:
            handles = keyset
        else:
            keyset.destroy()
    retired = {token.name for token in purpose.retire}
    for name, absent in unlocked.state.tokens.items():
        old = unlocked.state.keyset_of(name)
        if name not in keysets and name not in retired and absent.profile == P256_HPKE and old is not None:
            info = keyset_info(vault_id, generation, absent.id)
            keysets[name] = WrappedKeyset(absent.id, old.kek, wrap_keyset(absent.kek, secret, info))
    assert handles is not None
    return keysets, handles


def _commit(
    unlocked: Unlocked,
    purpose: Purpose,
    made: Mapping[str, RegisteredToken],
    keysets: Mapping[str, WrappedKeyset],
    old: HostKeyset,
    new: HostKeyset,
    company: OtherTokens,
    custody: NewCustody | None,
    escrowed: bytes,
) -> None:
    with unlocked.change(VAULT_REKEY) as change:
        state, retired = unlocked.state, {token.name for token in purpose.retire}
        without = {*keysets, *company.without, *retired}
        if state.rekey is None or not set(state.tokens) <= without or not retired.isdisjoint(keysets):
            raise VaultBusy("the vault's tokens changed meanwhile", "run the command again")
        purpose.may(unlocked)
        generation, log_key = state.rekey.generation, state.log_key + 1
        drop_expired_codes(unlocked, change)  # a code derives every month from its own on
        _carry(unlocked, purpose, change, old, new)
        holds.carry(unlocked, new, change)
        with Secret(os.urandom(32)) as key:
            change.put_records([new.wrap(LOG, b"", log_month(log_key), change.sequence, key)])
        vault = {"created": state.created, "generation": generation, "id": state.vault_id.hex(), "log_key": log_key}
        change.put_trust("vault", "", vault)
        for row in state.keysets:
            change.delete_trust("keyset", row)
        for name, keyset in keysets.items():
            change.put_trust("keyset", f"{generation}:{name}", keyset.value())
        for name, registered in made.items():
            change.put_trust("token", name, registered.value())
        doomed = {known.row for known in state.doomed}
        for name, token in state.tokens.items():
            before = state.keyset_of(name)
            if before is not None and f"{before.kek}:{name}" not in doomed:
                old_kek = OldKek(before.kek, name, token.id, change.sequence, change.time)
                change.put_trust("doomed", old_kek.row, old_kek.value())
        for gone in purpose.retire:
            _retire(change, gone, purpose.detail.get("was", ABSENT))
        if custody is not None:
            custody.commit(unlocked, change, generation, escrowed)
        elif state.breakglass is not None:
            reescrow(state, change, generation, escrowed)
        ended = None if purpose.reason == RECOVER else {token.id for token in purpose.retire}
        end_recoveries(unlocked, change, ended)
        for month in purpose.months:
            change.put_trust("month", str(month), MonthState(state.months[month].opened, change.time).value())
        change.put_trust("rekey", "", state.rekey._replace(phase=COMMITTED).value())
        change.detail.update(
            generation=generation,
            log_key=log_key,
            keks={name: NewKek(t.attestation, generation, t.kek.hex()).value() for name, t in made.items()},
            retired=sorted(token.id.hex() for token in purpose.retire),
            shredded=sorted(map(str, purpose.months)),
            erased=sorted(pairing.hex() for pairing in purpose.pairings),
        )


def _carry(unlocked: Unlocked, purpose: Purpose, change: Change, old: HostKeyset, new: HostKeyset) -> None:
    """Every row that is kept, under the new keyset; it stays the row of the entry that wrote it."""
    file = unlocked.file
    months, pairings = {str(month) for month in purpose.months}, set(purpose.pairings)
    newest = str(unlocked.state.newest_month)
    kept = []
    for record in file.records():
        if record.pairing in pairings or (record.purpose == MESSAGE and record.month in months):
            change.delete_record(record.purpose, record.pairing, record.month)
        elif record.purpose != CHAIN or record.month == newest:
            kept.append(old.carry(record, new))
        else:
            raise VaultDamaged(f"row {record.ref} is not of the newest month")
    file.put_records(kept)
    for row in file.all_sealed():
        if row.pairing in pairings:
            change.delete_sealed(row.purpose, row.pairing)
        else:
            file.put_sealed(old.carry_sealed(row, new))
    for month in months:
        file.forget_month(month)
    for pairing in pairings:
        file.forget_pairing(pairing)


def _retire(change: Change, token: RegisteredToken, was: str) -> None:
    retired = RetiredToken(
        token.name,
        token.id,
        token.audit_key,
        token.uri,
        token.label,
        token.serial,
        token.model,
        token.profile,
        was,
        change.sequence,
        change.time,
    )
    change.delete_trust("token", token.name)
    change.put_trust("retired", token.name, retired.value())
