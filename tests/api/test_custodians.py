"""The custodians of an open vault: what is said where there are none, or another is meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import Refused, UsageError
from tests.support.breakglass import pin_of
from tests.support.practice import Practice, unlocked

NEW = "pkcs11:token=nueva"


@pytest.mark.parametrize(
    "act",
    [
        lambda vault: vault.custodians.rotate(pin_of),
        lambda vault: vault.custodians.replace("ana", "dora", NEW, pin_of),
        lambda vault: vault.custodians.drill([]),
        lambda vault: vault.custodians.reconstruct({"ana": NEW}, pin_of),
    ],
    ids=["rotate", "replace", "drill", "reconstruct"],
)
def test_before_the_first_ceremony(shared_practice: Practice, act: Callable[[Vault], object]) -> None:
    """No token is looked for, no PIN asked for, and nothing is written."""
    with shared_practice.open() as vault:
        assert vault.custodians.present is None
        before = unlocked(vault).log.sequence
        with pytest.raises((UsageError, Refused)) as caught:
            act(vault)
        assert "'medcrypt breakglass ceremony'" in caught.value.hint
        assert unlocked(vault).log.sequence == before


@pytest.mark.parametrize("shares", [{}, {"ana": NEW}, {"ana": NEW, "berta garcía": NEW}])
def test_a_ceremony_of_too_few_or_of_nobody(shared_practice: Practice, shares: dict[str, str]) -> None:
    with shared_practice.open() as vault, pytest.raises(UsageError) as caught:
        vault.custodians.ceremony(shares, 2, pin_of)
    assert caught.value.hint
