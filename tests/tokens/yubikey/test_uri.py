"""``yubikey:SERIAL``: digits, and nothing else."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import (
    UsageError,
)
from medcrypt_hsm.tokens import find_token, open_token
from tests.support.ready_yubikey import (
    never,
)


@pytest.mark.parametrize("uri", ["yubikey:", "yubikey:doctor", "yubikey:12 34", "yubikey:٣", "yubikey:12345678901"])
def test_other_names_are_refused(uri: str) -> None:
    for call in (find_token, lambda uri: open_token(uri, never)):
        with pytest.raises(UsageError, match="serial number"):
            call(uri)
