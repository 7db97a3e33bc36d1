"""A card that goes: during a command, unnoticed, or with the service; what happened first is what is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medcrypt_hsm.errors import (
    TokenAbsent,
    TokenRemoved,
)
from medcrypt_hsm.tokens import open_token
from tests.support.pcscd import Pcscd
from tests.support.ready_yubikey import (
    AUDIT,
    never,
    opened,
    ready,
)
from tests.support.yubikey import VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]


@pytest.mark.parametrize("executed", [False, True])
def test_a_key_that_is_pulled_during_a_command(yubikey: YubiKeys, executed: bool) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        token.public_key(AUDIT)
        key.pull_at(1, executed=executed)
        with pytest.raises(TokenRemoved, match="removed while signing"):
            token.sign(AUDIT, b"head")
    key.insert()


def test_a_reset_by_somebody_else_ends_the_session(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        key.insert()  # out and in again, unnoticed
        with pytest.raises(TokenRemoved):
            token.names()


def test_the_service_is_stopped_and_started_again(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        pcscd.stop()
        with pytest.raises(TokenAbsent, match="was stopped"):
            token.sign(AUDIT, b"head")
    with pytest.raises(TokenAbsent, match="not running"):
        open_token(key.uri, never)
    pcscd.start()
    key.insert()
    with opened(key) as token:
        assert token.names() == [AUDIT]
