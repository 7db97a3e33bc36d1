"""What this process keeps of the smart card readers, and lets go of when the other backend asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.tokens import list_tokens, open_token
from tests.support.ready_yubikey import (
    pin,
    ready,
)
from tests.support.yubikey import VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]


def test_what_is_in_this_program_does_not_stand_in_the_way(yubikey: YubiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PKCS#11 module that knows smart cards takes every reader when it is loaded."""
    opensc = str(next(Path("/usr/lib").glob("*/opensc-pkcs11.so")))  # Debian: opensc-pkcs11
    key = ready(yubikey())
    assert [info for info in list_tokens([opensc]) if info.uri.startswith("pkcs11:")]
    open_token(key.uri, pin).close()
