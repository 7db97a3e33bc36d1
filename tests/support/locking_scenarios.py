"""What a token that locks does, step by step. Run in a process of its own: ``locking_token python -m … SCENARIO``.

Its module and its token are the only ones that the process sees; tests/tokens/pkcs11/test_token_locking.py runs each
scenario as a test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.errors import LastTry, PinLocked, PinNeeded, TokenError, TokenUnfit, UsageError, WrongPin
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, TokenInfo
from medcrypt_hsm.tokens.access import find_token, list_tokens, open_token
from medcrypt_hsm.tokens.check import NO_PROFILE, TrialToken, check_token
from medcrypt_hsm.tokens.provision import change_pin, initialize, unblock

SO_PIN, PIN, NEW_PIN, WRONG = "87654321", "11112222", "33334444", "99999999"
MODULE = next(map(str, Path("/usr/lib").glob("*/opencryptoki/libopencryptoki.so.0")), "openCryptoki is not installed")
BLANK = f"pkcs11:?module-path={MODULE}"
URI = f"pkcs11:token=doctor?module-path={MODULE}"


class Asked:
    """A prompt that counts."""

    def __init__(self, pin: str) -> None:
        self.pin = pin
        self.infos: list[TokenInfo] = []

    def __call__(self, info: TokenInfo) -> str:
        self.infos.append(info)
        return self.pin


def never(info: TokenInfo) -> str:
    raise AssertionError("asked for a PIN")


def make_ready() -> None:
    info = initialize(BLANK, "doctor", SO_PIN, PIN)
    assert (info.label, info.initialized, info.user_pin_set) == ("doctor", True, True)


def lock() -> None:
    for expected in (None, 1):
        asked = Asked(WRONG)
        with pytest.raises(WrongPin) as wrong:
            open_token(URI, asked)
        assert wrong.value.tries_left == expected
        assert len(asked.infos) == 1
        assert WRONG not in str(wrong.value)
    assert find_token(URI).pin_flags >= {"final-try"}
    with pytest.raises(LastTry):
        open_token(URI, never)
    with pytest.raises(PinLocked, match="locked now"):
        open_token(URI, Asked(WRONG), last_try=True)
    assert "locked" in find_token(URI).pin_flags
    for last_try in (False, True):
        with pytest.raises(PinLocked) as locked:
            open_token(URI, never, last_try=last_try)
    assert "--unblock" in locked.value.hint


def a_blank_token_is_found_and_initialised() -> None:
    (info,) = list_tokens([MODULE])
    assert not info.initialized
    with pytest.raises(TokenUnfit, match="blank"):
        open_token(f"pkcs11:serial={info.serial}?module-path={MODULE}", never)
    make_ready()
    with pytest.raises(TokenError, match="no blank token"):
        initialize(BLANK, "doctor", SO_PIN, PIN)


def the_third_wrong_pin_locks_and_the_officer_unblocks() -> None:
    make_ready()
    lock()
    with pytest.raises(WrongPin):
        unblock(URI, Asked(WRONG), NEW_PIN)
    info = unblock(URI, Asked(SO_PIN), NEW_PIN)
    assert not info.pin_flags
    with open_token(URI, Asked(NEW_PIN)) as token:
        assert not token.names()


def the_right_pin_on_the_last_try_clears_the_count() -> None:
    make_ready()
    for _ in range(2):
        with pytest.raises(WrongPin):
            open_token(URI, Asked(WRONG))
    asked = Asked(PIN)
    with open_token(URI, asked, last_try=True):
        assert "final-try" in asked.infos[0].pin_flags
    assert not find_token(URI).pin_flags


def changing_the_pin_keeps_the_same_rules() -> None:
    make_ready()
    for _ in range(2):
        with pytest.raises(WrongPin):
            change_pin(URI, Asked(WRONG), NEW_PIN)
    with pytest.raises(LastTry):
        change_pin(URI, never, NEW_PIN)
    change_pin(URI, Asked(PIN), NEW_PIN, last_try=True)
    with open_token(URI, Asked(NEW_PIN)):
        pass
    with pytest.raises(WrongPin, match="length"):
        change_pin(URI, Asked(NEW_PIN), "123456789")


def an_impossible_pin_costs_no_try() -> None:
    make_ready()
    with pytest.raises(PinNeeded):
        open_token(URI, Asked(""))
    assert not find_token(URI).pin_flags
    for so_pin, pin in ((SO_PIN, "1"), (SO_PIN, "123456789"), ("1", PIN)):
        with pytest.raises(UsageError, match="4 to 8"):
            initialize(URI, "doctor", so_pin, pin, allow_reinit=True)
    with open_token(URI, Asked(PIN)):
        pass


def the_officers_pin_locks_too() -> None:
    make_ready()
    for _ in range(2):
        with pytest.raises(WrongPin):
            unblock(URI, Asked(WRONG), NEW_PIN)
    assert "so-final-try" in find_token(URI).pin_flags
    with pytest.raises(LastTry):
        unblock(URI, never, NEW_PIN)
    with pytest.raises(PinLocked):
        unblock(URI, Asked(WRONG), NEW_PIN, last_try=True)
    with pytest.raises(PinLocked, match="locked"):
        unblock(URI, never, NEW_PIN)


def it_lacks_what_the_profiles_need() -> None:
    make_ready()
    with open_token(URI, Asked(PIN)) as token:
        assert not token.profiles()
        assert any("AES key wrap" in words for words in token.missing(AES_KW))
        assert any("ECDH" in words for words in token.missing(P256_HPKE))
        trial: TrialToken = token  # type: ignore[assignment]
        report = check_token(trial)
        assert not report.ok
        assert report.profile == NO_PROFILE
        for profile in (AES_KW, P256_HPKE):
            assert [f"for {profile}: {words}" for words in token.missing(profile)] == [
                words for words in report.missing if words.startswith(f"for {profile}: ")
            ]
        assert [step.ok for step in report.steps if step.name.startswith("a private object")] == [True]
        report = check_token(trial, profile=AES_KW)
        assert {step.name.split(":")[0] for step in report.steps if not step.ok} >= {"AES key wrap", "AES-GCM"}
        assert all(step.words for step in report.steps if not step.ok)
        assert not any(step.ok for step in check_token(trial, profile=P256_HPKE).steps[:-1])
        assert not token.names()
        with pytest.raises(TokenUnfit, match="does not offer"):
            token.make_kek("medcrypt kek 00 1", P256_HPKE)
        token.make_kek("medcrypt kek 00 1", AES_KW)
        with pytest.raises(TokenUnfit, match="does not offer"):
            token.wrap_keyset("medcrypt kek 00 1", (bytes(32), bytes(32), bytes(32)), b"")


SCENARIOS: dict[str, Callable[[], None]] = {
    scenario.__name__: scenario
    for scenario in (
        a_blank_token_is_found_and_initialised,
        the_third_wrong_pin_locks_and_the_officer_unblocks,
        the_right_pin_on_the_last_try_clears_the_count,
        changing_the_pin_keeps_the_same_rules,
        an_impossible_pin_costs_no_try,
        the_officers_pin_locks_too,
        it_lacks_what_the_profiles_need,
    )
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
