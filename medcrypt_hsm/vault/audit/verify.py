"""Verifying a whole log without a token (docs/spec/audit.md, "Verifying with public keys alone").

In: a vault file, public keys, checkpoints from elsewhere. Out: a ``Chain`` at its end and what it covered; quiet when
all is well, otherwise AuditBroken with the entry or row that is wrong. ``Chain`` checks one entry after the other,
``verify_chain`` feeds it the whole log and compares the trust rows with its end; so do those who have a token.
``scripts/standalone/verify_audit.py`` does the same and shares no code with this package. Not here: what only the keys
on a token can open (vault/log.py, vault/ledger.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medcrypt_hsm.crypto.p256 import fingerprint, spki_of_pem
from medcrypt_hsm.errors import (
    AuditBroken,
    NotAuthentic,
    UsageError,
    VaultForeign,
)
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import REASONS, SYNCING, TOKEN_INTRODUCE, VAULT_RESTORE
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.consent import Custody
from medcrypt_hsm.vault.audit.entries import Entry, genesis, read_clear
from medcrypt_hsm.vault.audit.fields import introduction
from medcrypt_hsm.vault.audit.rowtree import check_roots
from medcrypt_hsm.vault.audit.trust import TrustState, check_form, finished_state
from medcrypt_hsm.vault.audit.trust_custody import ESCROW_BYTES
from medcrypt_hsm.vault.audit.walk import check_claims
from medcrypt_hsm.vault.store.rows import EntryRow, RecordRow, TrustRow
from medcrypt_hsm.vault.store.store import Store


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification covered. ``rows`` is None without a token: then only integrity was verified."""

    entries: int
    sequence: int
    hash: bytes
    keys: tuple[str, ...]  # names of the tokens whose audit keys are valid at the end
    rows: int | None = None
    checkpoints: tuple[int, ...] = ()  # the entries of those that the log continues
    bound: bool = False  # does the newest head bind each row of records and sealed?


def verify_with_public_keys(file: Store, public_keys: Sequence[bytes], since: Sequence[Checkpoint] = ()) -> Verified:
    """Chain, every head and the trust state, from DER public keys alone (docs/spec/audit.md).

    The log must continue each checkpoint of ``since``. Raises AuditBroken, also for a key that the log never saw,
    VaultDamaged, and what is wrong with a checkpoint: NotAuthentic, VaultForeign or AuditBroken.
    """
    chain = verified_chain(file, public_keys, since)
    return covered(chain, since, bound=file.has_tree)


def verified_chain(file: Store, public_keys: Sequence[bytes], since: Sequence[Checkpoint] = ()) -> Chain:
    """The same; the chain at its end."""
    with file.snapshot():
        file.check_integrity()
        chain = verify_chain(file, finished_state(file), since)
        # Little can be said of these rows without the token; but this finds a log whose end was cut off carelessly.
        for row in file.written():
            if not 1 <= row.sequence <= chain.sequence:
                raise AuditBroken(
                    t(
                        "row {row} is of audit entry {entry}, which the log does not have",
                        row=row.ref,
                        entry=row.sequence,
                    )
                )
        _check_gone(file, chain)
    given = {fingerprint(spki) for spki in public_keys}
    if unknown := given - set(chain.signers.introduced):
        raise AuditBroken(
            t(
                "the log never introduced the given key {key}…: it is another vault's log, or forged",
                key=min(unknown).hex()[:16],
            ),
            "compare the key's fingerprint with the officer's record",
        )
    first = next(iter(chain.signers.introduced))
    if first not in given and chain.settled_signer not in given:
        raise AuditBroken(
            "no given key vouches for this log: neither its first key nor the one that signed its newest head",
            "add the practice's first audit key, or its present one, with --public-key",
        )
    return chain


def _check_gone(file: Store, chain: Chain) -> None:
    """Nothing is left of a month that was shredded, nor of a pairing that was erased. Raises AuditBroken.

    To see which rows there are takes no token.
    """
    for pairing, month in _pairings_and_months(file):
        rekeyed = chain.rekeys.shredded.get(month) or chain.rekeys.erased.get(pairing.hex())
        if rekeyed is not None:
            gone = month if month in chain.rekeys.shredded else t("pairing {pairing}", pairing=pairing.hex())
            raise AuditBroken(
                t("there are rows of {subject}, of which there may be none any more", subject=gone), at=rekeyed.entry
            )


def _pairings_and_months(file: Store) -> Iterator[tuple[bytes, str]]:
    """Of every row that has them; of sealed rows the month is empty."""
    for row in file.written():
        yield row.pairing, row.month if isinstance(row, RecordRow) else ""
    for pairing, month, _, _ in file.all_seen():
        yield pairing, month


