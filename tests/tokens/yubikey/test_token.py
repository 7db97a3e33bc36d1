"""What only a YubiKey can show: serials, other programs, the PIN, cards that come and go."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from smartcard import scard

from medcrypt_hsm.errors import (
    LastTry,
    PinLocked,
    TokenAbsent,
    TokenError,
    TokenHeld,
    TokenRemoved,
    TokenUnfit,
    UsageError,
    WrongPin,
)
from medcrypt_hsm.tokens import P256_HPKE, TokenInfo
from medcrypt_hsm.tokens.access import find_token, list_tokens, open_token
from medcrypt_hsm.tokens.uri import same_token, stored_uri
from medcrypt_hsm.tokens.yubikey import discovery, pcsc
from tests.support.pcscd import Pcscd
from tests.support.ready_yubikey import (
    AUDIT,
    KEK,
    PIN,
    SELECT_PIV,
    WRONG,
    OtherProgram,
    never,
    opened,
    pin,
    ready,
)
from tests.support.virtual_yubikey.store import State
from tests.support.yubikey import FIRMWARES, VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]
VERIFY = 0x20
BY_PUK = "with the PUK: 'medcrypt token pin yubikey:12345678 --unblock'"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that somebody keeps is not waited for."""
    monkeypatch.setattr(discovery, "PATIENCE", 0.0)


# Names


@pytest.mark.parametrize("uri", ["yubikey:", "yubikey:doctor", "yubikey:12 34", "yubikey:٣", "yubikey:12345678901"])
def test_other_names_are_refused(uri: str) -> None:
    for call in (find_token, lambda uri: open_token(uri, never)):
        with pytest.raises(UsageError, match="serial number"):
            call(uri)


def test_a_stored_uri_is_the_one_a_person_means() -> None:
    assert same_token("yubikey:0123", "yubikey:123")
    assert not same_token("yubikey:124", "yubikey:123")
    assert not same_token("yubikey:x", "yubikey:x")
    assert not same_token("yubikey:1", "pkcs11:serial=1")
    assert not same_token("pkcs11:serial=1", "yubikey:1")
    assert stored_uri("yubikey:123") == "yubikey:123"


# What it says of itself


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_it_says_what_it_is(yubikey: YubiKeys, firmware: str) -> None:
    key = yubikey(firmware)
    blank = find_token(key.uri, blank=True)
    assert (blank.initialized, blank.user_pin_set, blank.pin_tries) == (False, False, 3)
    for call in (find_token, lambda uri: open_token(uri, never)):
        with pytest.raises(TokenUnfit, match=r"factory (PIN|management key)") as refused:
            call(key.uri)
        assert f"medcrypt token init {key.uri}" in refused.value.hint
    ready(key)
    info = find_token(key.uri)
    assert (info.uri, info.serial, info.firmware) == (key.uri, str(key.serial), firmware)
    assert (info.initialized, info.user_pin_set, info.pin_tries, info.pin_flags) == (True, True, 5, frozenset())
    assert info.manufacturer == "Yubico"
    assert "YubiKey" in info.model
    assert info.unblocked_by == "puk"
    assert info in list_tokens()


@pytest.mark.parametrize(
    ("firmware", "which", "words", "hint"),
    [
        ("5.4.3", "puk", "factory PUK", "change-puk"),
        ("5.7.4", "puk", "factory PUK", "change-puk"),
        ("5.4.3", "management", "factory management key", "change-management-key --generate --protect"),
        ("4.3.5", "management", "factory management key", "change-management-key --generate --protect"),
    ],
)
def test_a_secret_that_everybody_knows_is_refused(
    yubikey: YubiKeys, firmware: str, which: str, words: str, hint: str
) -> None:
    """With the factory PUK a thief sets a PIN of their own; with the management key they overwrite what is there."""
    key = ready(yubikey(firmware))
    key.stop()
    with key.tampering() as state:
        setattr(state, which, getattr(State.factory(key.serial, state.firmware), which))
    key.start()
    with pytest.raises(TokenUnfit, match=words) as refused:
        open_token(key.uri, never)
    assert hint in refused.value.hint


