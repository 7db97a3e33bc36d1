"""Re-keying: a new root KEK on every token and a new vault keyset (docs/spec/rekey.md).

    intent ─▶ new KEKs ─▶ keyset wrapped, proven ─▶ COMMIT ─▶ anchors ─▶ file rewritten, backup verified ─▶
    old KEKs destroyed ─▶ certificate

What is kept is carried over inside the commit; what is not is gone, in every earlier backup too, with the old KEKs.
The commit decides: what was interrupted before it is rolled back by the next run, and behind it finished (``settle``).
In: an unlocked vault, the other tokens that are there, a ``Purpose``. Not here: what is to be shredded and whether it
may be (shredding.py), and a token that was away (syncing.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcrypt_hsm import (
    audit,
    auditing,
    backups,
    certificate,
    escrow,
    holds,
    newcustody,
    newfile,
    oldkeys,
    policy,
    registering,
)
from medcrypt_hsm.audit import INTENDED, REKEY, SYNC, UNDONE
from medcrypt_hsm.certificate import Certificate
from medcrypt_hsm.company import Company, Present, own
from medcrypt_hsm.errors import Failed, MedcryptError, VaultBusy, VaultDamaged
from medcrypt_hsm.filesystem import alone, clear_the_way
from medcrypt_hsm.hashchain import RECOVER, SYNCING, NewKek
from medcrypt_hsm.hostkeys import HostKeys, HostKeyset
from medcrypt_hsm.keys import CHAIN, LOG, MESSAGE, KeysetSecret, VaultKeyset
from medcrypt_hsm.months import drop_expired_codes
from medcrypt_hsm.newcustody import NewCustody, Wanted
from medcrypt_hsm.period import Month
from medcrypt_hsm.secret import Secret
from medcrypt_hsm.session import client
from medcrypt_hsm.tokens import P256_HPKE, Token
from medcrypt_hsm.tokens.p256_hpke import wrap_keyset
from medcrypt_hsm.trust import (
    ABSENT,
    COMMITTED,
    Doomed,
    MonthState,
    RegisteredToken,
    Rekey,
    RetiredToken,
    WrappedKeyset,
)
from medcrypt_hsm.unlock import keyset_to_host
from medcrypt_hsm.unlocked import Change, Unlocked, kek_name, keyset_info, log_month
from medcrypt_hsm.vault import VaultFile


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
    custody: Wanted | None = None  # new custodians, and with them a new break-glass key
    detail: Mapping[str, Any] = field(default_factory=dict)
    may: Callable[[Unlocked], None] = _may_always


def rekey(
    unlocked: Unlocked, purpose: Purpose, others: Sequence[Present], company: Company, to: Path | None = None
) -> Certificate:
    """Everything; the certificate is in ``to``, or beside the vault.

    Raises Refused and UsageError before anything is done, TokenUnfit for a token that cannot make its new KEK. If it
    raises behind the commit, the next run finishes it.
    """
    with alone(unlocked.file.path.parent):
        return rekey_locked(unlocked, purpose, others, company, to)


def rekey_locked(
    unlocked: Unlocked,
    purpose: Purpose,
    others: Sequence[Present],
    company: Company,
    to: Path | None = None,
    custodians: Sequence[Token] = (),
) -> Certificate:
    """The same, where the caller has the directory's lock. ``custodians``: tokens that may hold old shares."""
    client.refuse_remote(unlocked.token)
    settle_locked(unlocked)
    client.lock(unlocked.file.path, "rekey")
    # A row that was taken away or put back would be carried over and vouched for, or stop the re-key half way.
    auditing.verify(unlocked)
    with unlocked.change(purpose.action, purpose.subject, outcome=INTENDED) as change:
        purpose.may(unlocked)
        change.detail.update(purpose.detail)
    generation, entry = unlocked.state.generation + 1, change.sequence
    begin(unlocked, REKEY, purpose.reason, generation, entry)
    gone = {token.id for token in purpose.retire}
    presents = [own(unlocked), *(p for p in others if p.id not in gone)]
    try:
        _make_and_commit(unlocked, purpose, presents, generation, company)
    except BaseException as exc:
        if unlocked.state.rekey is not None and unlocked.state.rekey.phase == INTENDED:
            with suppress(MedcryptError):  # the reason matters more, and the next run rolls back as well
                roll_back(unlocked, presents, getattr(exc, "name", UNDONE))
        raise
    try:
        return finish(unlocked, others, to, custodians)
    except OSError as exc:
        failed = Failed(f"{exc.filename or unlocked.file.path}: {exc.strerror}")
        _tell_unfinished(failed, bool(custodians))
        raise failed from exc
    except MedcryptError as exc:
        _tell_unfinished(exc, bool(custodians))
        raise


