"""Old root KEKs: destroyed on the tokens that hold them, each proven by a failed use (docs/spec/rekey.md, step 9).

In: an unlocked vault and open tokens. Out: what was destroyed. Not here: what made them old ones (rekey.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from medcrypt_hsm.lifecycle.others import OpenToken
from medcrypt_hsm.tokens.names import kek_name, kek_prefix
from medcrypt_hsm.vault.audit.actions import KEK_DESTROY
from medcrypt_hsm.vault.audit.trust import OldKek
from medcrypt_hsm.vault.unlock import open_keyset
from medcrypt_hsm.vault.unlocked import Unlocked, kek_names


def destroy_doomed(unlocked: Unlocked, presents: Sequence[OpenToken]) -> list[OldKek]:
    """Destroy the old root KEKs on these tokens, each proven by a failed use; which they were.

    Not before the keyset on record opens with the new KEK of each token that is registered.
    """
    gone = []
    for present in presents:
        mine = [d for d in unlocked.state.doomed if d.token_id == present.id and not _wraps(unlocked, d)]
        if mine and (registered := unlocked.state.tokens.get(present.name)) is not None:
            open_keyset(present.token, unlocked.state, registered).destroy()
        for doomed in mine:
            present.token.destroy(kek_name(unlocked.state.vault_id, doomed.kek))
            gone.append(doomed)
    return gone


def destroy_leftovers(unlocked: Unlocked, presents: Sequence[OpenToken]) -> None:
    """Destroy root KEKs that nothing refers to. They wrap nothing: a run was interrupted that used another token."""
    prefix = kek_prefix(unlocked.state.vault_id)
    for present in presents:
        if present.name in unlocked.state.tokens:
            known = kek_names(unlocked.state, present.name)
            for name in present.token.names():
                if name.startswith(prefix) and name not in known:
                    present.token.destroy(name)


def _wraps(unlocked: Unlocked, doomed: OldKek) -> bool:
    """Does this old KEK wrap the newest keyset, its token having been away?"""
    keyset = unlocked.state.keyset_of(doomed.token)
    return keyset is not None and keyset.kek == doomed.kek


def settle_doomed(unlocked: Unlocked, presents: Sequence[OpenToken]) -> list[OldKek]:
    """Destroy what these tokens still hold of old root KEKs, and record it; which they were."""
    if destroyed := destroy_doomed(unlocked, presents):
        with unlocked.change(KEK_DESTROY, ", ".join(sorted({doomed.token for doomed in destroyed}))) as change:
            for doomed in destroyed:
                change.delete_trust("doomed", doomed.row)
            change.detail["keks"] = [doomed.row for doomed in destroyed]
    return destroyed


def own_doomed(unlocked: Unlocked) -> bool:
    return any(d.token_id == unlocked.registered.id and not _wraps(unlocked, d) for d in unlocked.state.doomed)
