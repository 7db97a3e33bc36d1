"""SoftHSM2 keeps the contract."""

from __future__ import annotations

import pytest

from medcrypt_hsm.tokens import AES_KW
from tests.contract.token_contract import Backend, TokenContract
from tests.support import USER_PIN, SoftHsm


@pytest.fixture(scope="module")
def backend(softhsm: SoftHsm) -> Backend:
    return Backend(softhsm.make_token(), USER_PIN, AES_KW)


class TestSoftHsm2(TokenContract): ...
