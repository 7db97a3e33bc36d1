"""``yubikey:SERIAL``: the number that is printed on the key. Imports nothing foreign."""

from __future__ import annotations

from medcrypt_hsm.errors import UsageError

SCHEME = "yubikey"
_HINT = "write it like 'yubikey:12345678', with the number that is printed on it; see 'medcrypt token list'"


def format_uri(serial: int) -> str:
    return f"{SCHEME}:{serial}"


def serial_of(uri: str) -> int:
    """The serial number in a ``yubikey:`` URI. Raises UsageError."""
    scheme, _, digits = uri.partition(":")
    if scheme != SCHEME or not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise UsageError("a YubiKey is named by its serial number alone", _HINT)
    return int(digits)


def same_key(wanted: str, stored: str) -> bool:
    """Do two URIs name one YubiKey? Leading zeros mean nothing."""
    try:
        return serial_of(wanted) == serial_of(stored)
    except UsageError:
        return False
