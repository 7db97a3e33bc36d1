"""Making a token ready, changing its PIN and unblocking it, on SoftHSM2. Locking: pkcs11/test_token_locking.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medcrypt_hsm.errors import TokenAbsent, TokenError, TokenUnfit, UsageError, WrongPin
from medcrypt_hsm.tokens import AES_KW, TokenInfo
from medcrypt_hsm.tokens.access import find_token, list_tokens, open_token
from medcrypt_hsm.tokens.provision import change_pin, initialize, unblock
from tests.support.softhsm import SO_PIN, USER_PIN, WRONG_PIN, SoftHsm, softhsm_module

BLANK = f"pkcs11:?module-path={softhsm_module()}"
NEW_PIN = "new-pin-1234"


def never(info: TokenInfo) -> str:
    raise AssertionError("asked for a PIN")


def named(label: str) -> str:
    return f"pkcs11:token={label.replace(' ', '%20')}?module-path={softhsm_module()}"


@pytest.fixture
def uri(softhsm: SoftHsm) -> str:
    return softhsm.make_token()


@pytest.mark.parametrize("label", ["fresh", "a b", "Praxis-Überweg", "x" * 32])
def test_a_blank_token_becomes_a_ready_one(softhsm: SoftHsm, label: str) -> None:
    before = {info.serial for info in list_tokens([str(softhsm_module())])}
    info = initialize(BLANK, label, SO_PIN, USER_PIN)
    assert (info.label, info.initialized, info.user_pin_set) == (label, True, True)
    assert info.serial not in before
    with open_token(info.uri, lambda _: USER_PIN) as token:
        token.make_kek("medcrypt kek 00 1", AES_KW)
        token.destroy("medcrypt kek 00 1")
    assert initialize(BLANK, label + "2" if len(label) < 32 else "other", SO_PIN, USER_PIN).serial != info.serial


def test_another_process_opens_it(softhsm: SoftHsm) -> None:
    info = initialize(BLANK, "for others", SO_PIN, USER_PIN)
    program = (
        "import sys; from medcrypt_hsm.tokens.access import *; open_token(sys.argv[1], lambda _: sys.argv[2]).close()"
    )
    subprocess.run([sys.executable, "-c", program, info.uri, USER_PIN], check=True)


@pytest.mark.parametrize("label", ["", " ", "x" * 33, "ü" * 17, "a\nb", " a", "a ", "a\0"])
def test_labels_that_do_not_fit_are_refused(label: str) -> None:
    with pytest.raises(UsageError, match="label"):
        initialize(BLANK, label, SO_PIN, USER_PIN)


@pytest.mark.parametrize(("so_pin", "user_pin"), [("123", USER_PIN), (SO_PIN, ""), (SO_PIN, "1" * 256)])
def test_pins_that_do_not_fit_are_refused_before_anything_is_done(softhsm: SoftHsm, so_pin: str, user_pin: str) -> None:
    before = list_tokens([str(softhsm_module())])
    with pytest.raises(UsageError, match="4 to 255"):
        initialize(BLANK, "never made", so_pin, user_pin)
    assert list_tokens([str(softhsm_module())]) == before


def test_a_token_in_use_is_not_erased_by_accident(uri: str) -> None:
    with open_token(uri, lambda _: USER_PIN) as token:
        token.put_object("medcrypt anchor 00", b"value")
    with pytest.raises(TokenError, match="in use already"):
        initialize(uri, "again", SO_PIN, USER_PIN)
    with pytest.raises(WrongPin):
        initialize(uri, "again", WRONG_PIN, USER_PIN, allow_reinit=True)
    with open_token(uri, lambda _: USER_PIN) as token:
        with pytest.raises(TokenError, match="open in this program"):
            initialize(uri, "again", SO_PIN, USER_PIN, allow_reinit=True)
        assert list(token.read_objects("medcrypt anchor 00")) == [b"value"]


def test_a_confirmed_erasure_erases(uri: str) -> None:
    with open_token(uri, lambda _: USER_PIN) as token:
        token.put_object("medcrypt anchor 00", b"value")
    info = initialize(uri, "erased", SO_PIN, NEW_PIN, allow_reinit=True)
    with open_token(info.uri, lambda _: NEW_PIN) as token:
        assert not token.names()
    with pytest.raises(TokenAbsent):
        open_token(uri, never)


def test_a_token_in_use_must_be_named_to_be_erased(softhsm: SoftHsm, uri: str) -> None:
    # A model alone fits a token in use only where it is the one token there is; here it fits several.
    with pytest.raises(TokenError):
        initialize(
            f"pkcs11:model=SoftHSM%20v2?module-path={softhsm_module()}", "x", SO_PIN, USER_PIN, allow_reinit=True
        )


def test_the_pin_is_changed(uri: str) -> None:
    with pytest.raises(WrongPin):
        change_pin(uri, lambda _: WRONG_PIN, NEW_PIN)
    assert change_pin(uri, lambda _: USER_PIN, NEW_PIN) == find_token(uri)
    with pytest.raises(WrongPin):
        open_token(uri, lambda _: USER_PIN)
    with open_token(uri, lambda _: NEW_PIN):
        pass


def test_an_unfit_new_pin_keeps_the_old_one(uri: str) -> None:
    with pytest.raises(WrongPin, match="length"):
        change_pin(uri, lambda _: USER_PIN, "1")
    with pytest.raises(WrongPin, match="length"):
        unblock(uri, lambda _: SO_PIN, "1")
    with open_token(uri, lambda _: USER_PIN):
        pass


def test_a_forgotten_pin_is_set_anew_by_the_officer(uri: str) -> None:
    with open_token(uri, lambda _: USER_PIN) as token:
        token.put_object("medcrypt anchor 00", b"value")
    with pytest.raises(WrongPin):
        unblock(uri, lambda _: WRONG_PIN, NEW_PIN)
    unblock(uri, lambda _: SO_PIN, NEW_PIN)
    with open_token(uri, lambda _: NEW_PIN) as token:
        assert list(token.read_objects("medcrypt anchor 00")) == [b"value"]


def test_a_blank_token_is_told_apart(softhsm: SoftHsm) -> None:
    assert not find_token(BLANK, blank=True).initialized
    with pytest.raises((TokenError, TokenUnfit)):
        change_pin(BLANK, never, NEW_PIN)
