"""``Vault.tokens``: which tokens open the vault; a spare is added, a lost one taken away.

In: an open vault, token URIs, how PINs are asked for. Out: what is on record of a token, or a certificate. Not here:
what happens on the tokens (lifecycle/).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medcrypt_hsm.api.base import Part
from medcrypt_hsm.errors import PinError, UsageError
from medcrypt_hsm.lifecycle import add_token, shred, sync
from medcrypt_hsm.lifecycle.certificate import Certificate, base_of
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import NO_OTHERS, Agree, OtherTokens, gather, gather_all, yes
from medcrypt_hsm.lifecycle.sync import Synced
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Evidence, PinPrompt
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.vault.audit.trust import RegisteredToken
from medcrypt_hsm.vault.choosing import check_token_name
from medcrypt_hsm.vault.keyset import kek_names

if TYPE_CHECKING:
    from medcrypt_hsm.breakglass.ceremony import PinOf

_DEFAULT = TokenOptions()
NO_SHARES: Mapping[str, str] = {}


class Tokens(Part):
    """The tokens of an open vault. Calls take turns with the vault's own."""

    def add(
        self, name: str, uri: str, *, pin: PinPrompt | TokenAccess, options: TokenOptions = _DEFAULT
    ) -> RegisteredToken:
        """Register another token, at ``uri``, as ``name``; from then on each of them opens the vault alone."""
        access = TokenAccess.of(pin)
        with self._vault.working() as unlocked:
            check_token_name(name)
            options.check()
            add_token.check_name(unlocked, name)
            if access.find(uri).uri == unlocked.token.info.uri:
                raise UsageError(
                    t("that token is registered already: it is {token}", token=unlocked.registered.name),
                    "name another token",
                )
            try:
                token = access.open(uri)
            except PinError as exc:
                add_token.record_failure(unlocked, name, exc)
                raise
            with token:
                return add_token.add(unlocked, name, token, options)

    def remove(
        self, name: str, others: OtherTokens = NO_OTHERS, *, certificate: Path | None = None, agree: Agree = yes
    ) -> Certificate | None:
        """Take a token away by re-keying, or give up an add that was interrupted (then there is no certificate)."""
        with self._vault.working(anchor=False) as unlocked:
            to = base_of(certificate)
            if name in unlocked.state.adding:
                with self._vault.working():
                    add_token.give_up(unlocked, name)
                return None
            shred.check_remove(unlocked, name)
            agree()
            with gather_all(unlocked, others, name) as opened:
                return shred.remove_token(unlocked, name, opened, others, to)

    def sync(
        self, others: OtherTokens = NO_OTHERS, shares: Mapping[str, str] = NO_SHARES, pin_of: PinOf | None = None
    ) -> Synced:
        """Bring tokens up to date that were away when the vault was re-keyed.

        ``shares``: custodian's name → URI of a token on which an old share is to be destroyed; ``pin_of``: how their
        PINs are asked for.
        """
        from medcrypt_hsm.breakglass import ceremony

        with self._vault.working(anchor=False) as unlocked:
            wanted = sync.wanted(unlocked)
            with (
                gather(unlocked, others, wanted, may_be_away=[token.name for token in wanted]) as opened,
                ceremony.opened(unlocked, shares, pin_of or (lambda name: others.access.pin), others) as holders,
            ):
                return sync.sync(unlocked, opened, others, [holder.token for holder in holders])

    def evidence(self) -> list[Evidence]:
        """What the token in use claims of this vault's root KEK and audit key."""
        with self._vault.working(anchor=False) as unlocked:
            state = unlocked.state
            keys = (*kek_names(state, unlocked.registered.name)[:1], audit_key_name(state.vault_id))
            return [unlocked.token.evidence(name) for name in keys]
