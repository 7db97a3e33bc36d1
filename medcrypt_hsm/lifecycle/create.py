"""Making a vault: token objects, file and first head, so that a kill at any point leaves what the next run clears.

The file comes first and names the token (``unfinished``); then KEK, audit key and an anchor at sequence 0 on the token;
then one transaction with the trust state, the log key and the entry that introduces the token. Until that commit the
next ``vault create`` takes away exactly what this one made, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, Refused, TokenUnfit, VaultError
from medcrypt_hsm.lifecycle import enroll
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import canonical, timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import anchor_name
from medcrypt_hsm.tokens.uri import same_token
from medcrypt_hsm.vault.anchoring import put_anchor
from medcrypt_hsm.vault.audit import entries, trust
from medcrypt_hsm.vault.audit.actions import TOKEN_INTRODUCE, VAULT_CREATE
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.fields import introduction
from medcrypt_hsm.vault.audit.rowtree import bind_rows
from medcrypt_hsm.vault.audit.trust import MonthState, Policy, Root, TrustState
from medcrypt_hsm.vault.change import sign_entry
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.keyset import LOG, SEEN, log_month
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import Store, create_store, open_store, remove_store
from medcrypt_hsm.vault.store.surroundings import surroundings_of
from medcrypt_hsm.vault.unlocked import Unlocked

GENERATION = 1
FIRST_LOG_KEY = 1


def create(
    vault: Location,
    name: str,
    token: Token,
    *,
    options: TokenOptions,
    rules: Policy,
    actor: str,
    clock: Clock = system_clock,
) -> Unlocked:
    """Make ``vault``, whose first token, ``token``, is called ``name``; unlocked when it returns.

    Raises VaultError if there is a finished vault, TokenUnfit if the token cannot serve as ``options`` say, Refused if
    it is below the policy.
    """
    options.profile_of(token)  # before anything is made
    surroundings = surroundings_of(vault)
    surroundings.make()
    with surroundings.alone():  # what another run is making now looks like what a killed run left
        if surroundings.vault_exists:
            _clear_unfinished(vault, token)
        vault_id = os.urandom(16)
        file = create_store(vault, ("vault", "", canonical({"id": vault_id.hex(), "unfinished": token.info.uri})))
        try:
            return _make(file, vault_id, name, token, options, rules, actor, clock)
        except (TokenUnfit, Refused):
            # This token can never serve: what was begun with it must not keep a better one from being used.
            file.close()
            _clear_unfinished(vault, token)
            raise


def _make(
    file: Store,
    vault_id: bytes,
    name: str,
    token: Token,
    options: TokenOptions,
    rules: Policy,
    actor: str,
    clock: Clock,
) -> Unlocked:
    now = clock()
    registered = enroll.make_keys(token, name, vault_id, GENERATION, options, rules)
    with contextlib.ExitStack() as stack:
        fresh = [stack.enter_context(Secret(os.urandom(32))).value for _ in range(3)]
        secret = (fresh[0], fresh[1], fresh[2])
        wrapped, keyset = enroll.wrap_keyset(token, registered, vault_id, GENERATION, secret)

    chain = Chain(vault_id, 0, entries.genesis(vault_id), {registered.id: registered.audit_key})
    put_anchor(token, registered.id, chain, now)

    time, month = timestamp(now), str(Month.of(now))
    with file.transaction():
        for kind, row_name, value in (
            ("vault", "", {"created": time, "generation": GENERATION, "id": vault_id.hex(), "log_key": FIRST_LOG_KEY}),
            ("policy", "", rules.value()),
            ("token", name, registered.value()),
            ("keyset", f"{GENERATION}:{name}", wrapped.value()),
            ("month", month, MonthState(time).value()),
        ):
            file.put_trust(kind, row_name, canonical(value))
        with Secret(os.urandom(32)) as log_key, Secret(os.urandom(32)) as seen_key:
            records = [
                keyset.wrap(LOG, b"", log_month(FIRST_LOG_KEY), 1, log_key),
                keyset.wrap(SEEN, b"", "", 1, seen_key),
            ]
        file.put_records(records)
        for group, root in bind_rows(file).items():
            file.put_trust("rows", group, canonical(Root(group, root).value()))
        state = trust.parse(file.trust_rows())
        detail = introduction(registered.value(), name) | {"writes": [row.ref for row in records]}
        stored = entries.clear_entry(Entry(time, actor, name, TOKEN_INTRODUCE, name, "done", detail))
        row = sign_entry(token, chain, registered.id, stored, state.digest)
        file.append(row)

    chain.extend(row, check_head=True)
    unlocked = Unlocked(file, token, registered, state, keyset, chain, actor, clock)
    unlocked.look_at_clock()
    unlocked.record(VAULT_CREATE, name, {"month": month, "policy": rules.whole()})
    unlocked.write_anchor()
    return unlocked


def check_absent(vault: Location) -> None:
    """Raises VaultError if there is a finished vault, so that nobody is asked for a PIN in vain."""
    if surroundings_of(vault).vault_exists:
        _unfinished_state(vault)


def _unfinished_state(vault: Location) -> TrustState:
    file = open_store(vault)
    try:
        with file.snapshot():
            state = trust.parse(file.trust_rows())
            begun = file.newest() is not None
    finally:
        file.close()
    if not state.unfinished or begun:
        raise VaultError(t("there is a vault at {vault} already", vault=vault), "name another file with --vault")
    return state


def _clear_unfinished(vault: Location, token: Token) -> None:
    """Take back what an interrupted ``create`` left there and on its token. Raises VaultError otherwise."""
    state = _unfinished_state(vault)
    if not same_token(token.info.uri, state.unfinished):
        raise VaultError(
            t("making the vault at {vault} was begun with another token, {token}", vault=vault, token=state.unfinished),
            "run the same command with that token first, so that what it holds is cleared",
        )
    destroy_unfinished(token, state.vault_id)
    remove_store(vault)


def destroy_unfinished(token: Token, vault_id: bytes) -> None:
    """Destroy what an unfinished vault left on the token. Raises VaultError if that vault was finished after all."""
    for value in token.read_objects(anchor_name(vault_id)):
        if _anchor_sequence(value) != 0:
            raise VaultError(
                "the token has used this vault already; the unfinished file is not the whole of it",
                "restore a backup: 'medcrypt vault restore FILE'",
            )
    enroll.take_back(token, vault_id)


def _anchor_sequence(value: bytes) -> int:
    """Read without verifying. Any anchor that says more than 0, or cannot be read, forbids destroying the keys."""
    try:
        length = int.from_bytes(value[:4], "big")
        sequence = json.loads(value[4 : 4 + length])["sequence"]
        return sequence if isinstance(sequence, int) else -1
    except (ValueError, KeyError, TypeError, NotAuthentic):
        return -1
