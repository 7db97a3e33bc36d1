"""SoftHSM2 keeps the contract under both profiles."""

from __future__ import annotations

import pytest

from tests.support.softhsm import USER_PIN, SoftHsm
from tests.tokens.contract.token_contract import AesKwContract, Backend, P256Contract


@pytest.fixture(scope="class")
def backend(request: pytest.FixtureRequest, softhsm: SoftHsm) -> Backend:
    return Backend(softhsm.make_token(), USER_PIN, request.cls.profile)


class TestSoftHsm2AesKw(AesKwContract): ...


class TestSoftHsm2P256(P256Contract): ...
