"""New root KEKs on tokens that are there, and the new keyset for those that are away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.lifecycle import new_keks, old_keks
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens, own
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import kek_name
from medcrypt_hsm.vault.keyset import HostKeyset, VaultKeyset, keyset_info
from tests.support.practice import Practice, pin, unlocked

OTHERS = OtherTokens(pin)


@pytest.fixture
def two(tmp_path: Path, token_uri: str, spare_uri: str) -> Practice:
    """A vault with doctor (aes-kw) and spare (p256-hpke)."""
    made = Practice(tmp_path / "practice" / "vault.db", token_uri)
    made.create(options=TokenOptions("aes-kw")).close()
    made.add("spare", spare_uri, options=TokenOptions("p256-hpke"))
    return made


def fresh(vault_id: bytes) -> tuple[KeysetSecret, HostKeyset]:
    """A new keyset as bytes, and at work."""
    secret = (os.urandom(32), os.urandom(32), os.urandom(32))
    first, second, third = (Secret(bytes(bytearray(key))) for key in secret)
    return secret, HostKeyset(HostKeys(), (first, second, third), vault_id)


def test_one_is_made_beside_the_old_one_and_is_a_leftover_until_something_refers_to_it(practice: Practice) -> None:
    with practice.open() as vault:
        opened = unlocked(vault)
        first, second = (kek_name(opened.state.vault_id, generation) for generation in (1, 2))
        for _ in range(2):  # what an interrupted run left under that name wraps nothing
            made = new_keks.make_kek(opened, own(opened), 2, OTHERS)
        assert made._replace(attestation=opened.registered.attestation, kek=opened.registered.kek) == opened.registered
        assert {first, second} <= set(opened.token.names())
        old_keks.destroy_leftovers(opened, [own(opened)])
        assert second not in opened.token.names()
        assert first in opened.token.names()


def test_each_present_token_proves_that_it_unwraps_the_new_keyset(practice: Practice) -> None:
    with practice.open() as vault:
        opened = unlocked(vault)
        me = own(opened)
        secret, new = fresh(opened.state.vault_id)
        made = {me.name: new_keks.make_kek(opened, me, 2, OTHERS)}
        keysets, handles = new_keks.wrap_for_present(opened, [me], made, 2, secret, new)
        assert {name: (keyset.token_id, keyset.kek) for name, keyset in keysets.items()} == {"doctor": (me.id, 2)}
        assert handles.lookup("EXP-1") == new.lookup("EXP-1") != opened.keyset.lookup("EXP-1")
        handles.destroy()
        old_keks.destroy_leftovers(opened, [me])


def test_for_an_absent_token_a_public_key_is_enough(two: Practice, spare_uri: str) -> None:
    with two.open(token="doctor") as vault:
        opened = unlocked(vault)
        state, spare = opened.state, opened.state.tokens["spare"]
        secret, new = fresh(state.vault_id)
        keysets = new_keks.wrap_for_absent(opened, (), 2, secret)
        assert list(keysets) == ["spare"], "an aes-kw KEK wraps on its token alone"
        assert new_keks.wrap_for_absent(opened, ["spare"], 2, secret) == {}
        info, first = keyset_info(state.vault_id, 2, spare.id), kek_name(state.vault_id, 1)
        with open_token(spare_uri, pin) as token:
            unwrapped = VaultKeyset(token.unwrap_keyset(first, keysets["spare"].wrapped, info), state.vault_id)
            assert unwrapped.lookup("EXP-1") == new.lookup("EXP-1")
            unwrapped.destroy()
