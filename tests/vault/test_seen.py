"""Seen texts: a key for each message key, from one root. ``SeenKey`` by RFC 4231: tests/properties/test_ratchet.py."""

from __future__ import annotations

import hmac
import os

import pytest

from medcrypt_hsm.crypto.handles import MacKey
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.vault.seen import SeenKey, SeenRoot
from scripts.standalone import recover

VAULT, PAIRING = bytes(range(16)), bytes.fromhex("c0ffee0123456789")
ROOT_KEY = bytes(range(64, 96))
TEXTS = ["[MEDCRYPT:v2:…]", "another"]


def handle() -> MacKey:
    secrets = Secret(os.urandom(32)), Secret(bytes(bytearray(ROOT_KEY))), Secret(os.urandom(32))
    return HostKeys().handles(secrets).mac


def macs(vault: bytes = VAULT, pairing: bytes = PAIRING, month: str = "2026-11") -> list[bytes]:
    return SeenRoot(handle(), vault).key(pairing, month).read(TEXTS)


def test_its_keys_are_those_of_the_spec() -> None:
    """docs/spec/vault.md; ``ctx`` is that of the program that shares no code with the package."""
    key = hmac.digest(ROOT_KEY, recover.ctx("medcrypt/seen", VAULT, PAIRING, "2026-11"), "sha256")
    assert macs() == SeenKey(key).read(TEXTS)


def test_what_is_seen_of_one_pairing_or_month_tells_nothing_of_another() -> None:
    found = [macs(), macs(vault=bytes(16)), macs(pairing=bytes(8)), macs(month="2026-12")]
    assert len({mac for each in found for mac in each}) == 8


def test_a_text_is_its_utf_8_and_sixteen_bytes_stand_for_it() -> None:
    key = SeenRoot(handle(), VAULT).key(PAIRING, "2026-11")
    assert key.read(["mañana"]) == key.read(["mañana".encode()])
    assert {len(mac) for mac in (*key.read(TEXTS), *key.sent(TEXTS), *key.nonces([bytes(12)]))} == {16}


def test_its_end() -> None:
    root = SeenRoot(handle(), VAULT)
    root.destroy()
    with pytest.raises(RuntimeError):
        root.key(PAIRING, "2026-11")
