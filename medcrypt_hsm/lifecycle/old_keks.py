"""Old root KEKs: destroyed on the tokens that hold them, each proven by a failed use (docs/spec/rekey.md, step 9).

In: an unlocked vault and open tokens. Out: what was destroyed. Not here: what made them old ones (commit.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from medcrypt_hsm.lifecycle.others import OpenToken
from medcrypt_hsm.tokens.names import kek_name, kek_prefix
from medcrypt_hsm.vault.audit.actions import KEK_DESTROY
from medcrypt_hsm.vault.audit.trust import OldKek
from medcrypt_hsm.vault.keyset import kek_names
from medcrypt_hsm.vault.unlock import open_keyset
from medcrypt_hsm.vault.unlocked import Unlocked


def destroy_old(unlocked: Unlocked, opened: Sequence[OpenToken]) -> list[OldKek]:
    """Destroy the old root KEKs on these tokens, each proven by a failed use; which they were.

    Not before the keyset on record opens with the new KEK of each token that is registered.
    """
    gone = []
    for each in opened:
        mine = [old for old in unlocked.state.doomed if old.token_id == each.id and not _wraps(unlocked, old)]
        if mine and (registered := unlocked.state.tokens.get(each.name)) is not None:
            open_keyset(each.token, unlocked.state, registered).destroy()
        for old in mine:
            each.token.destroy(kek_name(unlocked.state.vault_id, old.kek))
            gone.append(old)
    return gone


def destroy_leftovers(unlocked: Unlocked, opened: Sequence[OpenToken]) -> None:
    """Destroy root KEKs that nothing refers to. They wrap nothing: a run was interrupted that used another token."""
    prefix = kek_prefix(unlocked.state.vault_id)
    for each in opened:
        if each.name in unlocked.state.tokens:
            known = kek_names(unlocked.state, each.name)
            for name in each.token.names():
                if name.startswith(prefix) and name not in known:
                    each.token.destroy(name)


def settle_old(unlocked: Unlocked, opened: Sequence[OpenToken]) -> list[OldKek]:
    """Destroy what these tokens still hold of old root KEKs, and record it; which they were."""
    if destroyed := destroy_old(unlocked, opened):
        with unlocked.change(KEK_DESTROY, ", ".join(sorted({old.token for old in destroyed}))) as change:
            for old in destroyed:
                change.delete_trust("doomed", old.row)
            change.detail["keks"] = [old.row for old in destroyed]
    return destroyed


def own_old_keks(unlocked: Unlocked) -> bool:
    """Is there an old KEK on the token in use that can go?"""
    return any(old.token_id == unlocked.registered.id and not _wraps(unlocked, old) for old in unlocked.state.doomed)


def _wraps(unlocked: Unlocked, old: OldKek) -> bool:
    """Does this old KEK wrap the newest keyset, its token having been away?"""
    keyset = unlocked.state.keyset_of(old.token)
    return keyset is not None and keyset.kek == old.kek
