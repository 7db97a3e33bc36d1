"""Making a vault: token objects, file and first head, so that a kill at any point leaves what the next run clears.

The file comes first and names the token (``unfinished``); then KEK, audit key and an anchor at sequence 0 on the token;
then one transaction with the trust state, the log key and the entry that introduces the token. Until that commit the
next ``vault create`` takes away exactly what this one made, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path

from medcrypt_hsm import audit, trust
from medcrypt_hsm.audit import Anchor, Chain, Entry, EntryRow
from medcrypt_hsm.errors import NotAuthentic, TokenUnfit, VaultError
from medcrypt_hsm.keys import LOG, VaultKeyset, canonical
from medcrypt_hsm.period import Month
from medcrypt_hsm.secret import Secret
from medcrypt_hsm.tokens import AES_KW, Token
from medcrypt_hsm.tokens.stored import same_token
from medcrypt_hsm.trust import Policy, RegisteredToken, TrustState
from medcrypt_hsm.unlocked import (
    Clock,
    Unlocked,
    anchor_name,
    audit_key_name,
    kek_name,
    keyset_info,
    log_month,
    system_clock,
    timestamp,
)
from medcrypt_hsm.vault import VaultFile, alone, files_of

GENERATION = 1
FIRST_LOG_KEY = 1


def create(path: Path, name: str, token: Token, *, actor: str, clock: Clock = system_clock) -> Unlocked:
    """Make a vault at ``path`` whose first token, ``token``, is called ``name``; unlocked when it returns.

    Raises VaultError if there is a finished vault, TokenUnfit if the token cannot carry the profile.
    """
    if missing := token.missing(AES_KW):
        raise TokenUnfit(f"token {token.info.label} lacks what a vault needs: {', '.join(missing)}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(path.parent):  # what another one is making looks like what it left behind
        return _create(path, name, token, actor, clock)


def _create(path: Path, name: str, token: Token, actor: str, clock: Clock) -> Unlocked:
    if path.exists():
        _clear_unfinished(path, token)
    vault_id, now = os.urandom(16), clock()
    file = VaultFile.create(path, ("vault", "", canonical({"id": vault_id.hex(), "unfinished": token.info.uri})))
    try:
        return _make(file, vault_id, name, token, actor, clock, now)
    except TokenUnfit:
        # This token will never do: what was begun must not keep a better one from being used.
        file.close()
        _clear_unfinished(path, token)
        raise


def _make(
    file: VaultFile, vault_id: bytes, name: str, token: Token, actor: str, clock: Clock, now: datetime
) -> Unlocked:
    token.make_kek(kek_name(vault_id, GENERATION), AES_KW)
    spki = token.make_signing_key(audit_key_name(vault_id))
    info = token.info
    registered = RegisteredToken(
        name, audit.fingerprint(spki), spki, info.uri, info.label, info.serial, info.model, AES_KW
    )
    keyset_context = keyset_info(vault_id, GENERATION, registered.id)
    with contextlib.ExitStack() as stack:
        fresh = [stack.enter_context(Secret(os.urandom(32))).value for _ in range(3)]
        wrapped = token.wrap_keyset(kek_name(vault_id, GENERATION), (fresh[0], fresh[1], fresh[2]), keyset_context)
    handles = token.unwrap_keyset(kek_name(vault_id, GENERATION), wrapped, keyset_context)
    keyset = VaultKeyset(handles, vault_id)

    anchor = Anchor(vault_id, registered.id, 0, audit.genesis(vault_id), timestamp(now), (registered.id,))
    anchor_signature = token.sign(audit_key_name(vault_id), anchor.to_sign)
    token.put_object(anchor_name(vault_id), anchor.signed(anchor_signature))

    month = str(Month.of(now))
    with file.transaction():
        state = {"created": timestamp(now), "generation": GENERATION, "id": vault_id.hex(), "log_key": FIRST_LOG_KEY}
        policy = Policy()
        for kind, row_name, value in (
            ("vault", "", state),
            ("policy", "", {"grace_days": policy.grace_days, "retain_months": policy.retain_months}),
            ("token", name, registered.value()),
            ("keyset", f"{GENERATION}:{name}", {"token": registered.id.hex(), "wrapped": wrapped.hex()}),
            ("month", month, {"opened": timestamp(now)}),
        ):
            file.put_trust(kind, row_name, canonical(value))
        with Secret(os.urandom(32)) as log_key:
            log_record = keyset.wrap(LOG, b"", log_month(FIRST_LOG_KEY), 1, log_key)
        file.put_records([log_record])
        trust_state = trust.parse(file.trust_rows())
        detail = audit.introduction(name, spki, AES_KW, info.serial, info.model) | {"writes": [log_record.ref]}
        entry = Entry(timestamp(now), actor, name, audit.INTRODUCE, name, "done", detail)
        stored = audit.clear_entry(entry)
        hash_ = audit.entry_hash(audit.genesis(vault_id), 1, trust_state.digest, registered.id, stored)
        head = audit.head_bytes(vault_id, 1, hash_, trust_state.digest)
        signature = token.sign(audit_key_name(vault_id), head)
        file.append(EntryRow(1, stored, hash_, trust_state.digest, registered.id, signature))

    chain = Chain(vault_id, 1, hash_, {registered.id: spki})
    chain.trust = trust_state.digest
    unlocked = Unlocked(file, token, registered, trust_state, keyset, chain, actor, clock)
    unlocked.look_at_clock()
    unlocked.record("vault.create", name, {"month": month, "policy": [policy.grace_days, policy.retain_months]})
    unlocked.write_anchor()
    return unlocked


def check_absent(path: Path) -> None:
    """Raises VaultError if there is a finished vault, so that nobody is asked for a PIN in vain."""
    if path.exists():
        _unfinished_state(path)


def _unfinished_state(path: Path) -> TrustState:
    file = VaultFile.open(path)
    try:
        with file.snapshot():
            state = trust.parse(file.trust_rows())
            begun = file.newest() is not None
    finally:
        file.close()
    if not state.unfinished or begun:
        raise VaultError(f"there is a vault at {path} already", "name another file with --vault")
    return state


def _clear_unfinished(path: Path, token: Token) -> None:
    """Take back what an interrupted ``create`` left at ``path`` and on its token. Raises VaultError otherwise."""
    state = _unfinished_state(path)
    if not same_token(token.info.uri, state.unfinished):
        raise VaultError(
            f"making the vault at {path} was begun with another token, {state.unfinished}",
            "run the same command with that token first, so that what it holds is cleared",
        )
    destroy_unfinished(token, state.vault_id)
    for leftover in files_of(path):
        leftover.unlink(missing_ok=True)


def destroy_unfinished(token: Token, vault_id: bytes) -> None:
    """Destroy what a vault that never came to be left on the token. Raises VaultError if it did come to be."""
    for value in token.read_objects(anchor_name(vault_id)):
        if _anchor_sequence(value) != 0:
            raise VaultError(
                "the token has used this vault already; the unfinished file is not the whole of it",
                "restore a backup: 'medcrypt vault restore FILE'",
            )
    for name in (kek_name(vault_id, GENERATION), audit_key_name(vault_id), anchor_name(vault_id)):
        token.destroy(name)


def _anchor_sequence(value: bytes) -> int:
    """Read without verifying: an object that says more than 0, or nothing readable, forbids."""
    try:
        length = int.from_bytes(value[:4], "big")
        sequence = json.loads(value[4 : 4 + length])["sequence"]
        return sequence if isinstance(sequence, int) else -1
    except (ValueError, KeyError, TypeError, NotAuthentic):
        return -1
