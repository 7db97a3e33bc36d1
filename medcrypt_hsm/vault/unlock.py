"""From a file and an open token to an ``Unlocked``: everything that must hold before anything is unwrapped.

The order is the point (docs/spec/audit.md, "Unlock"): the token proves its audit key; anchor, chain, newest head and
trust state verify; and only then comes the token's one unwrap. A file that fails is not written to. In: a file, an open
token. Out: ``Unlocked``, or what does not hold. Not here: which token, and how it is opened (opening.py); the chain's
own rules (audit/).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from medcrypt_hsm.crypto.p256 import verify_signature
from medcrypt_hsm.errors import (
    AuditBroken,
    NotAuthentic,
    TokenUnfit,
    VaultBusy,
    VaultError,
    VaultForeign,
)
from medcrypt_hsm.notation import ctx
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import audit_key_name, kek_name
from medcrypt_hsm.vault.anchoring import Anchor, base_of, newest_anchor, not_its_key
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.trust import RegisteredToken, RetiredToken, TrustState, finished_state
from medcrypt_hsm.vault.audit.walk import extend_to_newest
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.keyset import VaultKeyset, keyset_info
from medcrypt_hsm.vault.store.rows import EntryRow
from medcrypt_hsm.vault.store.store import Store
from medcrypt_hsm.vault.unlocked import Unlocked

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.secret import Secret


T = TypeVar("T")


def prove_key(token: Token, name: str, public: bytes, vault_id: bytes) -> None:
    """The token signs a challenge for ``public`` (SPKI) with its key ``name``. Raises KeyError, NotAuthentic."""
    challenge = ctx("medcrypt/challenge", vault_id, os.urandom(32))
    verify_signature(public, token.sign(name, challenge, public=public), challenge)


def prove_audit_key(token: Token, vault_id: bytes, registered: RegisteredToken | RetiredToken) -> None:
    """The token must hold the audit key that the file has on record: it signs a challenge. Raises VaultRolledBack.

    The file is not verified yet, and whoever wrote it could have named a key of their own.
    """
    try:
        prove_key(token, audit_key_name(vault_id), registered.audit_key, vault_id)
    except (KeyError, NotAuthentic) as exc:
        raise not_its_key(registered) from exc


def prove(unlocked: Unlocked) -> None:
    """The challenge, of a vault that was unlocked without it; once. Raises VaultRolledBack."""
    if not unlocked.proven:
        prove_audit_key(unlocked.token, unlocked.state.vault_id, unlocked.registered)
        unlocked.proven = True


def verify_from_anchor(file: Store, anchor: Anchor, base: int, restored: EntryRow | None, state: TrustState) -> Chain:
    """Recompute the chain from ``base`` and verify the newest head. Raises AuditBroken."""
    spkis = state.audit_keys  # of removed tokens too: what they signed before that still counts
    keys = {key: spkis[key] for key in anchor.audit_keys if key in spkis}
    names = {key: state.token_names[key] for key in keys}
    chain = Chain(anchor.vault_id, base, _recomputed_hash(file, anchor.vault_id, base), keys, names)
    newest, at_base = file.newest(), file.entry(base)
    if newest is None or newest.sequence < base:
        raise AuditBroken("the audit log is empty", at=1)
    chain.trust = b"" if at_base is None else at_base.trust  # the hash of the base covers it
    if newest.sequence == base:
        chain.check_head(newest)
    else:
        if restored is not None:  # its own head too must verify, not only a later one
            chain.check_head(restored)
        chain = extend_to_newest(file, chain)
    if chain.trust != state.digest:
        raise AuditBroken("the trust state is not the one that the newest head signed", at=chain.sequence)
    return chain


def _recomputed_hash(file: Store, vault_id: bytes, sequence: int) -> bytes:
    """hash(sequence), from the entry's own bytes: if the stored hash were believed, the bytes could be exchanged."""
    if sequence == 0:
        return entries.genesis(vault_id)
    row, before = file.entry(sequence), file.entry(sequence - 1)
    if row is None or (before is None and sequence > 1):
        raise AuditBroken(t("audit entry {entry} or the one before it is missing", entry=sequence), at=sequence)
    previous = entries.genesis(vault_id) if before is None else before.hash
    if entries.entry_hash(previous, sequence, row.trust, row.signer, row.stored) != row.hash:
        raise AuditBroken(t("audit entry {entry} was altered", entry=sequence), at=sequence)
    return row.hash


def check_other(unlocked: Unlocked, token: Token, registered: RegisteredToken) -> None:
    """Another of the vault's tokens, open beside the one that unlocked it, must agree with this file's log.

    Raises VaultRolledBack or AuditBroken. What follows may destroy keys on that token, and only the newest file that
    the token knows may ask for that.
    """

    def check() -> None:
        with unlocked.file.snapshot():
            unlocked.catch_up()
            prove_audit_key(token, unlocked.state.vault_id, registered)
            anchor = newest_anchor(token, unlocked.state.vault_id, registered)
            verify_from_anchor(unlocked.file, anchor, *base_of(unlocked.file, anchor), unlocked.state)

    _steadily(unlocked.file, check)


