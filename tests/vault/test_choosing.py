"""Which of a vault's tokens is meant: by name, by URI, or the first that is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import TokenAbsent, TokenHeld
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import find_token
from medcrypt_hsm.tokens.yubikey import discovery
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.choosing import choose_token, peek
from tests.support.practice import Practice
from tests.support.ready_yubikey import OtherProgram
from tests.support.softhsm import USER_PIN, softhsm_module
from tests.support.store import open_at
from tests.support.yubikey import VirtualYubiKey

NOWHERE = "pkcs11:token=nowhere"


class TestWhichToken:
    def test_by_name_by_uri_or_the_first_that_is_there(self, two: Practice, uris: dict[str, str]) -> None:
        for token, name in (("spare", "spare"), (uris["spare"], "spare"), ("doctor", "doctor"), (None, "doctor")):
            with two.open(token=token) as vault:
                assert vault.token_name == name

    def test_the_one_that_is_there(self, two: Practice) -> None:
        """Without --token, where the first on record is not plugged in."""
        state = state_of(two)
        away = state.tokens["doctor"]._replace(uri=NOWHERE)
        assert choose_token(state._replace(tokens={**state.tokens, "doctor": away}), None).name == "spare"
        with pytest.raises(TokenAbsent, match="none of this vault's tokens is present: doctor, spare"):
            choose_token(state._replace(tokens={"doctor": away, "spare": away._replace(name="spare")}), None)

    @pytest.mark.parametrize("second", ["there", "away"])
    def test_the_first_is_held_by_another_program(
        self, two: Practice, yubikey: Callable[..., VirtualYubiKey], monkeypatch: pytest.MonkeyPatch, second: str
    ) -> None:
        """Another one that is there is used; if there is none, it is said who has the first."""
        monkeypatch.setattr(discovery, "PATIENCE", 0.0)
        key, state = yubikey(), state_of(two)
        spare = state.tokens["spare"] if second == "there" else state.tokens["spare"]._replace(uri=NOWHERE)
        state = state._replace(tokens={"doctor": state.tokens["doctor"]._replace(uri=key.uri), "spare": spare})
        with OtherProgram(key) as other:
            if second == "there":
                assert choose_token(state, None) == spare
            else:
                with pytest.raises(TokenHeld, match=rf"python\S* {other.id}\b.*whether it is YubiKey {key.serial}"):
                    choose_token(state, None)

    def test_modules_of_the_config_file_are_looked_into(self, two: Practice, tmp_path: Path) -> None:
        state = state_of(two)
        named = {
            name: token._replace(uri=f"pkcs11:token={find_token(token.uri).label}")
            for name, token in state.tokens.items()
        }
        state = state._replace(tokens=named)
        assert choose_token(state, None, [str(softhsm_module())]).name == "doctor"
        with pytest.raises(TokenAbsent):  # and into no others
            choose_token(state, None, [str(tmp_path / "gone.so")])

    def test_the_pin_is_asked_for_of_the_token_that_is_meant(self, two: Practice, uris: dict[str, str]) -> None:
        asked: list[str] = []

        def ask(info: TokenInfo) -> str:
            asked.append(info.label)
            return USER_PIN

        with Vault.open(two.path, pin=ask, token="spare", clock=two.clock) as vault:
            vault.tokens.add("third", uris["third"], pin=ask)
        assert asked == [find_token(uris[name]).label for name in ("spare", "third")]


def state_of(practice: Practice) -> TrustState:
    file = open_at(practice.path)
    try:
        return peek(file)
    finally:
        file.close()
