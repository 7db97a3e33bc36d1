"""The token that a person names, by URI or by its short name in the vault; and a token as it stands in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import UsageError, VaultError, VaultMissing
from medcrypt_hsm.sentences import t

if TYPE_CHECKING:
    from medcrypt_hsm import TokenInfo


def document(info: TokenInfo) -> dict[str, Any]:
    return {
        "label": info.label,
        "serial": info.serial,
        "model": info.model,
        "manufacturer": info.manufacturer,
        "firmware": info.firmware,
        "uri": info.uri,
        "initialized": info.initialized,
        "pin_set": info.user_pin_set,
        "pin_flags": sorted(info.pin_flags),
        "pin_tries": info.pin_tries,
        "problem": info.problem,
    }


def of_vault(run: Run, uri: str) -> tuple[str, str, Mapping[str, bytes]]:
    """The token's URI, its short name in the vault, and the names of the vault's keys on it.

    Each with its public key on record (SPKI; none of an ``aes-kw`` KEK). No name and no keys for a token that is not
    the vault's. The file is not verified.
    """
    from medcrypt_hsm import token_on_record
    from medcrypt_hsm.tokens.access import find_token

    by_name = ":" not in uri
    wanted = uri if by_name else find_token(uri, modules=run.modules).uri
    try:
        found = token_on_record(run.location, wanted)
    except UsageError:  # another token than the vault's
        if by_name:
            raise
        return uri, "", {}
    except VaultError as exc:
        if by_name:
            raise
        if not isinstance(exc, VaultMissing):
            run.console.warn(t("the vault's keys on the token are not looked at: {reason}", reason=exc.message))
        return uri, "", {}
    return found.uri if by_name else uri, found.name, found.keys
