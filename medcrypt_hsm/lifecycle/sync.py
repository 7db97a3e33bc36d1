"""Bringing tokens up to date that were away when the vault was re-keyed (docs/spec/rekey.md, "Sync").

In: an unlocked vault and the tokens that are there. Out: for each that lagged a new root KEK, the newest keyset under
it, and the old KEKs destroyed. A kill leaves what the next run undoes or finishes, as with a re-key.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.lifecycle import custody_upkeep, enroll
from medcrypt_hsm.lifecycle.new_keks import make_kek
from medcrypt_hsm.lifecycle.old_keks import destroy_leftovers, settle_old
from medcrypt_hsm.lifecycle.others import Known, OpenToken, OtherTokens, own
from medcrypt_hsm.lifecycle.settle import begin, roll_back, settle_locked
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.vault.audit.actions import SHARE_DESTROY, SYNCING, UNDONE, VAULT_SYNC
from medcrypt_hsm.vault.audit.chain_signers import NewKek
from medcrypt_hsm.vault.unlocked import Unlocked


@dataclass(frozen=True, slots=True)
class Synced:
    """``renewed``: tokens with a new root KEK. ``destroyed``: old KEKs, as "generation:token". ``left``: those that
    are not destroyed, because their tokens are not there. The same of custodians' old shares, "ceremony:name"."""

    renewed: tuple[str, ...]
    destroyed: tuple[str, ...]
    left: tuple[str, ...]
    shares_destroyed: tuple[str, ...] = ()
    shares_left: tuple[str, ...] = ()


def sync(
    unlocked: Unlocked, others: Sequence[OpenToken], options: OtherTokens, custodians: Sequence[Token] = ()
) -> Synced:
    """``custodians``: tokens that may hold old shares. Raises TokenUnfit and Refused for a token that cannot make its
    new KEK."""
    with unlocked.file.surroundings.alone():
        before = {old.row for old in unlocked.state.doomed}
        settle_locked(unlocked)
        renewed = []
        for opened in (own(unlocked), *others):
            if opened.name in unlocked.state.tokens and unlocked.state.lags(opened.name):
                unlocked.end_session()
                _renew(unlocked, opened, options)
                renewed.append(opened.name)
        # First the anchors: keys that open older files are destroyed only when no token accepts an older file any more.
        unlocked.write_anchor()
        for other in others:
            if other.name in unlocked.state.tokens:
                unlocked.write_anchor_on(other.token, other.id)
        settle_old(unlocked, [own(unlocked), *others])
        destroy_leftovers(unlocked, others)
        for other in others:
            if other.name not in unlocked.state.tokens:
                enroll.take_back(other.token, unlocked.state.vault_id)
        shares = _settle_shares(unlocked, custodians)
        unlocked.write_anchor()
        left = {old.row for old in unlocked.state.doomed}
        shares_left = tuple(sorted(share.row for share in unlocked.state.old_shares))
        return Synced(tuple(renewed), tuple(sorted(before - left)), tuple(sorted(left)), shares, shares_left)


def _settle_shares(unlocked: Unlocked, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Destroy what these tokens still hold of old shares, and record it; which they were."""
    destroyed = custody_upkeep.destroy_old(unlocked, tokens)
    if destroyed:
        with unlocked.change(SHARE_DESTROY, ", ".join(sorted({share.name for share in destroyed}))) as change:
            for share in destroyed:
                change.delete_trust("oldshare", share.row)
            change.detail["shares"] = [share.row for share in destroyed]
    custody_upkeep.forget(unlocked, destroyed, tokens)
    return tuple(sorted(share.row for share in destroyed))


def _renew(unlocked: Unlocked, opened: OpenToken, options: OtherTokens) -> None:
    generation, name = unlocked.state.generation, opened.name
    begin(unlocked, VAULT_SYNC, SYNCING, generation)
    try:
        made = make_kek(unlocked, opened, generation, options)
        wrapped = enroll.wrap_present_keyset(unlocked, opened.token, made)
        with unlocked.change(VAULT_SYNC) as change:
            change.put_trust("token", name, made.value())
            change.put_trust("keyset", f"{generation}:{name}", wrapped.value())
            change.delete_trust("rekey", "")
            change.detail["generation"] = generation
            change.detail["keks"] = {name: NewKek(made.attestation, generation, made.kek.hex()).value()}
    except BaseException as exc:
        if unlocked.state.rekey is not None:
            with suppress(MedcryptError):
                roll_back(unlocked, [opened], getattr(exc, "name", UNDONE))
        raise
    if opened.token is unlocked.token:
        unlocked.registered = made


def wanted(unlocked: Unlocked) -> list[Known]:
    """The tokens that have something to be done on them: those that lag, and those that hold an old root KEK."""
    state = unlocked.state
    to_destroy = {old.token for old in state.doomed}
    lagging = [token for name, token in state.tokens.items() if state.lags(name) or name in to_destroy]
    return [*lagging, *(token for name, token in state.retired.items() if name in to_destroy)]
