"""A forged file whose anchor and keyset are forged to match: every kind of command refuses it, and nothing is released.

The token holds another audit key than the file has on record, while anchor, chain and keyset agree with the file: what
somebody makes who may write objects to the token. Only a signature of the token tells (ADR 0024).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import VaultRolledBack
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import audit_key_name
from tests.support.added_token import vault_id
from tests.support.practice import Practice, pin
from tests.support.store import fold

COMMANDS: dict[str, Callable[[Vault, str], object]] = {
    "encrypt": lambda vault, text: vault.encrypt("EXP-1", "x"),
    "encrypt for nobody": lambda vault, text: vault.encrypt("EXP-9", "x"),
    "decrypt": lambda vault, text: vault.decrypt(text),
    "decrypt what is no message": lambda vault, text: vault.decrypt("x"),
    "patient add": lambda vault, text: vault.patients.add("EXP-2"),
    "patient add, there already": lambda vault, text: vault.patients.add("EXP-1"),
    "patient confirm": lambda vault, text: vault.patients.confirm("EXP-1", "000000"),
    "patient list": lambda vault, text: vault.patients.list(),
    "patient show": lambda vault, text: vault.patients.show("EXP-1"),
    "patient qr": lambda vault, text: vault.patients.qr("EXP-1"),
    "patient repair": lambda vault, text: vault.patients.repair("EXP-1"),
    "patient remove": lambda vault, text: vault.patients.remove("EXP-1"),
    "patient erase": lambda vault, text: vault.patients.erase("EXP-1"),
    "months": lambda vault, text: vault.months.due,
    "month": lambda vault, text: vault.month,
    "policy": lambda vault, text: vault.policy,
    "token name": lambda vault, text: vault.token_name,
    "set policy": lambda vault, text: vault.set_policy(grace_days=3),
    "status": lambda vault, text: vault.status(),
    "hold list": lambda vault, text: vault.holds.list(),
    "audit show": lambda vault, text: vault.log.entries(),
    "audit verify": lambda vault, text: vault.log.verify(),
    "audit checkpoint": lambda vault, text: vault.log.checkpoint(),
    "audit anchor": lambda vault, text: vault.log.anchor(),
    "audit public-key": lambda vault, text: vault.log.public_keys(),
}


@pytest.fixture
def forged(practice: Practice) -> tuple[Practice, str]:
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        (text,) = vault.encrypt("EXP-1", "x")
    fold(practice.path)
    name = audit_key_name(vault_id(practice))
    with open_token(practice.uri, pin) as token:
        token.destroy(name)
        token.make_signing_key(name)
    return practice, text


def test_every_kind_of_command_refuses_it(forged: tuple[Practice, str]) -> None:
    practice, text = forged
    before = practice.path.read_bytes()
    for name, command in COMMANDS.items():
        with practice.open() as vault, pytest.raises(VaultRolledBack, match="does not hold the audit key"):
            pytest.fail(f"{name} gave {command(vault, text)!r}")
    fold(practice.path)
    assert practice.path.read_bytes() == before
