"""Steps 4 to 6 of a re-key: what is made for it, and the one transaction that decides (docs/spec/rekey.md).

    new KEKs ─▶ new custodians, if there are any ─▶ new keyset, wrapped and proven, escrowed ─▶ COMMIT

In: an unlocked vault whose intent is on record, a ``Purpose``, open tokens. Out: the vault under its new keyset, and
the entry that tells of it; or nothing but KEKs that wrap nothing. Old and new keyset are in locked host memory
meanwhile, and wiped at the end. Not here: the intent, what follows the commit, and what undoes it (settle.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import VaultBusy, VaultDamaged
from medcrypt_hsm.lifecycle import escrow, holds
from medcrypt_hsm.lifecycle.custody_upkeep import NewCustody, end_recoveries, reescrow
from medcrypt_hsm.lifecycle.new_keks import make_kek, wrap_for_absent, wrap_for_present
from medcrypt_hsm.lifecycle.others import OpenToken, OtherTokens
from medcrypt_hsm.messages.months import drop_expired_codes
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t
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
from medcrypt_hsm.vault.keyset import CHAIN, LOG, MESSAGE, HostKeyset, log_month
from medcrypt_hsm.vault.unlock import keyset_to_host
from medcrypt_hsm.vault.unlocked import Unlocked

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


@dataclass(frozen=True, slots=True)
class _Made:
    """What the commit puts on record beside the rows that it carries over."""

    tokens: Mapping[str, RegisteredToken]  # those with a new root KEK
    keysets: Mapping[str, WrappedKeyset]  # for those, and for tokens that are away
    custody: NewCustody | None
    escrowed: bytes  # the new keyset for the break-glass key that will count; empty where there is none
    without: Collection[str]  # tokens that are left out by name


def make_and_commit(
    unlocked: Unlocked, purpose: Purpose, opened: Sequence[OpenToken], generation: int, options: OtherTokens
) -> None:
    """``opened``: every token that gets a new root KEK, the one in use among them.

    Raises VaultBusy, TokenUnfit, Refused and what ``purpose`` raises; the caller rolls back then.
    """
    tokens = {each.name: make_kek(unlocked, each, generation, options) for each in opened}
    with ExitStack() as stack:
        custody = None if purpose.custody is None else stack.enter_context(purpose.custody(unlocked))
        old_keys, new_keys = HostKeys(), HostKeys()
        stack.callback(old_keys.wipe)
        stack.callback(new_keys.wipe)
        old = HostKeyset(old_keys, keyset_to_host(unlocked), unlocked.state.vault_id)
        wrapping, mac, sealing = (Secret(os.urandom(32)) for _ in range(3))
        new = HostKeyset(new_keys, (wrapping, mac, sealing), unlocked.state.vault_id)
        secret = (wrapping.value, mac.value, sealing.value)
        keysets, handles = wrap_for_present(unlocked, opened, tokens, generation, secret, new)
        retired = {token.name for token in purpose.retire}
        try:
            keysets |= wrap_for_absent(unlocked, {*keysets, *retired}, generation, secret)
            escrowed = _escrow(unlocked, custody, generation, secret)
            _commit(unlocked, purpose, _Made(tokens, keysets, custody, escrowed, options.without), old, new)
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


def _commit(unlocked: Unlocked, purpose: Purpose, made: _Made, old: HostKeyset, new: HostKeyset) -> None:
    """The transaction. What was decided without the write lock is checked again under it."""
    with unlocked.change(VAULT_REKEY) as change:
        state, retired = unlocked.state, {token.name for token in purpose.retire}
        without = {*made.keysets, *made.without, *retired}
        if state.rekey is None or not set(state.tokens) <= without or not retired.isdisjoint(made.keysets):
            raise VaultBusy("the vault's tokens changed meanwhile", "run the command again")
        purpose.may(unlocked)
        generation, log_key = state.rekey.generation, state.log_key + 1
        with unlocked.rows.rewritten():
            drop_expired_codes(unlocked, change)  # from a code, the keys of its month and all later ones follow
            _carry(unlocked, purpose, change, old, new)
            with Secret(os.urandom(32)) as key:
                change.put_records([new.wrap(LOG, b"", log_month(log_key), change.sequence, key)])
        holds.carry(unlocked, new, change)
        vault = {"created": state.created, "generation": generation, "id": state.vault_id.hex(), "log_key": log_key}
        change.put_trust("vault", "", vault)
        _exchange_keysets(unlocked, change, made, generation)
        for gone in purpose.retire:
            _retire(change, gone, purpose.detail.get("was", ABSENT))
        if made.custody is not None:
            made.custody.commit(unlocked, change, generation, made.escrowed)
        elif state.breakglass is not None:
            reescrow(state, change, generation, made.escrowed)
        ended = None if purpose.reason == RECOVER else {token.id for token in purpose.retire}
        end_recoveries(unlocked, change, ended)
        for month in purpose.months:
            change.put_trust("month", str(month), MonthState(state.months[month].opened, change.time).value())
        change.put_trust("rekey", "", state.rekey._replace(phase=COMMITTED).value())
        keks = {
            name: NewKek(token.attestation, generation, token.kek.hex()).value() for name, token in made.tokens.items()
        }
        change.detail.update(
            generation=generation,
            log_key=log_key,
            keks=keks,
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
            raise VaultDamaged(t("row {row} is not of the newest month", row=record.ref))
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


def _exchange_keysets(unlocked: Unlocked, change: Change, made: _Made, generation: int) -> None:
    """The wrapped keysets and the tokens' new KEKs; the KEKs that wrapped until now become old ones."""
    state = unlocked.state
    for row in state.keysets:
        change.delete_trust("keyset", row)
    for name, keyset in made.keysets.items():
        change.put_trust("keyset", f"{generation}:{name}", keyset.value())
    for name, registered in made.tokens.items():
        change.put_trust("token", name, registered.value())
    known = {old_kek.row for old_kek in state.doomed}
    for name, token in state.tokens.items():
        before = state.keyset_of(name)
        if before is not None and f"{before.kek}:{name}" not in known:
            old_kek = OldKek(before.kek, name, token.id, change.sequence, change.time)
            change.put_trust("doomed", old_kek.row, old_kek.value())


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