def test_looking_sends_no_pin(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    key.log()
    find_token(key.uri)
    discovery.list_infos()
    assert VERIFY not in [entry["ins"] for entry in key.log()]


def test_a_firmware_without_attestation_is_refused_with_the_reason(yubikey: YubiKeys) -> None:
    key = yubikey("4.2.8")
    with pytest.raises(TokenUnfit, match=r"firmware 4\.2\.8: without attestation"):
        open_token(key.uri, never)
    assert [info.problem for info in list_tokens() if info.firmware] == [find_token_problem(key)]


def find_token_problem(key: VirtualYubiKey) -> str:
    return discovery.find(key.serial).problem


def test_nobody_is_told_of_yubikeys_without_a_service(pcscd: Pcscd) -> None:
    pcscd.stop()
    assert not [info for info in list_tokens() if info.manufacturer == "Yubico"]
    with pytest.raises(TokenAbsent, match="not running") as refused:
        open_token("yubikey:1", never)
    assert "pcscd" in refused.value.hint


def test_a_service_that_refuses_this_user() -> None:
    """polkit asks who sits at the machine; the tests' own pcscd has none, so only its answer is given here."""
    from smartcard import scard

    error = pcsc.connecting(pcsc.PcscError(scard.SCARD_W_SECURITY_VIOLATION), "the list of readers")
    assert "may not use the smart card service" in error.message
    assert "polkit" in error.hint


def test_an_empty_reader_is_no_key(pcscd: Pcscd) -> None:
    assert not discovery.list_infos()
    with pytest.raises(TokenAbsent, match="no YubiKey 1 is plugged in"):
        find_token("yubikey:1")


def test_two_are_told_apart_by_their_serials(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    pcscd.stop()
    pcscd.start(readers=2)
    keys = [ready(yubikey()), ready(yubikey("5.7.4"))]
    assert [info.uri for info in discovery.list_infos()] == [key.uri for key in keys]
    with opened(keys[0]) as first, opened(keys[1]) as second:
        first.make_kek(KEK, P256_HPKE)
        second.make_signing_key(AUDIT)
        assert (first.names(), second.names()) == ([KEK], [AUDIT])
        assert [info.uri for info in discovery.list_infos()] == [key.uri for key in keys]  # open ones too
        with pytest.raises(TokenError, match="already open"):
            opened(keys[0])
        assert find_token(keys[1].uri) == second.info


# PIN


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


# Other programs


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_a_card_that_another_program_holds_is_named(yubikey: YubiKeys, mode: str) -> None:
    key = ready(yubikey())
    with OtherProgram(key, mode) as other:
        with pytest.raises(TokenHeld, match=rf"{key.reader_name}.*python\S* {other.id}\b.*YubiKey 12345678") as held:
            open_token(key.uri, never)
        assert "close that program" in held.value.hint
        problems = [info.problem for info in discovery.list_infos()]
        assert str(other.id) in problems[0]
        assert other.send(SELECT_PIV).endswith("9000")  # and goes on undisturbed
    open_token(key.uri, pin).close()


def test_nobody_else_has_the_card_while_its_pin_is_given(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
        for mode in (scard.SCARD_SHARE_EXCLUSIVE, scard.SCARD_SHARE_SHARED):
            result, *_ = scard.SCardConnect(context, key.reader_name, mode, scard.SCARD_PROTOCOL_T1)
            assert result == scard.SCARD_E_SHARING_VIOLATION
        scard.SCardReleaseContext(context)
        assert len(token.sign(AUDIT, b"head")) == 64
    with OtherProgram(key, "shared") as other:  # as soon as it is let go
        assert other.send(SELECT_PIV).endswith("9000")


def test_a_card_that_is_held_for_a_moment_is_waited_for(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    command = (
        "from tests.support.ready_yubikey import *; import sys; open_yubikey(int(sys.argv[1]), pin, last_try=False, "
    )
    command += "touch=no_touch).close()"
    both = [subprocess.Popen([sys.executable, "-c", command, str(key.serial)]) for _ in range(4)]
    assert [process.wait(30) for process in both] == [0] * 4


@pytest.mark.parametrize("ending", ["left", "killed"])
def test_no_other_program_inherits_the_pin(yubikey: YubiKeys, ending: str) -> None:
    """Against this, a program that leaves the card as it is: the next one can sign."""
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    if ending == "left":
        with opened(key) as token:
            token.sign(AUDIT, b"head")
    else:
        program = (
            "from tests.support.ready_yubikey import *; import sys, time; key = open_yubikey(int(sys.argv[1]), pin, "
        )
        program += (
            "last_try=False, touch=no_touch); key.sign(AUDIT, b'head'); print('open', flush=True); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", program, str(key.serial)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    sign = bytes.fromhex("00871182267c24 8200 8120".replace(" ", "")) + bytes(32)
    with OtherProgram(key, select=False) as other:
        assert not other.send(sign).endswith("9000")
        other.send(SELECT_PIV)
        assert other.send(sign) == "6982"
        verify = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
        assert other.send(verify) == "9000"
        assert other.send(sign).endswith("9000")  # the same command, once the PIN is given


def test_what_is_in_this_program_does_not_stand_in_the_way(yubikey: YubiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PKCS#11 module that knows smart cards takes every reader when it is loaded."""
    opensc = str(next(Path("/usr/lib").glob("*/opensc-pkcs11.so")))  # Debian: opensc-pkcs11
    key = ready(yubikey())
    assert [info for info in list_tokens([opensc]) if info.uri.startswith("pkcs11:")]
    open_token(key.uri, pin).close()


# Coming and going


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