def covered(chain: Chain, since: Sequence[Checkpoint], rows: int | None = None, *, bound: bool) -> Verified:
    names = tuple(sorted(chain.signers.introduced[key].name for key in chain.keys))
    checkpoints = tuple(note.sequence for note in since)
    return Verified(chain.sequence, chain.sequence, chain.hash, names, rows, checkpoints, bound)


def verify_chain(file: Store, state: TrustState, since: Sequence[Checkpoint] = ()) -> Chain:
    """The log follows from its own first entry, whose key the caller must know from elsewhere. Raises AuditBroken."""
    for note in since:
        if note.vault_id != state.vault_id:
            raise VaultForeign(
                t(
                    "the checkpoint of audit entry {entry} is of another vault, {vault}",
                    entry=note.sequence,
                    vault=note.vault_id.hex(),
                ),
                t("this vault is {vault}: give a checkpoint of it", vault=state.vault_id.hex()),
            )
    chain = Chain(state.vault_id, 0, genesis(state.vault_id), {})
    for row in file.entries():
        entry = chain.extend(row, check_head=True)
        if row.sequence == 1 and (entry is None or entry.action != TOKEN_INTRODUCE):
            raise AuditBroken("the log does not begin by introducing an audit key", at=1)
    if chain.sequence == 0:
        raise AuditBroken("the audit log is empty", at=1)
    if chain.trust != state.digest:
        raise AuditBroken("the trust state is not the one that the newest head signed", at=chain.sequence)
    if chain.log_key > state.log_key:
        raise AuditBroken(
            t("an entry is sealed under log key {key}; the newest is {newest}", key=chain.log_key, newest=state.log_key)
        )
    _check_form(file.trust_rows(), state, chain.sequence)
    if state.roots:
        check_roots(file, state.roots, chain.sequence)
    _check_tokens(state, chain)
    _check_breakglass(state, chain)
    check_claims(file, chain)
    for note in since:
        _check_continues(file, chain, note)
    return chain


def _check_continues(file: Store, chain: Chain, note: Checkpoint) -> None:
    """The verified log is an extension of the checkpoint. Raises AuditBroken or NotAuthentic."""
    row = file.entry(note.sequence)
    if row is not None and (row.hash, row.trust) == (note.hash, note.trust):
        note.verify(chain.signers.keys_at(note.sequence))
        if (entry := read_clear(row)) is not None:
            check_time(note, entry)
        return
    if row is None:
        what = t(
            "the checkpoint is of audit entry {entry}, and this log ends at entry {last}",
            entry=note.sequence,
            last=chain.sequence,
        )
        hint = "entries were cut off, or this is an older file: look for the newer one, and call the officer"
    else:
        what = t("the log departs from the checkpoint at or before audit entry {entry}", entry=note.sequence)
        hint = "one of the two was rewritten: copy the file away as evidence, and call the officer"
    try:
        note.verify(chain.signers.keys_at(note.sequence))
    except NotAuthentic:  # the checkpoint counts all the same: this log may lack the entry that introduces its signer
        what = t("{difference}, whose signature is of no token in this log", difference=what)
    if (restored := _restored_after(file, note)) is not None:
        what = t(
            "{difference}; entry {entry} is a restore, which gave up what stood there and behind it before",
            difference=what,
            entry=restored.sequence,
        )
        hint = "ask the officer for that restore's reason; if it is known, take a new checkpoint"
    raise AuditBroken(what, hint, at=note.sequence)


def _restored_after(file: Store, note: Checkpoint) -> EntryRow | None:
    """The restore that gave up the checkpoint's entry: it stands there or before, and was written later."""
    for row in file.clear_entries():
        entry = read_clear(row)
        later = entry is not None and entry.action == VAULT_RESTORE and entry.time >= note.time
        if later and row.sequence <= note.sequence:
            return row
    return None


def check_time(note: Checkpoint, entry: Entry) -> None:
    if entry.time != note.time:
        raise AuditBroken(
            t(
                "the checkpoint says {time} of audit entry {entry}, and the log {logged}",
                time=note.time,
                entry=note.sequence,
                logged=entry.time,
            ),
            "whoever held the token signed one of the two falsely: call the officer",
            at=note.sequence,
        )


def _check_form(rows: Sequence[TrustRow], state: TrustState, at: int) -> None:
    if state.rekey is not None and state.rekey.reason not in (*REASONS, SYNCING):
        raise AuditBroken("the vault is being re-keyed for no known reason", at=at)
    try:
        check_form(rows, state)
    except ValueError as exc:
        raise AuditBroken("a row of the trust state is not as the spec has it", at=at) from exc


