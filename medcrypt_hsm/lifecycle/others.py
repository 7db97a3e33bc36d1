"""The vault's other tokens, while a command re-keys it: which are there, opened, and proven to know this very file.

In: an unlocked vault, and how PINs are asked for. Out: ``OpenToken`` tokens; or the error that names a token that is
missing and cannot be done without. Not here: what is done on them (rekey.py, syncing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from medcrypt_hsm.errors import PinNeeded, TokenAbsent, UsageError, VaultRolledBack
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import AES_KW, PinPrompt, Token, TokenInfo
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.tokens.uri import stored_uri
from medcrypt_hsm.vault.audit.trust import RegisteredToken, RetiredToken
from medcrypt_hsm.vault.unlock import check_other, prove_audit_key
from medcrypt_hsm.vault.unlocked import Unlocked

Known = RegisteredToken | RetiredToken


@dataclass(frozen=True, slots=True)
class OtherTokens:
    """How a command reaches the vault's other tokens. ``without``: those that are left out though they be there.

    ``roots`` and ``pins`` as in ``enroll.TokenOptions``: new root KEKs are graded as those of a new token are.
    """

    pin: PinPrompt | TokenAccess
    without: Collection[str] = ()
    roots: Sequence[bytes] = ()
    pins: Mapping[bytes, str] | None = None

    @property
    def access(self) -> TokenAccess:
        return TokenAccess.of(self.pin)


def nobody(info: TokenInfo) -> str:
    """No other token's PIN is known."""
    raise PinNeeded(t("the PIN of token {token} is needed too", token=info.label), "give it, or leave that token out")


NO_OTHERS = OtherTokens(nobody)
Agree = Callable[[], None]
"""Asked when it is known that what cannot be undone may be done; raises to stop."""


def yes() -> None: ...


class OpenToken(NamedTuple):
    """A token that is or was the vault's, and is open."""

    name: str
    id: bytes
    token: Token


def own(unlocked: Unlocked) -> OpenToken:
    """The token that the vault was unlocked with."""
    return OpenToken(unlocked.registered.name, unlocked.registered.id, unlocked.token)


@contextmanager
def gather(
    unlocked: Unlocked, company: OtherTokens, wanted: Iterable[Known], *, may_be_away: Collection[str] = ()
) -> Iterator[list[OpenToken]]:
    """Those ``wanted`` that are there, open, without the one in use and those that are left out.

    Raises TokenAbsent for one of profile ``aes-kw`` that is not there and may not be away: nothing can be wrapped for
    it.
    """
    _check_names(unlocked, company.without)
    with ExitStack() as stack:
        found = []
        for registered in wanted:
            if registered.name == unlocked.registered.name or registered.name in company.without:
                continue
            uri = stored_uri(registered.uri)
            try:
                company.access.find(uri)
            except TokenAbsent as exc:
                if registered.profile == AES_KW and registered.name not in may_be_away:
                    raise TokenAbsent(
                        t(
                            "token {token} is needed, and it is not there: {reason}",
                            token=registered.name,
                            reason=exc.message,
                        ),
                        t(
                            "plug it in, or add '--without {token}': it then opens the vault only after "
                            "'medcrypt vault sync'",
                            token=registered.name,
                        ),
                    ) from exc
                continue
            try:
                token = stack.enter_context(company.access.named(registered.name).open(uri))
            except PinNeeded:
                if isinstance(registered, RegisteredToken):
                    raise
                continue  # a removed one, whose PIN nobody may know any more
            if isinstance(registered, RegisteredToken):
                _check_history(unlocked, token, registered)
            else:
                prove_audit_key(token, unlocked.state.vault_id, registered)
            found.append(OpenToken(registered.name, registered.id, token))
        yield found


def gather_all(unlocked: Unlocked, company: OtherTokens, *may_be_away: str) -> AbstractContextManager[list[OpenToken]]:
    """Every other token of the vault that is there."""
    return gather(unlocked, company, list(unlocked.state.tokens.values()), may_be_away=may_be_away)


def _check_history(unlocked: Unlocked, token: Token, registered: RegisteredToken) -> None:
    try:
        check_other(unlocked, token, registered)
    except VaultRolledBack as exc:
        name = registered.name
        exc.hint = t(
            "look for the newer file. If this one was put back on purpose: 'medcrypt --token {token} vault restore "
            "{location}'; if that is refused too, remove it, 'medcrypt vault remove-token {token} "
            "--without {token}', and add it anew",
            token=name,
            location=unlocked.file.location,
        )
        raise


def _check_names(unlocked: Unlocked, names: Collection[str]) -> None:
    for name in names:
        if name not in unlocked.state.tokens and name not in unlocked.state.retired:
            known = ", ".join(sorted(unlocked.state.tokens))
            raise UsageError(
                t("this vault has no token {token}", token=name), t("its tokens are: {tokens}", tokens=known)
            )
        if name == unlocked.registered.name:
            raise UsageError(
                t("token {token} is the one in use and cannot be left out", token=name), "name another with --token"
            )
