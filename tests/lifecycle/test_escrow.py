"""The escrow copy of a keyset: sealed to the break-glass key, and bound to vault, generation and ceremony."""

from __future__ import annotations

import os

import pytest

from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import VaultDamaged
from medcrypt_hsm.lifecycle import escrow
from medcrypt_hsm.vault.audit.trust_custody import ESCROW_BYTES

VAULT, CEREMONY = bytes(range(16)), bytes(6)
KEYSET: KeysetSecret = (bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96)))


@pytest.fixture
def seed() -> Secret:
    return Secret(os.urandom(32))


def sealed(seed: Secret) -> bytes:
    return escrow.seal(xwing.public_key(seed.value), KEYSET, VAULT, 3, CEREMONY)


def test_its_seed_opens_it_to_these_very_keys(seed: Secret) -> None:
    found = sealed(seed)
    assert len(found) == ESCROW_BYTES == 1232
    assert tuple(key.value for key in escrow.open_keyset(seed, found, VAULT, 3, CEREMONY)) == KEYSET
    escrow.prove(seed, found, KEYSET, VAULT, 3, CEREMONY)


def test_sealing_is_never_twice_the_same(seed: Secret) -> None:
    assert sealed(seed) != sealed(seed)


@pytest.mark.parametrize(
    ("vault", "generation", "ceremony"), [(bytes(16), 3, CEREMONY), (VAULT, 2, CEREMONY), (VAULT, 3, b"others")]
)
def test_of_another_vault_generation_or_ceremony(seed: Secret, vault: bytes, generation: int, ceremony: bytes) -> None:
    with pytest.raises(VaultDamaged, match="does not open with the break-glass key"):
        escrow.open_keyset(seed, sealed(seed), vault, generation, ceremony)


def test_altered_cut_off_or_with_another_seed(seed: Secret) -> None:
    found = sealed(seed)
    for key, data in (
        (Secret(os.urandom(32)), found),
        (seed, found[:-1] + bytes([found[-1] ^ 1])),
        (seed, found[:-1]),
        (seed, found + b"\0"),
        (seed, b""),
    ):
        with pytest.raises(VaultDamaged):
            escrow.open_keyset(key, data, VAULT, 3, CEREMONY)


def test_an_escrow_of_other_keys_is_no_proof(seed: Secret) -> None:
    other: KeysetSecret = (KEYSET[0], KEYSET[1], bytes(32))
    with pytest.raises(VaultDamaged, match="opens to another keyset"):
        escrow.prove(seed, sealed(seed), other, VAULT, 3, CEREMONY)
