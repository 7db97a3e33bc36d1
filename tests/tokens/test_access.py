"""How a token is reached: its URI picks the backend, and who is asked for its PIN is told which token it is."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import TokenAccess, list_tokens, open_token
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module


@pytest.mark.parametrize("uri", ["yubikey", "slot:0", "", "doctor"])
def test_other_schemes_are_wrong_usage(uri: str) -> None:
    with pytest.raises(UsageError):
        open_token(uri, lambda info: pytest.fail("asked for a PIN"))


def test_whoever_is_asked_for_a_pin_is_told_the_tokens_name(softhsm: SoftHsm) -> None:
    asked: list[TokenInfo] = []

    def ask(info: TokenInfo) -> str:
        asked.append(info)
        return USER_PIN

    uri = softhsm.make_token()
    access = TokenAccess.of(ask)
    assert access.find(uri).name == "", "nobody was asked for that"
    assert not asked
    access.named("doctor").open(uri).close()
    access.open(uri).close()
    assert [info.name for info in asked] == ["doctor", ""]
    assert {info.uri for info in asked} == {access.find(uri).uri}


def test_how_a_token_is_reached_stays_as_it_was_said() -> None:
    given = TokenAccess(lambda info: USER_PIN, last_try=True, modules=["/usr/lib/m.so"])
    assert TokenAccess.of(given) is given
    assert given.named("doctor")._replace(pin=given.pin) == given


def test_a_module_that_is_named_is_looked_into(softhsm: SoftHsm) -> None:
    label = softhsm.make_token().removeprefix("pkcs11:token=").partition("?")[0]
    access = TokenAccess(lambda info: USER_PIN, modules=[str(softhsm_module())])
    assert access.find(f"pkcs11:token={label}").label == label
    assert label in [info.label for info in list_tokens(access.modules)]
