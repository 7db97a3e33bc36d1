"""The keyset's rows: each is bound to its purpose, pairing, month and entry, and to this vault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, VaultDamaged
from medcrypt_hsm.vault.keyset import (
    CHAIN,
    MESSAGE,
    PATIENT,
    QR,
    SEEN,
    HostKeyset,
    keyset_info,
    log_month,
)

VAULT, PAIRING = bytes(range(16)), b"pairing1"


def keyset(keys: HostKeys, vault_id: bytes = VAULT) -> HostKeyset:
    wrapping, mac, sealing = (Secret(os.urandom(32)) for _ in range(3))
    return HostKeyset(keys, (wrapping, mac, sealing), vault_id)


@pytest.fixture
def keys() -> Iterator[HostKeys]:
    made = HostKeys()
    yield made
    made.wipe()


@pytest.mark.parametrize(
    "altered",
    [
        {"purpose": CHAIN},
        {"pairing": b"pairing2"},
        {"month": "2026-12"},
        {"sequence": 8},
        {"wrapped": bytes(40)},
        {"mac": bytes(32)},
    ],
    ids=lambda altered: next(iter(altered)),
)
def test_a_record_is_of_one_purpose_pairing_month_and_entry(keys: HostKeys, altered: dict[str, Any]) -> None:
    own = keyset(keys)
    with Secret(os.urandom(32)) as key:
        row = own.wrap(MESSAGE, PAIRING, "2026-11", 7, key)
    own.check_record(row)
    sealed = own.aead_key(row).seal(bytes(12), b"text", b"aad")
    assert own.aead_key(row).open(bytes(12), sealed, b"aad") == b"text"
    with pytest.raises(VaultDamaged, match="was altered"):
        own.aead_key(row._replace(**altered))


@pytest.mark.parametrize(
    "altered",
    [
        {"purpose": PATIENT},
        {"pairing": b"pairing2"},
        {"lookup": bytes(32)},
        {"sequence": 8},
        {"nonce": bytes(12)},
        {"body": bytes(40)},
    ],
    ids=lambda altered: next(iter(altered)),
)
def test_a_sealed_row_too(keys: HostKeys, altered: dict[str, Any]) -> None:
    own = keyset(keys)
    row = own.seal(QR, PAIRING, 7, {"check": "123456"})
    assert own.open(row) == {"check": "123456"}
    with pytest.raises(VaultDamaged, match=r"a stored (qr|patient) row was altered"):
        own.open(row._replace(**altered))


def test_rows_of_another_vault_are_forged(keys: HostKeys) -> None:
    secrets = [os.urandom(32) for _ in range(3)]
    one, other = (HostKeyset(keys, _copies(secrets), vault_id) for vault_id in (VAULT, VAULT[::-1]))
    with Secret(os.urandom(32)) as key:
        record = one.wrap(SEEN, b"", "", 1, key)
    with pytest.raises(VaultDamaged):
        other.seen_root(record)
    with pytest.raises(VaultDamaged):
        other.open(one.seal(QR, PAIRING, 1, {}))
    assert one.lookup("EXP-1") != other.lookup("EXP-1")


def _copies(secrets: list[bytes]) -> tuple[Secret, Secret, Secret]:
    wrapping, mac, sealing = (Secret(bytes(bytearray(secret))) for secret in secrets)
    return wrapping, mac, sealing


def test_what_is_carried_over_is_the_same_key_for_the_same_entry(keys: HostKeys) -> None:
    old, new = keyset(keys), keyset(keys)
    with Secret(os.urandom(32)) as key:
        row = old.wrap(MESSAGE, PAIRING, "2026-11", 7, key)
    carried = old.carry(row, new)
    assert (carried.purpose, carried.pairing, carried.month, carried.sequence) == (MESSAGE, PAIRING, "2026-11", 7)
    sealed = old.aead_key(row).seal(bytes(12), b"text", b"")
    assert new.aead_key(carried).open(bytes(12), sealed, b"") == b"text"
    with pytest.raises(VaultDamaged):
        old.aead_key(carried)
    with pytest.raises(VaultDamaged):
        old.carry(row._replace(month="2026-12"), new)


def test_a_patient_carried_over_is_found_by_the_new_lookup(keys: HostKeys) -> None:
    old, new = keyset(keys), keyset(keys)
    row = old.seal(PATIENT, PAIRING, 7, {"id": "EXP-1"}, lookup=old.lookup("EXP-1"))
    carried = old.carry_sealed(row, new)
    assert new.open(carried) == {"id": "EXP-1"}
    assert (carried.lookup, carried.sequence) == (new.lookup("EXP-1"), 7)
    assert carried.lookup != row.lookup


def test_a_passing_key_is_kept_nowhere(keys: HostKeys) -> None:
    own = keyset(keys)
    with Secret(os.urandom(32)) as key:
        handle = own.passing_key(key)
    sealed = handle.seal(bytes(12), b"text", b"")
    handle.destroy()
    with pytest.raises(NotAuthentic), Secret(os.urandom(32)) as other:
        own.passing_key(other).open(bytes(12), sealed, b"")
    assert repr(own) == "VaultKeyset(…)"


def test_a_wrapped_keyset_is_bound_to_vault_generation_and_token() -> None:
    told = {keyset_info(vault, generation, token) for vault in (VAULT, VAULT[::-1]) for generation in (1, 2)
            for token in (bytes(32), b"t" * 32)}  # fmt: skip
    assert len(told) == 8


def test_log_keys_sort_by_their_number() -> None:
    assert log_month(9) < log_month(10) == "00000010"
