"""A card for this program alone, and one that goes: what happened first is what is said, in our words."""

from __future__ import annotations

import pytest
from yubikit.core import ApplicationNotAvailableError, NotSupportedError
from yubikit.core.smartcard import SW, ApduError

from medcrypt_hsm.errors import MedcryptError, NotTouched, TokenAbsent, TokenError, TokenHeld, TokenRemoved, TokenUnfit
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.yubikey.connection import Card, card_errors, translate
from tests.support.pcscd import Pcscd
from tests.support.ready_yubikey import AUDIT, SELECT_PIV, never, opened, ready
from tests.support.yubikey import YubiKeys


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


def test_what_the_card_and_yubikit_say_in_words(yubikey: YubiKeys) -> None:
    with Card(yubikey().reader_name) as card:
        card.title = "YubiKey 12345678"
        told: list[tuple[Exception, bool, type[MedcryptError], str]] = [
            (ApduError(b"", SW.SECURITY_CONDITION_NOT_SATISFIED), True, NotTouched,
             "YubiKey 12345678 was not touched in time while signing"),
            (ApduError(b"", SW.SECURITY_CONDITION_NOT_SATISFIED), False, TokenError,
             "YubiKey 12345678 no longer counts the PIN as given while signing"),
            (ApduError(b"", SW.NO_SPACE), False, TokenUnfit, "YubiKey 12345678 is full"),
            (ApduError(b"", 0x6F00), False, TokenError, "YubiKey 12345678 refused signing (status 6F00)"),
            (ApplicationNotAvailableError(), False, TokenUnfit,
             "the PIV application of YubiKey 12345678 is switched off"),
            (NotSupportedError(), False, TokenUnfit, "YubiKey 12345678 does not offer what is needed for signing"),
            (ValueError("a length"), False, TokenError,
             "YubiKey 12345678 answered something unexpected while signing"),
        ]  # fmt: skip
        for foreign, touch, ours, words in told:
            found = translate(foreign, card, "signing", touch=touch)
            assert (type(found), found.message) == (ours, words)
            assert found.hint


def test_a_card_is_for_one_connection_until_it_is_closed(yubikey: YubiKeys) -> None:
    key = yubikey()
    card = Card(key.reader_name)
    with pytest.raises(TokenHeld, match=f"the YubiKey in reader '{key.reader_name}' is in use by another program"):
        Card(key.reader_name)
    assert card.alive
    card.close()
    card.close()
    assert not card.alive
    with pytest.raises(RuntimeError, match="was closed before signing"), card_errors(card, "signing"):
        pass
    Card(key.reader_name).close()


def test_an_answer_is_bytes_and_a_status(yubikey: YubiKeys) -> None:
    with Card(yubikey().reader_name) as card:
        assert card.send_and_receive(SELECT_PIV)[1] == 0x9000
        assert card.send_and_receive(bytes.fromhex("00cb3fff055c035fc10500")) == (b"", 0x6A82)  # nothing in slot 9A
