"""The vault's other tokens: which must be there, which may be away, and which are left out by name."""

from __future__ import annotations

from medcrypt_hsm.lifecycle.others import OtherTokens
from tests.support.practice import Practice, pin
from tests.support.softhsm import SoftHsm

BOTH_PROFILES = True


def test_a_removed_tokens_name_can_be_left_out_of_a_sync(autumn: tuple[Practice, str], softhsm: SoftHsm) -> None:
    practice, _ = autumn
    practice.add("spare", softhsm.make_token(), using="doctor")
    with practice.open(token="doctor") as vault:
        vault.tokens.remove("spare", OtherTokens(pin, without=("spare",)))
        assert vault.tokens.sync(OtherTokens(pin, without=("spare",))).left == ("1:spare",)
