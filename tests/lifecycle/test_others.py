"""The vault's other tokens: which must be there, which may be away, and which are left out by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest

from medcrypt_hsm.errors import PinNeeded, TokenAbsent, UsageError
from medcrypt_hsm.lifecycle.others import NO_OTHERS, OpenToken, OtherTokens, gather, own
from medcrypt_hsm.vault.audit.trust import RegisteredToken
from medcrypt_hsm.vault.unlocked import Unlocked
from tests.support.practice import Practice, pin, unlocked
from tests.support.softhsm import SoftHsm

BOTH_PROFILES = True


def test_a_removed_tokens_name_can_be_left_out_of_a_sync(autumn: tuple[Practice, str], softhsm: SoftHsm) -> None:
    practice, _ = autumn
    practice.add("spare", softhsm.make_token(), using="doctor")
    with practice.open(token="doctor") as vault:
        vault.tokens.remove("spare", OtherTokens(pin, without=("spare",)))
        assert vault.tokens.sync(OtherTokens(pin, without=("spare",))).left == ("1:spare",)


class TestThoseThatAreAway:
    """Of a token that is nowhere: what is in the safe, or lost."""

    NOWHERE = "pkcs11:token=nowhere"

    @pytest.fixture
    def opened(self, shared_practice: Practice) -> Iterator[Unlocked]:
        with shared_practice.open() as vault:
            yield unlocked(vault)

    def test_one_that_wraps_on_itself_alone_is_needed(self, opened: Unlocked) -> None:
        spare = opened.registered._replace(name="spare", uri=self.NOWHERE, profile="aes-kw")
        with pytest.raises(TokenAbsent, match="token spare is needed, and it is not there") as caught:
            self.gathered(opened, OtherTokens(pin), spare)
        assert "--without spare" in caught.value.hint
        assert self.gathered(opened, OtherTokens(pin), spare, away=("spare",)) == []

    def test_one_with_a_public_key_is_not(self, opened: Unlocked) -> None:
        spare = opened.registered._replace(name="spare", uri=self.NOWHERE, profile="p256-hpke")
        assert self.gathered(opened, OtherTokens(pin), spare) == []

    def test_the_one_in_use_is_there_already(self, opened: Unlocked) -> None:
        assert self.gathered(opened, NO_OTHERS, opened.registered) == []
        assert own(opened) == ("doctor", opened.registered.id, opened.token)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("spare", "this vault has no token spare"),
            ("doctor", "token doctor is the one in use"),
        ],
    )
    def test_who_can_be_left_out(self, opened: Unlocked, name: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            self.gathered(opened, OtherTokens(pin, without=(name,)))

    @staticmethod
    def gathered(
        opened: Unlocked, others: OtherTokens, *wanted: RegisteredToken, away: Collection[str] = ()
    ) -> list[OpenToken]:
        with gather(opened, others, wanted, may_be_away=away) as found:
            return list(found)


def test_a_pin_that_nobody_knows_is_asked_for_by_the_tokens_name(shared_practice: Practice) -> None:
    with pytest.raises(PinNeeded, match=r"the PIN of token test-\w+ is needed too"):
        NO_OTHERS.access.open(shared_practice.uri)
