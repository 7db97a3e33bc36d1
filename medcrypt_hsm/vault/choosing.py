"""Which of a vault's tokens is meant, by what its file says: nothing of that is verified yet.

In: a vault file, and what a person wrote, a short name or a URI. Out: the token as it is on record, and the URI to look
for it with. Not here: how it is opened (opening.py), and how the vault stands (inspection.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from medcrypt_hsm.errors import TokenAbsent, TokenError, UsageError, VaultForeign
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens.access import find_token
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.tokens.uri import same_token, stored_uri
from medcrypt_hsm.vault.audit.trust import RegisteredToken, TrustState, finished_state
from medcrypt_hsm.vault.keyset import kek_names
from medcrypt_hsm.vault.store.rows import Location, Named
from medcrypt_hsm.vault.store.store import Store, open_store


def peek(file: Store) -> TrustState:
    """The trust state as the file has it: not verified. Raises VaultUnfinished."""
    with file.snapshot():
        return finished_state(file)


def choose_token(state: TrustState, wanted: str | None, modules: Sequence[str] = ()) -> RegisteredToken:
    """The registered token that is meant: by short name, by URI, the only one, or the first that is present.

    Raises UsageError, TokenAbsent, or what is wrong with the first that is there and cannot be used.
    """
    if wanted is not None and wanted in state.tokens:
        return state.tokens[wanted]
    if wanted is not None:
        for token in state.tokens.values():
            if same_token(wanted, token.uri):
                return token
        if wanted in state.retired:
            raise VaultForeign(
                t(
                    "token {token} was removed from this vault at {since}",
                    token=wanted,
                    since=state.retired[wanted].since,
                ),
                "use another of its tokens; if nobody removed it, the file is forged or another: call the officer",
            )
        known = ", ".join(sorted(state.tokens))
        raise UsageError(
            t("this vault has no token {token}", token=wanted), t("its tokens are: {tokens}", tokens=known)
        )
    if len(state.tokens) == 1:
        return next(iter(state.tokens.values()))
    problems: list[TokenError] = []
    absent: list[TokenAbsent] = []
    # Those that open the vault first: one that was away at a re-key may have to be synced before it does.
    for token in sorted(state.tokens.values(), key=lambda token: state.keyset_of(token.name) is None):
        try:
            find_token(stored_uri(token.uri), modules=modules)
        except TokenAbsent as exc:
            absent.append(exc)
        except TokenError as exc:
            problems.append(exc)
        else:
            return token
    for problem in problems:
        raise problem
    names, why = ", ".join(sorted(state.tokens)), joined("; ", dict.fromkeys(exc.message for exc in absent))
    raise TokenAbsent(
        t("none of this vault's tokens is present: {tokens} ({reason})", tokens=names, reason=why), absent[0].hint
    )


class OnRecord(NamedTuple):
    """A vault's token, as its file has it."""

    uri: str  # to open it with
    name: str
    keys: Mapping[str, bytes]  # the vault's newest keys on it → public key (SPKI; none of an ``aes-kw`` KEK)


def token_on_record(path: Named, wanted: str) -> OnRecord:
    """The token ``wanted``, by short name or URI, of the vault at ``path``. Raises UsageError, VaultError."""
    with closing(open_store(Location.parse(path))) as file:
        state = peek(file)
    registered = choose_token(state, wanted)
    newest = kek_names(state, registered.name)[:1]
    keys = dict.fromkeys(newest, registered.kek) | {audit_key_name(state.vault_id): registered.audit_key}
    return OnRecord(uri_to_open(registered, wanted), registered.name, keys)


def uri_to_open(registered: RegisteredToken, wanted: str | None) -> str:
    """A person's URI as it is; the file's own only as far as an unverified file may say."""
    return wanted if wanted is not None and ":" in wanted else stored_uri(registered.uri)


def check_token_name(name: str) -> None:
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 32):
        raise UsageError(
            t("{name!r} is no name for a token", name=name),
            "use letters, digits, - and _, for example doctor or dr-garcia",
        )
