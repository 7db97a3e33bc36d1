"""Token URIs that come from a vault file rather than from a person: where a file may send the program.

A PKCS#11 module is code, and it is handed the PIN. A vault file is not verified yet when its token is opened, so its
``module-path`` is followed only where nobody but root could have put that module (as ssh-agent does with its list of
allowed providers); otherwise the module is looked for as if the file had named none.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.tokens.uri import parse_uri


def stored_uri(uri: str) -> str:
    """The URI to open for one that a vault file names: without its module where that could be anybody's."""
    if not uri.startswith("pkcs11:"):
        return uri
    parsed = parse_uri(uri)
    if parsed.module_path is not None and not _only_roots(Path(parsed.module_path)):
        parsed = replace(parsed, module_path=None)
    return str(parsed)


def _only_roots(path: Path) -> bool:
    try:
        real = path.resolve(strict=True)
        states = [place.stat() for place in (real, *real.parents)]
    except OSError:
        return False
    # The sticky bit does not help here: it keeps others from renaming, but a directory like that is anybody's.
    return all(state.st_uid == 0 and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) for state in states)


def same_token(wanted: str, stored: str) -> bool:
    """Does a person's URI mean the token that the vault has on record?"""
    if wanted.startswith("yubikey:"):
        from medcrypt_hsm.tokens.yubikey.uri import same_key

        return same_key(wanted, stored)
    if not (wanted.startswith("pkcs11:") and stored.startswith("pkcs11:")):
        return wanted == stored
    try:
        person, record = parse_uri(wanted), parse_uri(stored)
    except UsageError:
        return False
    return person.names_a_token and person.matches(
        label=record.token or "",
        serial=record.serial or "",
        manufacturer=record.manufacturer or "",
        model=record.model or "",
    )
