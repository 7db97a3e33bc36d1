"""A session's token keeps the contract, as far as a day's commands need it.

Keys are made and destroyed by this process on the token itself, as another command would; everything else goes through
an agent. One agent serves a class, until a test makes it believe that the vault was re-keyed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.errors import TokenError
from medcrypt_hsm.tokens import Evidence, Token
from medcrypt_hsm.tokens.access import TokenAccess, open_token
from medcrypt_hsm.tokens.session import client
from medcrypt_hsm.tokens.session import start as starting
from medcrypt_hsm.tokens.session.client import RemoteToken
from tests.support.session_desk import wait
from tests.support.softhsm import USER_PIN, SoftHsm
from tests.support.store import beside
from tests.tokens.contract.token_contract import AUDIT, INFO, KEK, AesKwContract, Backend, P256Contract, TokenContract

ITSELF = {"make_kek", "wrap_keyset", "unwrap_keyset_to_host", "wrap_key", "unwrap_key", "make_signing_key", "destroy"}


class BesideTheSession:
    """The token itself for what no session does, and the session's for the rest."""

    def __init__(self, direct: Token, remote: RemoteToken) -> None:
        self.direct = direct
        self.remote = remote

    def __getattr__(self, name: str) -> Any:
        return getattr(self.direct if name in ITSELF | {"trial"} else self.remote, name)

    def evidence(self, name: str) -> Evidence:
        return (self.remote if " 00" in name else self.direct).evidence(name)

    def __repr__(self) -> str:
        return repr(self.remote)

    def __enter__(self) -> BesideTheSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.remote.close()
        self.direct.close()


class InSession(Backend):
    @property
    def vault(self) -> Path:
        return Path(self.pin.partition(" ")[2])

    def open(self) -> Token:
        direct = open_token(self.uri, lambda info: USER_PIN)
        try:
            remote = client.find(beside(self.vault))
            if remote is None:
                self.start(direct.info.uri)
                remote = client.find(beside(self.vault))
            assert remote is not None
        except BaseException:
            direct.close()
            raise
        return cast(Token, BesideTheSession(direct, remote))

    def start(self, uri: str) -> None:
        starting.start(
            str(self.vault),
            beside(self.vault),
            b"\0",
            "doctor",
            uri,
            TokenAccess(lambda info: USER_PIN),
            actor="nobody",
            idle=600,
            lasting=600,
            finger=False,
        )


@pytest.fixture(scope="class")
def backend(
    request: pytest.FixtureRequest, softhsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    vault = tmp_path_factory.mktemp("session") / "vault.db"
    made = InSession(softhsm.make_token(), f"{USER_PIN} {vault}", request.cls.profile)
    yield made
    client.lock(beside(vault), "lock")


class RootKeyGone(TokenContract):
    def test_what_is_not_there(self, token: Token, secret: KeysetSecret, backend: Backend) -> None:
        for absent in (
            lambda: token.sign(AUDIT, b""),
            lambda: token.public_key(AUDIT),
            lambda: token.evidence(KEK),
            lambda: token.unwrap_keyset(KEK, bytes(120), INFO),
        ):
            with pytest.raises(KeyError):
                absent()
        # The last was the sign of a re-key that the agent was not told of.
        vault = cast(InSession, backend).vault
        wait(lambda: client.status(beside(vault)) is None, 5)  # which keeps no connection


class TestSessionAesKw(RootKeyGone, AesKwContract):
    def test_what_takes_the_token_itself_is_not_offered(self, backend: InSession) -> None:
        with backend.open() as token:
            remote = cast(Any, token).remote
            for name in ITSELF:
                arguments = {"make_kek": 2, "make_signing_key": 1, "destroy": 1}.get(name, 3)
                with pytest.raises(TokenError, match="a session does not do that"):
                    getattr(remote, name)(*([KEK] * arguments))

    def test_another_vaults_names_are_refused(self, backend: InSession) -> None:
        with backend.open() as both:
            token = cast(Any, both).remote
            for ask in (
                lambda: token.sign("medcrypt audit 01", b""),
                lambda: token.sign(KEK, b""),
                lambda: token.public_key("medcrypt kek 01 1"),
                lambda: token.evidence("medcrypt audit 01"),
                lambda: token.read_objects("medcrypt anchor 01"),
                lambda: token.put_object("medcrypt anchor 01", b"value"),
                lambda: token.unwrap_keyset("medcrypt kek 01 1", bytes(120), b""),
                lambda: token.attestation("medcrypt kek 01 1"),
            ):
                with pytest.raises(TokenError, match="a session does not do that"):
                    ask()


class TestSessionP256(RootKeyGone, P256Contract): ...