def _steadily(file: Store, attempt: Callable[[], T]) -> T:
    """``attempt``; if it fails and the file has changed meanwhile, it is tried again.

    It may have compared an older state of the file with a newer state of the token: a newer anchor, a root KEK that is
    gone. Raises VaultBusy if that does not end.
    """
    for _ in range(5):
        before = file.newest()
        try:
            return attempt()
        except (VaultError, TokenUnfit, NotAuthentic):
            if file.newest() == before:
                raise
    raise VaultBusy(t("the vault {vault} is busy: other commands are writing to it", vault=file.location))


def unlock(
    file: Store, token: Token, name: str, *, actor: str, clock: Clock = system_clock, proven: bool = True
) -> Unlocked:
    """Verify everything that must hold, then unwrap the vault keyset with the token called ``name``.

    Raises VaultError when anything does not hold (the file is then not written to), NotAuthentic or TokenError when
    the token cannot unwrap.

    ``proven=False`` leaves the challenge to the caller: with ``prove``, or the first entry's signature, before anything
    that the file holds leaves the program.
    """
    return _steadily(file, lambda: _unlock(file, token, name, actor, clock, proven))


def _unlock(file: Store, token: Token, name: str, actor: str, clock: Clock, proven: bool) -> Unlocked:
    with file.snapshot():
        state = finished_state(file)
        registered = state.tokens.get(name)
        if registered is None:
            raise VaultForeign(
                t("the vault {vault} knows no token called {token}", vault=file.location, token=name),
                "use one that it knows",
            )
        if proven:
            prove_audit_key(token, state.vault_id, registered)
        anchor = newest_anchor(token, state.vault_id, registered)
        base, restored = base_of(file, anchor)
        chain = verify_from_anchor(file, anchor, base, restored, state)
        try:
            keyset = open_keyset(token, state, registered, at=chain.sequence)
        except KeyError as exc:
            raise _no_kek(registered) from exc
        unlocked = Unlocked(file, token, registered, state, keyset, chain, actor, clock)
        unlocked.anchor, unlocked.proven = anchor, proven
        unlocked.look_at_clock()
    if restored is not None:
        prove(unlocked)
        unlocked.write_anchor()  # what the interrupted restore had left to do
    return unlocked


def open_keyset(token: Token, state: TrustState, registered: RegisteredToken, *, at: int | None = None) -> VaultKeyset:
    """The token's one unwrap; ``at`` is the entry to name if the keyset on record cannot be its.

    Raises AuditBroken, NotAuthentic, and KeyError for a token without the root KEK.
    """
    keyset = VaultKeyset(token.unwrap_keyset(*_to_unwrap(state, registered, at)), state.vault_id)
    row = state.keyset_of(registered.name)
    assert row is not None
    # Rows of before have no check, and p256-hpke binds all of it by itself.
    if row.check and not hmac.compare_digest(row.check, keyset.check_of(state.generation, registered.id, row.wrapped)):
        keyset.destroy()
        raise AuditBroken("the keyset on record is not the one that was wrapped for this token", at=at)
    return keyset


def keyset_to_host(unlocked: Unlocked) -> tuple[Secret, Secret, Secret]:
    """The three keys themselves, to wrap them for another token; the caller wipes them. Raises TokenUnfit."""
    unwrap = _to_unwrap(unlocked.state, unlocked.registered, unlocked.log.sequence)
    try:
        return unlocked.token.unwrap_keyset_to_host(*unwrap)
    except KeyError as exc:
        raise _no_kek(unlocked.registered) from exc


def _to_unwrap(state: TrustState, registered: RegisteredToken, at: int | None) -> tuple[str, bytes, bytes]:
    """Name of the KEK, wrapped keyset, and what it is bound to. Raises AuditBroken."""
    keyset = state.keyset_of(registered.name)
    if keyset is None:
        raise TokenUnfit(
            t("token {token} was not there when the vault was re-keyed, and cannot open it yet", token=registered.name),
            "plug in a token that can, too, and run 'medcrypt --token OTHER vault sync'",
        )
    if keyset.token_id != registered.id:
        raise AuditBroken("the keyset on record is another token's", at=at)
    info = keyset_info(state.vault_id, state.generation, registered.id)
    return kek_name(state.vault_id, keyset.kek), keyset.wrapped, info


def _no_kek(registered: RegisteredToken) -> TokenUnfit:
    return TokenUnfit(
        t("token {token} holds no root KEK of this vault", token=registered.name),
        "use another of its tokens, or call the officer",
    )
