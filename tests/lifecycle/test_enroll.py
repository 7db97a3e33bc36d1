"""What a token must show before a vault depends on it, and where the keyset is meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import TokenError, TokenUnfit
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.tokens import P256_HPKE, Token
from medcrypt_hsm.tokens.access import open_token
from tests.support.added_token import Pulled, add, on_token, told
from tests.support.attestation_vendor import SERIAL, device_says, old_chain
from tests.support.practice import Practice, pin
from tests.support.vault_builder import SoftToken


class TestTheKeyset:
    def test_it_is_in_host_memory_for_the_wrapping_alone(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
            seen: list[Secret] = []
            wiped_by: list[bool] = []

            class Watched(Pulled):
                def unwrap_keyset_to_host(self, *arguments: Any) -> Sequence[Secret]:
                    found = token.unwrap_keyset_to_host(*arguments)
                    seen.extend(found)
                    return found

            class New(Pulled):
                def sign(self, *arguments: Any) -> bytes:  # the anchor: the last thing before the introduction
                    wiped_by.extend(is_wiped(secret) for secret in seen)
                    return spare.sign(*arguments)

            add(practice, Watched(token), New(spare))  # type: ignore[arg-type]
        assert wiped_by == [True, True, True]

    def test_it_is_wiped_when_the_wrapping_fails(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
            seen: list[Secret] = []

            class Watched(Pulled):
                def unwrap_keyset_to_host(self, *arguments: Any) -> Sequence[Secret]:
                    found = token.unwrap_keyset_to_host(*arguments)
                    seen.extend(found)
                    return found

            class New(Pulled):
                def wrap_keyset(self, *arguments: Any) -> bytes:
                    raise TokenError("no")

            with pytest.raises(TokenError):
                add(practice, Watched(token), New(spare))  # type: ignore[arg-type]
        assert [is_wiped(secret) for secret in seen] == [True, True, True]

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_a_token_that_gives_another_one_back_is_unfit(self, practice: Practice, spare_uri: str, which: int) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:

            class Other(Pulled):
                def wrap_keyset(self, kek: str, keyset: tuple[bytes, bytes, bytes], info: bytes) -> bytes:
                    wrong = tuple(bytes(32) if at == which else key for at, key in enumerate(keyset))
                    return spare.wrap_keyset(kek, wrong, info)  # type: ignore[arg-type]

            with pytest.raises(TokenUnfit, match="came back"):
                add(practice, token, Other(spare))  # type: ignore[arg-type]
        assert on_token(practice, spare_uri) == []
        assert practice.status().problems == ()


def is_wiped(secret: Secret) -> bool:
    try:
        return not any(secret.value)
    except RuntimeError:
        return True


class TestUnfitTokens:
    """Found out before the vault depends on them; nothing of the vault stays there, and no name is spent."""

    def refuse(
        self, practice: Practice, uri: str, unfit: Callable[[Token], Pulled], wish: TokenOptions, words: str
    ) -> None:
        tokens = open_token(practice.uri, pin), open_token(uri, pin)
        with tokens[0] as present, tokens[1] as new, pytest.raises(TokenUnfit, match=words):
            add(practice, present, unfit(new), wish=wish)  # type: ignore[arg-type]
        status = practice.status()
        assert [known.name for known in status.tokens] == ["doctor"]
        assert status.problems == ()
        assert on_token(practice, uri) == []
        outcomes = [entry for entry in told(practice) if entry[0].startswith("token.")]
        assert outcomes == [("token.introduce", "done"), ("token.add", "intended"), ("token.add", "token-unfit")]

    def test_one_that_signs_with_another_key_than_it_shows(
        self, practice: Practice, spare_uri: str, third_uri: str
    ) -> None:
        class OtherKey(Pulled):
            def sign(self, name: str, data: bytes) -> bytes:
                return stranger.sign(data)

        stranger = SoftToken("stranger")
        self.refuse(practice, spare_uri, OtherKey, TokenOptions(), "audit key")
        for name, uri in (("spare", third_uri), ("reserve", spare_uri)):  # another one under that name, and this one
            practice.add(name, uri, using="doctor")
            with practice.open(token=name) as vault:
                vault.log.verify()

    @pytest.mark.parametrize("vendor", [True, False])  # are its certificates followed to a vendor's root?
    @pytest.mark.parametrize(("wished", "made"), [("always", "never"), ("always", "cached"), ("never", "always")])
    def test_one_whose_certificate_tells_of_another_touch_policy(
        self, practice: Practice, spare_uri: str, wished: str, made: str, vendor: bool
    ) -> None:
        words = f"certificate says touch {made}, not {wished} as asked"
        self.refuse(practice, spare_uri, lambda new: Attesting(new, made), attested(wished, vendor), words)

    @pytest.mark.parametrize("touch", ["never", "cached", "always"])
    def test_one_whose_certificate_tells_what_was_asked_is_fit(
        self, practice: Practice, spare_uri: str, touch: str
    ) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
            add(practice, token, Attesting(spare, touch), wish=attested(touch, True))  # type: ignore[arg-type]
        (_, added) = practice.status().tokens
        assert (added.touch, added.attestation) == (touch, "device-attested")


class Attesting(Pulled):
    """Shows the tests' vendor's certificates for its keys, which tell of ``touch`` whatever it was asked for."""

    def __init__(self, token: Token, touch: str) -> None:
        super().__init__(token)
        self.info = token.info._replace(serial=str(SERIAL))
        self._policy = {"never": b"\x02\x01", "always": b"\x02\x02", "cached": b"\x02\x03"}[touch]

    def make_kek(self, name: str, profile: str, *, touch: str) -> None:
        self._token.make_kek(name, profile)

    def attestation(self, name: str) -> tuple[bytes, bytes]:
        public = load_der_public_key(self._token.public_key(name))
        return old_chain(public, slot={"extensions": device_says(policy=self._policy)}).shown


def attested(touch: str, vendor: bool) -> TokenOptions:
    published = old_chain()
    return TokenOptions(P256_HPKE, touch, published.roots if vendor else (), published.pins)
