"""Adding a spare token to a vault, so that a kill at any point leaves what the same command, run again, completes.

A signed intent comes first, and from then on the file names the token as one that is being added. Then KEK and audit
key are made there, the keyset is wrapped for it, and one transaction introduces it: the new token's first anchor, which
names the head before, its trust rows, and the entry in the clear. Until that commit the vault works as before, and the
next run clears from the new token what this one made.
"""

from __future__ import annotations

from medcrypt_hsm.errors import (
    MedcryptError,
    NotAuthentic,
    Refused,
    TokenUnfit,
    UsageError,
    VaultError,
    VaultRolledBack,
)
from medcrypt_hsm.lifecycle import enroll, shares
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name
from medcrypt_hsm.vault import policy
from medcrypt_hsm.vault.anchoring import Anchor, newest_anchor, parse_anchor, put_anchor
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.actions import TOKEN_ADD, TOKEN_INTRODUCE, TOKEN_REMOVE
from medcrypt_hsm.vault.audit.fields import introduction
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.trust import Adding, RegisteredToken
from medcrypt_hsm.vault.change import Change, enter_failure
from medcrypt_hsm.vault.store.store import Store
from medcrypt_hsm.vault.unlocked import Unlocked


def check_name(unlocked: Unlocked, name: str) -> None:
    """Raises UsageError for a name that a token of this vault has, or ever had: names are not used twice."""
    for row in unlocked.file.clear_entries():
        entry = entries.read_clear(row)
        if entry is not None and name in (entry.detail.get("name"), entry.detail.get("token", {}).get("name")):
            raise UsageError(
                t("this vault has, or had, a token called {token}", token=name),
                "choose another name, or use that token",
            )


def add(unlocked: Unlocked, name: str, token: Token, options: TokenOptions) -> RegisteredToken:
    """Register ``token``, which is open, as ``name``; the present token introduces it.

    Raises UsageError (name taken, token registered), TokenUnfit, Refused (below the policy: nothing stays on the
    token), VaultRolledBack if the token has seen more of this vault than this file.
    """
    with unlocked.file.surroundings.alone():  # what another run is adding now looks like what a killed run left
        profile = options.profile_of(token)
        _check_no_custodian(unlocked, token)
        check_leftovers(unlocked, token)
        with unlocked.change(TOKEN_ADD, name, outcome="intended") as change:
            check_name(unlocked, name)
            change.detail.update(serial=token.info.serial, profile=profile, touch=options.touch)
            _forget_other_names(unlocked, change, name, token.info.uri)
            change.put_trust("adding", name, Adding(name, token.info.uri, token.info.serial, change.time).value())
        try:
            registered = _add(unlocked, name, token, options)
        except (TokenUnfit, Refused) as exc:  # this token can never serve: nothing of this vault stays on it
            enroll.take_back(token, unlocked.state.vault_id)
            enter_failure(unlocked, TOKEN_ADD, name, exc, undo=lambda change: change.delete_trust("adding", name))
            raise
        except MedcryptError as exc:
            record_failure(unlocked, name, exc)
            raise
        unlocked.write_anchor()
    return registered


def _check_no_custodian(unlocked: Unlocked, token: Token) -> None:
    """BG-1. Raises BreakGlassRefused."""
    state = unlocked.state
    held = {share.serial: share.name for share in state.old_shares}
    if state.breakglass is not None:
        held |= {custodian.serial: name for name, custodian in state.breakglass.custodians.items()}
    if (serial := token.info.serial) in held or shares.ceremonies_on(token, state.vault_id):
        whose = held.get(serial, t("a custodian"))
        raise BreakGlassRefused(
            Rule.BG_1, t("this is the token of {owner}", owner=whose), "use another token for the vault"
        )


def record_failure(unlocked: Unlocked, name: str, exc: MedcryptError) -> None:
    """That this token was not added, also where its PIN was not even right."""
    enter_failure(unlocked, TOKEN_ADD, name, exc)


