"""What ``Vault.create`` and ``Vault.restore`` do before there is a vault to unlock: check, find the token, open it.

In: a vault's name, how the token is reached. Out: an unlocked vault. Not here: how a vault is made or put back
(lifecycle/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from medcrypt_hsm.lifecycle import create as creation
from medcrypt_hsm.lifecycle import restore as restoring
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.lifecycle.restore import Loss, Vouching
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.vault import policy as rules
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.trust import Policy
from medcrypt_hsm.vault.choosing import check_token_name, choose_token, peek, uri_to_open
from medcrypt_hsm.vault.clock import Clock
from medcrypt_hsm.vault.opening import closed_on_failure, noted
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.unlocked import Unlocked


def create(
    vault: Location,
    token: str,
    uri: str,
    access: TokenAccess,
    options: TokenOptions | None,
    policy: Policy | None,
    actor: str,
    clock: Clock,
) -> Unlocked:
    """See ``Vault.create``. All that can be checked is checked before anybody is asked for a PIN."""
    check_token_name(token)
    options, policy = options or TokenOptions(), policy or Policy()
    options.check()
    rules.check(policy)
    creation.check_absent(vault)
    opened = access.open(uri)
    with closed_on_failure(opened):
        return creation.create(vault, token, opened, options=options, rules=policy, actor=actor, clock=clock)


def restore(
    vault: Location,
    source: Location,
    access: TokenAccess,
    token: str | None,
    agree: Callable[[Loss], None],
    since: Sequence[Checkpoint],
    actor: str,
    clock: Clock,
) -> Unlocked:
    """See ``Vault.restore``. The token is one that the backup names, which is not verified yet."""
    with closing(open_store(source, in_use=False)) as file:
        registered = choose_token(peek(file), token, access.modules)
    with noted(vault, registered.name, clock):
        opened = access.named(registered.name).open(uri_to_open(registered, token))
    vouching = Vouching(since, OtherTokens(access))
    with closed_on_failure(opened):
        return restoring.restore(
            vault, source, opened, registered.name, agree, vouching=vouching, actor=actor, clock=clock
        )
