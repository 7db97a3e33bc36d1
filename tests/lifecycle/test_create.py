"""Making a vault: a kill at any point leaves what the next run clears, and nothing else is cleared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import Refused, TokenRemoved, VaultError, VaultUnfinished
from medcrypt_hsm.lifecycle import create
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.audit.trust import Policy
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.store.rows import Location
from tests.support.added_token import Pulled
from tests.support.practice import Practice, pin
from tests.support.softhsm import SoftHsm
from tests.support.store import open_at


@pytest.fixture
def new(tmp_path: Path, token_uri: str) -> Practice:
    return Practice(tmp_path / "practice" / "vault.db", token_uri)


def make(practice: Practice, token: Token, rules: Policy = Policy()) -> None:  # noqa: B008 - frozen
    made = create.create(
        Location.parse(practice.path), "doctor", token, options=TokenOptions(), rules=rules, actor="mara",
        clock=practice.clock,
    )  # fmt: skip
    made.log.drop_keys()
    made.file.close()


@contextlib.contextmanager
def pulled(practice: Practice, call: str) -> Iterator[Token]:
    """A real token that is pulled out when it is to do that."""

    class AtThat(Pulled):
        def __getattr__(self, name: str) -> object:
            if name == call:
                raise TokenRemoved("the token was removed")
            return super().__getattr__(name)

    with open_token(practice.uri, pin) as token:
        yield AtThat(token)  # type: ignore[misc]


def objects(practice: Practice, vault_id: bytes) -> list[str]:
    with open_token(practice.uri, pin) as token:
        return [name for name in token.names() if vault_id.hex() in name]


@pytest.mark.parametrize("call", ["make_kek", "make_signing_key", "wrap_keyset", "put_object"])
def test_the_next_run_clears_what_an_interrupted_one_left(new: Practice, call: str) -> None:
    with pulled(new, call) as token, pytest.raises(TokenRemoved):
        make(new, token)
    with pytest.raises(VaultUnfinished, match="was interrupted"):
        new.open()
    with contextlib.closing(open_at(new.path)) as file:
        (row,) = file.trust_rows()
    left = bytes.fromhex(row[2].decode().split('"id":"')[1][:32])
    new.create().close()
    assert objects(new, left) == []
    with new.open() as vault:
        assert [entry.action for _, entry in vault.log.entries()][:2] == ["token.introduce", "vault.create"]
        vault.log.verify()


def test_not_with_another_token_which_does_not_hold_it(new: Practice, softhsm: SoftHsm) -> None:
    with pulled(new, "make_signing_key") as token, pytest.raises(TokenRemoved):
        make(new, token)
    with pytest.raises(VaultError, match=f"was begun with another token, {new.uri.partition('?')[0]}"):
        Vault.create(new.path, token="doctor", uri=softhsm.make_token(), pin=pin, clock=new.clock)
    new.create().close()


def test_a_finished_vault_is_never_in_the_way(new: Practice) -> None:
    location = Location.parse(new.path)
    create.check_absent(location)
    new.create().close()
    before = new.path.read_bytes()
    for make_another in (lambda: create.check_absent(location), new.create):
        with pytest.raises(VaultError, match=r"there is a vault at .* already"):
            make_another()
    assert new.path.read_bytes() == before
    new.open().close()


def test_a_token_that_will_never_do_leaves_nothing(new: Practice) -> None:
    with open_token(new.uri, pin) as token:
        before = sorted(token.names())
        with pytest.raises(Refused, match="device-attested"):
            make(new, token, Policy(require_attestation="device-attested"))
        assert sorted(token.names()) == before
    assert not new.path.exists()


def test_what_the_token_has_used_is_not_destroyed(practice: Practice) -> None:
    with contextlib.closing(open_at(practice.path)) as file:
        vault_id = peek(file).vault_id
    with open_token(practice.uri, pin) as token, pytest.raises(VaultError, match="has used this vault already"):
        create.destroy_unfinished(token, vault_id)
    practice.open().close()