def _add(unlocked: Unlocked, name: str, token: Token, options: TokenOptions) -> RegisteredToken:
    vault_id, generation = unlocked.state.vault_id, unlocked.state.generation
    enroll.take_back(token, vault_id)  # what an interrupted run left there
    registered = enroll.make_keys(token, name, vault_id, generation, options, unlocked.state.policy)
    wrapped = enroll.wrap_present_keyset(unlocked, token, registered)
    with unlocked.change(TOKEN_INTRODUCE, name) as change:
        policy.check_grade(unlocked.state.policy, registered.attestation)  # which may have changed meanwhile
        put_anchor(token, registered.id, unlocked.log.chain, unlocked.clock.now())
        try:
            newest_anchor(token, vault_id, registered)  # it can be read back, and the audit key on record signed it
        except VaultRolledBack as exc:
            raise TokenUnfit("the new token's anchor is not signed by its audit key", "use another token") from exc
        change.put_trust("token", name, registered.value())
        change.put_trust("keyset", f"{generation}:{name}", wrapped.value())
        change.delete_trust("adding", name)
        change.detail.update(introduction(registered.value(), name))
    return registered


def check_leftovers(unlocked: Unlocked, token: Token) -> None:
    """What the token holds of this vault must be an interrupted add's. Raises UsageError or VaultRolledBack.

    The token is recognised by its audit key, because serials are only claims. A valid anchor that this file does not
    have says that the token was added in a newer file, or in another history. An anchor is made last and destroyed
    first, so an interrupted run never leaves one without the key that signed it. All anchors must be signed by the key
    that the token shows: on many tokens anybody may exchange that key, and add objects, without the PIN.
    """
    with unlocked.file.transaction():
        unlocked.catch_up()  # another run may have registered this very token since the vault was opened
    vault_id = unlocked.state.vault_id
    anchors = [value for value in token.read_objects(anchor_name(vault_id)) if value]
    try:
        spki = token.public_key(audit_key_name(vault_id))
        for registered in unlocked.state.tokens.values():
            if registered.audit_key == spki:
                raise UsageError(
                    t("this token is registered already: it is {token}", token=registered.name), "use it with --token"
                )
        for retired in unlocked.state.retired.values():
            if retired.audit_key == spki:  # with a new audit key nobody could prove any more that its old keys are gone
                raise UsageError(
                    t("this token was {token}, which was removed while it was away", token=retired.name),
                    "run 'medcrypt vault sync' first: that empties it",
                )
        for value in anchors:
            _check_known(unlocked.file, parse_anchor(value, spki))
    except (KeyError, TokenUnfit, NotAuthentic) as exc:  # unfit: half a key pair, of a token that died making it
        if anchors:  # or the public key was exchanged, for which nobody needs the PIN
            raise VaultError(
                "the token holds an anchor of this vault, and no audit key that could have signed it",
                "find out who used it; if nobody needs what is on it, erase the token and add it",
            ) from exc


def _check_known(file: Store, anchor: Anchor) -> None:
    row = file.entry(anchor.sequence)
    if row is None or row.hash != anchor.hash:
        raise VaultRolledBack(
            t(
                "the token was added to this vault in a history that this file does not have: it has seen audit entry "
                "{entry}",
                entry=anchor.sequence,
            ),
            "look for the newer file and put that back; if it was given up on purpose by a restore, erase the token "
            "and add it again",
        )


def _forget_other_names(unlocked: Unlocked, change: Change, name: str, uri: str) -> None:
    """Forget other names under which adding this very token was begun.

    Raises UsageError if ``name`` was begun with another token: what that token holds would never be cleared.
    """
    for begun in unlocked.state.adding.values():
        if begun.name == name and begun.uri != uri:
            raise UsageError(
                t("adding {token} was begun with another token, {uri}", token=name, uri=begun.uri),
                t(
                    "run the same command with that token, or give it up with 'medcrypt vault remove-token {token}'",
                    token=name,
                ),
            )
        if begun.name != name and begun.uri == uri:
            change.delete_trust("adding", begun.name)


def give_up(unlocked: Unlocked, name: str) -> None:
    """Give up an interrupted add."""
    with unlocked.change(TOKEN_REMOVE, name) as change:
        change.delete_trust("adding", name)