def _check_tokens(state: TrustState, chain: Chain) -> None:
    """On record are the tokens, root keys and shredded months that the log tells of, and no keyset is for anybody else.

    Raises AuditBroken.
    """
    at = chain.sequence
    signers, rekeys = chain.signers, chain.rekeys
    valid = {known.name: known for known in signers.introduced.values() if known.id in signers.keys}
    if set(state.tokens) != set(valid):
        raise AuditBroken("the tokens on record are not those that the log introduced", at=at)
    for name, token in state.tokens.items():
        if introduction(token.value(), name) != valid[name].told:
            raise AuditBroken(t("token {token} is on record otherwise than the log introduced it", token=name), at=at)
    retired = {known.name: known for known in signers.introduced.values() if known.id in signers.retired}
    by = {name: signers.retired[known.id] for name, known in retired.items()}
    if {name: (token.id, token.entry, token.since) for name, token in state.retired.items()} != {
        name: (known.id, by[name].entry, by[name].time) for name, known in retired.items()
    }:
        raise AuditBroken("the removed tokens on record are not those that the log retired", at=at)
    for name, gone in state.retired.items():
        told = {member: retired[name].told[member] for member in ("model", "profile", "serial")}
        if told != {"model": gone.model, "profile": gone.profile, "serial": gone.serial}:
            raise AuditBroken(
                t("removed token {token} is on record otherwise than the log introduced it", token=name), at=at
            )
    if (state.generation, state.log_key) != (rekeys.generation, rekeys.log_key):
        raise AuditBroken("the keyset on record is not the newest that the log tells of", at=at)
    if {str(month): known.shredded for month, known in state.months.items() if known.shredded} != {
        month: rekeyed.time for month, rekeyed in rekeys.shredded.items()
    }:
        raise AuditBroken("the shredded months on record are not those that the log tells of", at=at)
    for row, keyset in state.keysets.items():
        generation, _, name = row.partition(":")
        if name not in valid or valid[name].id != keyset.token_id or not keyset.wrapped:
            raise AuditBroken(t("the keyset {keyset} is wrapped for no token of that name", keyset=row), at=at)
        if generation != str(state.generation) or keyset.kek != valid[name].kek:
            raise AuditBroken(
                t("the keyset {keyset} is not under the newest root key of that token", keyset=row), at=at
            )
    for old in state.doomed:
        known = (valid | retired).get(old.token)
        if known is None or known.id != old.token_id:
            raise AuditBroken(t("the old root key {key} is of no token of that name", key=old.row), at=at)
        rekeyed = rekeys.done.get(old.entry)
        if rekeyed is None or rekeyed.time != old.since or not 1 <= old.kek < rekeyed.generation:
            raise AuditBroken(t("the old root key {key} is of no re-key that made it one", key=old.row), at=at)
    for name, hold in state.holds.items():
        if not 1 <= hold.sequence <= at:
            raise AuditBroken(
                t("hold {hold} is of audit entry {entry}, which the log does not have", hold=name, entry=hold.sequence),
                at=at,
            )


def _check_breakglass(state: TrustState, chain: Chain) -> None:
    """On record are the custodians, old shares and uses that the log tells of. Raises AuditBroken."""
    at, present, told = chain.sequence, state.breakglass, chain.uses.custody
    if (None if present is None else Custody.of(present)) != told:
        raise AuditBroken("the custodians on record are not those of the newest ceremony", at=at)
    if present is not None:
        escrow = present.escrow
        if (escrow.ceremony, escrow.generation) != (present.ceremony, state.generation):
            raise AuditBroken("the escrow on record is not the newest keyset's, to the present ceremony's key", at=at)
        if len(escrow.sealed) != ESCROW_BYTES:
            raise AuditBroken("the escrow on record holds no keyset", at=at)
    for share in state.old_shares:
        old = chain.uses.old_shares.get((share.ceremony, share.name))
        if old is None or (share.entry, share.since) != (old.rekeyed.entry, old.rekeyed.time):
            raise AuditBroken(t("the old share {share} is of no ceremony that made it one", share=share.row), at=at)
        if (share.approval_key.hex(), share.model, share.serial) != tuple(
            old.told[member] for member in ("approval_key", "model", "serial")
        ):
            raise AuditBroken(
                t("the old share {share} is on record otherwise than the log told of it", share=share.row), at=at
            )
    if {use.request: use for use in state.uses} != chain.uses.noted:
        raise AuditBroken("the uses of break-glass on record are not those that the log tells of", at=at)


def public_key_pem(spki: bytes) -> str:
    """DER SubjectPublicKeyInfo as PEM (RFC 7468)."""
    import base64
    import textwrap

    body = "\n".join(textwrap.wrap(base64.b64encode(spki).decode(), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def public_key_der(pem: str) -> bytes:
    """Raises UsageError."""
    try:
        return spki_of_pem(pem.encode())
    except ValueError as exc:
        raise UsageError("that is not a public key in PEM", "save one with 'medcrypt audit public-key'") from exc
