"""Which YubiKeys there are, what they say of themselves, and the one that a serial number names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medcrypt_hsm.errors import TokenAbsent, TokenError, TokenHeld, TokenUnfit
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.access import find_token, list_tokens, open_token
from medcrypt_hsm.tokens.yubikey import discovery
from tests.support.pcscd import Pcscd
from tests.support.ready_yubikey import AUDIT, KEK, SELECT_PIV, OtherProgram, never, opened, pin, ready
from tests.support.virtual_yubikey.store import State
from tests.support.yubikey import FIRMWARES, VirtualYubiKey, YubiKeys

VERIFY = 0x20


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


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_a_card_that_another_program_holds_is_named(
    yubikey: YubiKeys, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ready(yubikey())
    with OtherProgram(key, mode) as other, monkeypatch.context() as impatient:
        impatient.setattr(discovery, "PATIENCE", 0.0)  # a card that somebody keeps is not waited for
        with pytest.raises(TokenHeld, match=rf"{key.reader_name}.*python\S* {other.id}\b.*YubiKey 12345678") as held:
            open_token(key.uri, never)
        assert "close that program" in held.value.hint
        problems = [info.problem for info in discovery.list_infos()]
        assert str(other.id) in problems[0]
        assert other.send(SELECT_PIV).endswith("9000")  # and goes on undisturbed
    open_token(key.uri, pin).close()


def test_a_card_that_is_held_for_a_moment_is_waited_for(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    command = (
        "from tests.support.ready_yubikey import *; import sys; open_yubikey(int(sys.argv[1]), pin, last_try=False, "
    )
    command += "touch=no_touch).close()"
    both = [subprocess.Popen([sys.executable, "-c", command, str(key.serial)]) for _ in range(4)]
    assert [process.wait(30) for process in both] == [0] * 4
