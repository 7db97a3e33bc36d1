"""Single calls that set a token up, on a token in its slot. What they come to for a person: tests/tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.errors import TokenRemoved, WrongPin
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken, find
from medcrypt_hsm.tokens.pkcs11.setup import init_token, pin_lengths, replace_user_pin, set_user_pin
from medcrypt_hsm.tokens.uri import parse_uri
from tests.support.pkcs11_token import directory_of
from tests.support.softhsm import SO_PIN, USER_PIN, WRONG_PIN, SoftHsm


@pytest.fixture
def place(uri: str) -> SlotToken:
    return find(parse_uri(uri))


def test_the_lengths_that_a_token_takes(place: SlotToken) -> None:
    assert pin_lengths(place) == (4, 255)  # SoftHSM2's


def test_an_initialised_token_is_found_again_and_has_no_user_pin_yet(place: SlotToken) -> None:
    after = init_token(place, "anew", SO_PIN)
    assert (after.info.label, after.info.initialized, after.info.user_pin_set) == ("anew", True, False)
    assert set_user_pin(after, lambda info: SO_PIN, USER_PIN).user_pin_set


@pytest.mark.parametrize(
    "call",
    [
        lambda place: set_user_pin(place, lambda info: WRONG_PIN, "another-pin"),
        lambda place: replace_user_pin(place, lambda info: WRONG_PIN, "another-pin"),
    ],
    ids=["officer's", "user's"],
)
def test_a_wrong_pin_changes_nothing_and_nobody_stays_logged_in(
    place: SlotToken, call: Callable[[SlotToken], object]
) -> None:
    with pytest.raises(WrongPin):
        call(place)
    assert place.slot_id not in place.module.in_use
    assert replace_user_pin(place, lambda info: USER_PIN, "another-pin").user_pin_set


def test_a_token_that_is_gone_is_said_to_be(softhsm: SoftHsm, place: SlotToken, tmp_path: Path) -> None:
    home = directory_of(softhsm, place.info.label)
    away = home.rename(tmp_path / "away")
    try:
        with pytest.raises(TokenRemoved, match="was removed"):
            set_user_pin(place, lambda info: SO_PIN, "another-pin")
    finally:
        away.rename(home)
