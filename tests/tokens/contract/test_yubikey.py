"""YubiKeys of three firmwares keep the contract, over a real pcscd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from medcrypt_hsm.tokens.provision import initialize
from tests.support.pcscd import Pcscd
from tests.support.yubikey import VirtualYubiKey
from tests.tokens.contract.token_contract import Backend, P256Contract

PIN, PUK = "424242", "87654321"


@pytest.fixture(scope="class")
def backend(
    request: pytest.FixtureRequest, worker_pcscd: Pcscd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    worker_pcscd.start(readers=1)
    directory = tmp_path_factory.mktemp("card") / "state"
    key = VirtualYubiKey.make(worker_pcscd, directory, serial=12345678, firmware=request.cls.firmware).start()
    initialize(key.uri, None, PUK, PIN)
    yield Backend(key.uri, PIN, request.cls.profile, touches=True, attests=True)
    key.stop()
    worker_pcscd.stop()


class TestYubiKey43(P256Contract):
    """No metadata, no AES management key, no deleting."""

    firmware = "4.3.5"


class TestYubiKey54(P256Contract):
    """No deleting."""

    firmware = "5.4.3"


class TestYubiKey57(P256Contract):
    firmware = "5.7.4"
