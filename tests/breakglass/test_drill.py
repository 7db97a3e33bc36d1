"""Drills: alone and put together; and what is recorded of them."""

from __future__ import annotations

import itertools

import pytest

from medcrypt_hsm.errors import Refused, UsageError
from medcrypt_hsm.lifecycle.others import OtherTokens
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import pin


def test_drills(circle: Circle) -> None:
    circle.ceremony()
    circle.practice.clock.forward(hours=1)
    results = [circle.drill(who) for who in ("ana", "berta")]
    assert circle.record(*results) == ["ana", "berta"]
    with pytest.raises(Refused, match="older than the last one"):
        circle.record(results[0])
    with circle.practice.open() as vault:
        tried = vault.custodians.reconstruct({n: circle.uris[n] for n in CUSTODIANS}, lambda n: pin, OtherTokens(pin))
        assert tried == list(itertools.combinations(CUSTODIANS, 2))
        assert vault.custodians.present is not None
        assert all(custodian.drilled for custodian in vault.custodians.present.custodians.values())
        vault.log.verify()
    with pytest.raises(UsageError, match="has custodians since"):
        circle.ceremony()