def _tell_unfinished(exc: MedcryptError, custodians: bool) -> None:
    """What a person must know beside what went wrong: it is done, and the rest comes by itself, but for old shares."""
    exc.message = f"the vault is re-keyed, but not all that follows is done yet: {exc.message}"
    exc.hint = "see to that; the next command that opens the vault does the rest, and writes the certificate beside it"
    if custodians:
        exc.hint += ". Old shares stay on record until 'medcrypt vault sync --share-token NAME=URI'"


def begin(unlocked: Unlocked, action: str, reason: str, generation: int, entry: int | None = None) -> None:
    """The signed intent: from now on root KEKs of that generation, if they wrap nothing, may be destroyed.

    ``entry`` told what it is for; left out, the intent itself does.
    """
    with unlocked.change(action, outcome=INTENDED) as change:
        if unlocked.state.rekey is not None:
            raise VaultBusy("another command is re-keying the vault", "run the command again")
        intent = Rekey(generation, INTENDED, reason, change.sequence if entry is None else entry, change.time)
        change.put_trust("rekey", "", intent.value())
        change.detail.update(generation=generation, reason=reason)


# Before the commit


def _make_and_commit(
    unlocked: Unlocked, purpose: Purpose, presents: Sequence[Present], generation: int, company: Company
) -> None:
    made = {p.name: new_kek(unlocked, p, generation, company) for p in presents}
    with ExitStack() as stack:
        custody = None if purpose.custody is None else stack.enter_context(newcustody.made(unlocked, purpose.custody))
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


def new_kek(unlocked: Unlocked, present: Present, generation: int, company: Company) -> RegisteredToken:
    """A root KEK of ``generation`` made on the token, and the token's row with it. Raises TokenUnfit, Refused."""
    name, token = kek_name(unlocked.state.vault_id, generation), present.token
    registered = unlocked.state.tokens[present.name]
    token.destroy(name)  # a leftover of what was interrupted; it wraps nothing
    token.make_kek(name, registered.profile, touch=registered.touch)
    keys = registering.keys_of(unlocked.state.vault_id, generation)
    grade, reasons = registering.grade(token, keys, registered.touch, company.roots, company.pins)
    policy.check_grade(unlocked.state.policy, grade, reasons)
    kek = token.public_key(name) if registered.profile == P256_HPKE else b""
    return registered._replace(kek=kek, attestation=grade)


