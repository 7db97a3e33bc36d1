"""A fresh token of SoftHSM2 for a test, and the same opened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import (
    pin,
)
from tests.support.softhsm import SoftHsm


@pytest.fixture
def uri(softhsm: SoftHsm) -> str:
    return softhsm.make_token()


@pytest.fixture
def token(uri: str) -> Iterator[Pkcs11Token]:
    with open_token(uri, pin) as token:
        assert isinstance(token, Pkcs11Token)
        yield token
