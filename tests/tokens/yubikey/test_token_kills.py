"""A YubiKey pulled out at each APDU of what is written to it: nothing is lost, nothing is left that nobody knows of.

To the card a killed program is the same as being pulled out. Every third APDU by default, every one with ``--full``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.errors import TokenError, TokenRemoved
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.access import find_token
from medcrypt_hsm.tokens.provision import initialize
from medcrypt_hsm.tokens.yubikey.token import YubikeyToken
from tests.support.checkout import FULL
from tests.support.ready_yubikey import ANCHOR, AUDIT, KEK, OTHER, PIN, PUK, opened, ready
from tests.support.yubikey import FIRMWARES, VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]
KEYSET = bytes(range(32)), bytes(32), bytes(32)
VERIFY, CHANGE = 0x20, 0x24
STEP = 1 if FULL else 3
HOW = [(firmware, executed) for firmware in FIRMWARES for executed in (False, True)]
SAMPLE = HOW if FULL else [("4.3.5", True), ("5.4.3", False), ("5.7.4", True)]
everywhere = pytest.mark.parametrize(("firmware", "executed"), SAMPLE)


def pulled_at_each(
    key: VirtualYubiKey,
    executed: bool,
    act: Callable[[YubikeyToken], object],
    afterwards: Callable[[YubikeyToken], object],
) -> None:
    """``act`` with the card pulled at one APDU after the other; put back, ``afterwards`` must find it in order."""
    number = 1
    while True:
        with opened(key) as token:
            key.pull_at(number, executed=executed)
            try:
                act(token)
                break  # it needs fewer
            except TokenRemoved:
                pass
        key.insert()
        with opened(key) as token:
            afterwards(token)
        number += STEP
    assert number > 4, "it was never pulled"
    key.insert()


def check_kek(token: YubikeyToken, name: str) -> None:
    wrapped = token.wrap_keyset(name, KEYSET, b"info")
    assert tuple(key.value for key in token.unwrap_keyset_to_host(name, wrapped, b"info")) == KEYSET


def slots_in_use(key: VirtualYubiKey) -> int:
    return len(set(key.state.keys) - {0xF9})


@everywhere
def test_making_a_key(yubikey: YubiKeys, firmware: str, executed: bool) -> None:
    key = ready(yubikey(firmware))

    def afterwards(token: YubikeyToken) -> None:
        if token.names():
            assert token.names() == [KEK]
            check_kek(token, KEK)
            token.destroy(KEK)
        assert not token.names()
        token.make_kek(KEK, P256_HPKE)
        check_kek(token, KEK)
        token.destroy(KEK)
        assert slots_in_use(key) <= 1  # no slot is lost

    pulled_at_each(key, executed, lambda token: token.make_kek(KEK, P256_HPKE), afterwards)


@everywhere
def test_destroying_a_key(yubikey: YubiKeys, firmware: str, executed: bool) -> None:
    key = ready(yubikey(firmware))
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        token.make_kek(KEK, P256_HPKE)

    def afterwards(token: YubikeyToken) -> None:
        if KEK in token.names():
            check_kek(token, KEK)
        else:
            with pytest.raises(KeyError):
                token.public_key(KEK)
        token.destroy(KEK)
        assert token.names() == [AUDIT]
        token.make_kek(OTHER, P256_HPKE)  # the slot can be used again
        assert slots_in_use(key) == 2
        token.destroy(OTHER)
        token.make_kek(KEK, P256_HPKE)
        assert len(token.sign(AUDIT, b"head")) == 64

    pulled_at_each(key, executed, lambda token: token.destroy(KEK), afterwards)


@everywhere
def test_replacing_an_object(yubikey: YubiKeys, firmware: str, executed: bool) -> None:
    key = ready(yubikey(firmware))
    with opened(key) as token:
        token.put_object(ANCHOR, b"old")

    def afterwards(token: YubikeyToken) -> None:
        assert list(token.read_objects(ANCHOR)) in ([b"old"], [b"new", b"old"], [b"new"])
        assert token.names() == [ANCHOR]
        token.put_object(ANCHOR, b"old")
        assert list(token.read_objects(ANCHOR)) == [b"old"]

    pulled_at_each(key, executed, lambda token: token.put_object(ANCHOR, b"new"), afterwards)


@everywhere
def test_setting_it_up(yubikey: YubiKeys, tmp_path: Path, firmware: str, executed: bool) -> None:
    key = yubikey(firmware)
    shutil.copytree(key.directory, tmp_path / "factory")
    key.log()
    initialize(key.uri, None, PUK, PIN)
    apdus = key.log()
    given = next(
        at for at, apdu in enumerate(apdus) if (apdu["ins"], apdu["sw"]) == (VERIFY, 0x9000)
    )  # the factory PIN
    last = next(at for at, apdu in enumerate(apdus) if (apdu["ins"], apdu["p2"]) == (CHANGE, 0x80))  # the PIN itself
    for number in range(given + 1, last + 2, STEP):
        key.stop()
        shutil.copytree(tmp_path / "factory", key.directory, dirs_exist_ok=True)
        key.start()
        key.pull_at(number, executed=executed)
        with pytest.raises(TokenRemoved) as removed:
            initialize(key.uri, None, PUK, PIN)
        assert f"token init {key.uri}' again" in removed.value.hint
        key.insert()
        if number == last + 1 and executed:  # all of it is done but for the last answer
            with pytest.raises(TokenError, match="its PIN is not the factory's"):
                initialize(key.uri, None, PUK, PIN)
        else:
            initialize(key.uri, None, PUK, PIN)
        assert find_token(key.uri).initialized
        with opened(key) as token:
            token.make_kek(KEK, P256_HPKE)
