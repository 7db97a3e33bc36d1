"""``yubikey:SERIAL``: digits, and nothing else."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.tokens.access import find_token, open_token
from medcrypt_hsm.tokens.yubikey.uri import format_uri, same_key, serial_of
from tests.support.ready_yubikey import never


@pytest.mark.parametrize("uri", ["yubikey:", "yubikey:doctor", "yubikey:12 34", "yubikey:٣", "yubikey:12345678901"])
def test_other_names_are_refused(uri: str) -> None:
    for call in (find_token, lambda uri: open_token(uri, never)):
        with pytest.raises(UsageError, match="serial number"):
            call(uri)


@pytest.mark.parametrize(("uri", "serial"), [("yubikey:12345678", 12345678), ("yubikey:0", 0), ("yubikey:0042", 42)])
def test_a_serial_is_read_and_written_without_leading_zeros(uri: str, serial: int) -> None:
    assert serial_of(uri) == serial
    assert format_uri(serial) == f"yubikey:{serial}"
    assert same_key(uri, format_uri(serial))
