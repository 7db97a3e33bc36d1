"""What only a YubiKey can show of the ``Token`` protocol: a card that is pulled and put back, and fingers."""

from __future__ import annotations

import time

import pytest

from medcrypt_hsm.errors import NotTouched, TokenAbsent, TokenRemoved
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.access import find_token, open_token
from tests.support.ready_yubikey import AUDIT, KEK, Watched, never, opened, ready
from tests.support.yubikey import FIRMWARES, YubiKeys


def test_a_pulled_key_is_removed_and_found_again(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        key.pull()
        with pytest.raises(TokenRemoved, match="removed while looking for a key"):
            token.sign(AUDIT, b"head")
        with pytest.raises(TokenRemoved):
            token.names()
        with pytest.raises(TokenAbsent):
            open_token(key.uri, never)
        key.insert()
        with pytest.raises(TokenRemoved):  # the PIN is not given to it again
            token.names()
        with opened(key) as again:
            assert again.names() == [AUDIT]


KEYSET = bytes(32), bytes(32), bytes(32)


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_finger_is_asked_for_only_where_it_is_needed(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    touch = Watched()
    with opened(key, touch=touch) as token:
        token.make_kek(KEK, P256_HPKE, touch="always")
        token.make_signing_key(AUDIT)
        wrapped = token.wrap_keyset(KEK, KEYSET, b"info")
        token.sign(AUDIT, b"head")
        token.evidence(KEK)
        token.attestation(KEK)
        assert touch.asked == 0
        token.unwrap_keyset(KEK, wrapped, b"info")
        assert (touch.asked, key.touches()) == (1, 1)
        token.destroy(KEK)  # and none to destroy it
        assert (touch.asked, key.touches()) == (1, 1)


def test_a_finger_that_does_not_come(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    touch = Watched()
    with opened(key, touch=touch) as token:
        token.make_kek(KEK, P256_HPKE, touch="cached")
        wrapped = token.wrap_keyset(KEK, KEYSET, b"info")
        key.finger(None)
        with pytest.raises(NotTouched, match="not touched in time while unwrapping"):
            token.unwrap_keyset(KEK, wrapped, b"info")
        key.finger(0.2)
        token.unwrap_keyset(KEK, wrapped, b"info")
    assert find_token(key.uri).pin_tries == 5
    assert touch.asked == 2


def test_other_threads_run_while_a_finger_is_awaited(yubikey: YubiKeys) -> None:
    """Or no countdown could be shown."""
    import threading

    key = ready(yubikey())
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE, touch="always")
        wrapped = token.wrap_keyset(KEK, KEYSET, b"info")
        key.finger(0.5)
        ticks: list[float] = []
        done = threading.Event()

        def tick() -> None:
            while not done.wait(0.02):
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        thread.start()
        token.unwrap_keyset(KEK, wrapped, b"info")
        done.set()
        thread.join()
    assert len(ticks) > 10