def _wrap(
    unlocked: Unlocked,
    purpose: Purpose,
    presents: Sequence[Present],
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
        wrapped, keyset = registering.wrap_keyset(present.token, made[present.name], vault_id, generation, secret)
        try:
            registering.prove_same(new, keyset)
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


# The commit


def _commit(
    unlocked: Unlocked,
    purpose: Purpose,
    made: Mapping[str, RegisteredToken],
    keysets: Mapping[str, WrappedKeyset],
    old: HostKeyset,
    new: HostKeyset,
    company: Company,
    custody: NewCustody | None,
    escrowed: bytes,
) -> None:
    with unlocked.change(REKEY) as change:
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
                old_kek = Doomed(before.kek, name, token.id, change.sequence, change.time)
                change.put_trust("doomed", old_kek.row, old_kek.value())
        for gone in purpose.retire:
            _retire(change, gone, purpose.detail.get("was", ABSENT))
        if custody is not None:
            custody.commit(unlocked, change, generation, escrowed)
        elif state.breakglass is not None:
            newcustody.reescrow(state, change, generation, escrowed)
        ended = None if purpose.reason == RECOVER else {token.id for token in purpose.retire}
        newcustody.end_recoveries(unlocked, change, ended)
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


# Behind the commit


def finish(
    unlocked: Unlocked, others: Sequence[Present] = (), to: Path | None = None, custodians: Sequence[Token] = ()
) -> Certificate:
    """What a committed re-key has left to do. A kill anywhere in it lets the next run begin it again."""
    intent = unlocked.state.rekey
    if intent is None or intent.phase != COMMITTED:
        raise RuntimeError("no re-key was committed")
    row = unlocked.file.entry(intent.entry)
    if row is None:
        raise VaultDamaged(f"audit entry {intent.entry}, which tells what the re-key was for, is missing")
    told = unlocked.read_entry(row)
    unlocked.write_anchor()
    for other in others:
        if other.name in unlocked.state.tokens:
            unlocked.write_anchor_on(other.token, other.id)
    unlocked.file.compact()
    _fresh_backup(unlocked, intent.generation)
    client.lock(unlocked.file.path, "rekey")  # one that was started meanwhile
    destroyed = oldkeys.destroy_doomed(unlocked, [own(unlocked), *others])
    oldkeys.destroy_leftovers(unlocked, [own(unlocked), *others])
    old_shares = newcustody.destroy_old(unlocked, custodians)
    base = beside(unlocked.file.path, "certificate", intent.generation)
    made = certificate.make(unlocked, told, intent.generation, destroyed, old_shares, base)
    if not (_restored_since(unlocked, intent) and made.is_written):  # that one tells of what was destroyed then
        made.write()
    with unlocked.change(told.action, told.subject) as change:
        for doomed in destroyed:
            change.delete_trust("doomed", doomed.row)
        for share in old_shares:
            change.delete_trust("oldshare", share.row)
        change.delete_trust("rekey", "")
        change.detail["certificate"] = made.value
    unlocked.write_anchor()
    for other in others:
        if other.name not in unlocked.state.tokens:
            registering.take_back(other.token, unlocked.state.vault_id)
    with suppress(MedcryptError):  # all is told; what is left opens nothing, and goes at the next ceremony or sync
        newcustody.forget(unlocked, old_shares, custodians)
    return made if to is None else made.moved(to)


def _restored_since(unlocked: Unlocked, intent: Rekey) -> bool:
    """Is this the backup that the re-key made of itself, put back?"""
    entries = (audit.read_clear(row) for row in unlocked.file.clear_entries() if row.sequence > intent.entry)
    return any(entry is not None and entry.action == audit.RESTORE for entry in entries)


def beside(vault: Path, what: str, generation: int) -> Path:
    """Where the program keeps a re-key's own backup and certificate."""
    return vault.with_name(f"{vault.name}-{what}-{generation}")


def _fresh_backup(unlocked: Unlocked, generation: int) -> None:
    """Of the vault as it is now, opened and verified before a key is destroyed; those of earlier re-keys go."""
    vault = unlocked.file.path
    target = beside(vault, "backup", generation)
    # A killed run's may be older than what was written since.
    clear_the_way(target, ours=_is_in_the_log(unlocked, target))
    clear_the_way(newfile.partial_of(target), ours=True)
    try:
        backups.backup(unlocked, target)
    except OSError as exc:
        raise Failed(f"the backup {target} cannot be made: {exc.strerror}") from exc
    for number in range(1, generation):
        if _is_in_the_log(unlocked, older := beside(vault, "backup", number)):
            clear_the_way(older, ours=True)


def _is_in_the_log(unlocked: Unlocked, file: Path) -> bool:
    """Does that backup hold nothing that this vault's own log does not tell? Another history's is somebody's last."""
    try:
        copy = VaultFile.open(file, in_use=False)
    except (MedcryptError, OSError):
        return False
    with closing(copy), suppress(MedcryptError):
        newest = copy.newest()
        known = None if newest is None else unlocked.file.entry(newest.sequence)
        return newest is not None and known is not None and known.hash == newest.hash
    return False


def roll_back(unlocked: Unlocked, presents: Sequence[Present], why: str) -> None:
    """Undo what was intended and not committed: destroy the KEKs made for it, as far as their tokens are there.

    The file decides whether it was committed: an interrupt can come when it was, and before this process knows it.
    Then this raises VaultBusy.
    """
    with unlocked.file.transaction():
        unlocked.catch_up()
        # A commit that failed half-way on a dying disk must not come back when its KEKs are gone: this one overwrites
        # it, and where this one fails too nothing is destroyed.
        unlocked.file.write_header()
    intent = unlocked.state.rekey
    if intent is None or intent.phase != INTENDED:
        return
    for present in presents:
        keyset = unlocked.state.keyset_of(present.name)
        if keyset is None or keyset.kek != intent.generation:
            present.token.destroy(kek_name(unlocked.state.vault_id, intent.generation))
    with unlocked.change(SYNC if intent.reason == SYNCING else REKEY, outcome=UNDONE) as change:
        change.delete_trust("rekey", "")
        change.detail["generation"] = intent.generation
    row = unlocked.file.entry(intent.entry)
    if intent.reason != SYNCING and row is not None:
        told = unlocked.read_entry(row)
        with unlocked.change(told.action, told.subject, outcome=why):
            pass


def settle(unlocked: Unlocked) -> Certificate | None:
    """At every unlock: end what an interrupted run left; the certificate, if that was all but done.

    What cannot be ended now waits, and ``status`` says why: it must not keep anybody from reading.
    """
    if unlocked.state.rekey is None and not oldkeys.own_doomed(unlocked):
        return None
    try:
        with alone(unlocked.file.path.parent):
            return settle_locked(unlocked)
    except (MedcryptError, OSError) as exc:
        unlocked.unsettled = getattr(exc, "message", "") or str(exc)
        return None


def settle_locked(unlocked: Unlocked) -> Certificate | None:
    """The same, where the caller has the directory's lock. Raises what kept it from ending."""
    with unlocked.file.transaction():
        unlocked.catch_up()  # what is destroyed hangs on what others did since
        unlocked.entry_time()  # nothing is destroyed that could not be entered
    intent, made = unlocked.state.rekey, None
    if intent is not None and intent.phase == INTENDED:
        roll_back(unlocked, [own(unlocked)], "interrupted")
    elif intent is not None:
        made = finish(unlocked)
    if oldkeys.own_doomed(unlocked):
        oldkeys.settle_doomed(unlocked, [own(unlocked)])
    return made
