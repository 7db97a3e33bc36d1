"""Binding the rows of a vault of before, whose heads vouch for no row (docs/spec/vault.md, "Bound rows").

In: an unlocked vault. Out: the same one, all of it verified, and roots over its rows in its trust state. That vouches
for the rows as they are found: one that somebody who held the keyset exchanged before is not told apart. One commit, so
a kill leaves it as it was. Not here: what the roots are (vault/audit/rowtree.py); a re-key binds rows too (commit.py).
"""

from __future__ import annotations

from dataclasses import replace

from medcrypt_hsm.errors import Refused
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.audit.actions import VAULT_BIND
from medcrypt_hsm.vault.audit.verify import Verified
from medcrypt_hsm.vault.unlocked import Unlocked


def bind(unlocked: Unlocked) -> Verified:
    """What was verified. Raises Refused for a vault whose rows are bound, AuditBroken for one that does not verify."""
    with unlocked.file.surroundings.alone():
        with unlocked.change(VAULT_BIND) as change:
            if unlocked.state.roots:
                raise Refused("the rows of this vault are bound already", "there is nothing to do")
            verified = log.verify_here(unlocked)  # under the write lock: what is bound is what was looked at
            with unlocked.rows.rewritten():
                pass
            change.detail["rows"] = verified.rows
        unlocked.write_anchor()
    return replace(verified, bound=True)
