"""The PIN, asked for and sent once; and the management key, which is kept behind it."""

from __future__ import annotations

import subprocess

import pytest

from medcrypt_hsm.errors import LastTry, NotTouched, PinLocked, TokenAbsent, TokenUnfit, WrongPin
from medcrypt_hsm.tokens import P256_HPKE, TokenInfo
from medcrypt_hsm.tokens.access import find_token, open_token
from tests.support.ready_yubikey import AUDIT, KEK, PIN, WRONG, YKMAN, OtherProgram, Watched, never, opened, ready
from tests.support.yubikey import FIRMWARES, YubiKeys

VERIFY = 0x20


BY_PUK = "with the PUK: 'medcrypt token pin yubikey:12345678 --unblock'"


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_wrong_pin_is_sent_once_and_counted(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    key.log()
    with pytest.raises(WrongPin) as wrong:
        open_token(key.uri, lambda _: WRONG)
    assert wrong.value.tries_left == 4
    assert [entry["sw"] for entry in key.log() if entry["ins"] == VERIFY].count(0x63C4) == 1
    assert find_token(key.uri).pin_tries == 4
    for left in (3, 2, 1):
        with pytest.raises(WrongPin) as wrong:
            open_token(key.uri, lambda _: WRONG)
        assert wrong.value.tries_left == left
    assert "final-try" in find_token(key.uri).pin_flags
    with pytest.raises(LastTry):
        open_token(key.uri, never)
    with pytest.raises(PinLocked, match="last try") as locked:
        open_token(key.uri, lambda _: WRONG, last_try=True)
    assert BY_PUK in locked.value.hint
    with pytest.raises(PinLocked) as locked:
        open_token(key.uri, never, last_try=True)
    assert BY_PUK in locked.value.hint


@pytest.mark.parametrize("text", ["1", "54321", "987654321", "é" * 5])
def test_what_cannot_be_a_pin_costs_no_try(yubikey: YubiKeys, text: str) -> None:
    key = ready(yubikey())
    with pytest.raises(WrongPin, match="cannot be the PIN") as wrong:
        open_token(key.uri, lambda _: text)
    assert text == "1" or text not in wrong.value.message + wrong.value.hint
    assert find_token(key.uri).pin_tries == 5


def test_the_pin_is_asked_for_while_nobody_holds_the_card(yubikey: YubiKeys) -> None:
    key = ready(yubikey())

    def ask(info: TokenInfo) -> str:
        with OtherProgram(key):
            return PIN

    open_token(key.uri, ask).close()


def test_the_pin_does_not_go_to_another_card(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    key.pull()

    def exchange(info: TokenInfo) -> str:
        key.stop()
        with key.tampering() as state:
            state.serial += 1
        key.start()
        return PIN

    key.insert()
    with pytest.raises(TokenAbsent):
        open_token(key.uri, exchange)
    assert not [entry for entry in key.log() if entry["ins"] == VERIFY]


def test_the_last_try_is_looked_at_again_behind_the_prompt(yubikey: YubiKeys) -> None:
    key = ready(yubikey())

    def meanwhile(info: TokenInfo) -> str:
        for _ in range(4):
            with pytest.raises(WrongPin):
                open_token(key.uri, lambda _: WRONG)
        return PIN

    with pytest.raises(LastTry):
        open_token(key.uri, meanwhile)


def test_a_management_key_that_is_not_kept_behind_the_pin(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    ykman = [YKMAN, "piv", "access", "change-management-key", "-P", PIN, "-f"]
    new = "00" * 8 + "11" * 24
    subprocess.run([*ykman, "-a", "AES256", "-n", new], check=True)
    with opened(key) as token:
        assert len(token.sign(AUDIT, b"head")) == 64  # nothing is written
        with pytest.raises(TokenUnfit, match="not kept on it") as refused:
            token.make_kek(KEK, P256_HPKE)
        assert "ykman --device 12345678 piv access change-management-key --generate --protect" in refused.value.hint
    subprocess.run([*ykman, "-m", new, "--generate", "--protect"], check=True, capture_output=True)
    with opened(key) as token:  # as ykman keeps it
        token.make_kek(KEK, P256_HPKE)


def test_a_management_key_that_waits_for_a_finger(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    command = [YKMAN, "piv", "access", "change-management-key", "--generate", "--protect", "--touch", "-P", PIN, "-f"]
    subprocess.run(command, check=True)
    touch = Watched()
    key.finger(None)
    with opened(key, touch=touch) as token:
        with pytest.raises(NotTouched, match="giving its management key"):
            token.make_kek(KEK, P256_HPKE)
        key.finger()
        token.make_kek(KEK, P256_HPKE)
        token.make_signing_key(AUDIT)  # it was given already
    assert touch.asked == 2
