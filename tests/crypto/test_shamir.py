"""Shamir's scheme: the field as FIPS 197 has it, shares that another program made, and what is refused."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest

from medcrypt_hsm.crypto import shamir
from medcrypt_hsm.crypto.secret import Secret
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = json.loads((VECTOR_DIRECTORY / "medcrypt-v1.json").read_text())["shares"]
SECRET = bytes(range(100, 132))
SHARE = bytes(range(32))


def test_the_products_in_the_standard() -> None:
    """FIPS 197, sections 4.2 and 4.2.1."""
    assert shamir.multiply(0x57, 0x83) == 0xC1
    assert shamir.multiply(0x57, 0x13) == 0xFE
    assert [shamir.multiply(0x57, power) for power in (0x02, 0x04, 0x08, 0x10)] == [0xAE, 0x47, 0x8E, 0x07]


def test_every_product_is_the_remainder_of_the_long_division() -> None:
    def divided(a: int, b: int) -> int:
        product = 0
        for bit in range(8):
            product ^= (a << bit) * (b >> bit & 1)
        for bit in range(14, 7, -1):
            product ^= (0x11B << bit - 8) * (product >> bit & 1)
        return product

    assert all(shamir.multiply(a, b) == divided(a, b) for a in range(256) for b in range(256))


def test_every_inverse() -> None:
    assert shamir.inverse(0x53) == 0xCA
    assert shamir.inverse(0) == 0
    assert all(shamir.multiply(a, shamir.inverse(a)) == 1 for a in range(1, 256))


@pytest.mark.parametrize("vector", VECTORS)
def test_the_shares_of_version_1_give_the_true_secret(vector: dict[str, Any]) -> None:
    shares = {share["x"]: bytes.fromhex(share["y_hex"]) for share in vector["shares"]}
    for some in combinations(shares, vector["threshold"]):
        assert shamir.combine({x: shares[x] for x in some}).value.hex() == vector["secret_hex"]
    assert shamir.combine(shares).value.hex() == vector["secret_hex"]
    too_few = {x: shares[x] for x in list(shares)[1 : vector["threshold"]]}
    assert shamir.combine(too_few).value.hex() != vector["secret_hex"]


def test_the_coefficients_are_the_random_bytes_and_are_wiped() -> None:
    made: list[bytes] = []

    def random(length: int) -> bytes:
        made.append(bytes([len(made) + 2]) * length)  # the coefficients of x and of x^2: 2 and 3
        return made[-1]

    secret = bytes([7]) * 16
    first, second, third = shamir.split(secret, 3, 3, random)
    assert first.value == bytes([7 ^ 2 ^ 3]) * 16
    assert second.value == bytes([7 ^ 4 ^ 12]) * 16  # x = 2: 7 + 2·2 + 3·4
    assert third.value == bytes([7 ^ 6 ^ 15]) * 16  # x = 3: 3·3 = 5, and 3·5 = 15
    assert made == [bytes(16), bytes(16)]
    assert secret == bytes([7]) * 16


def test_two_splits_share_no_share() -> None:
    first, second = ({share.value for share in shamir.split(SECRET, 2, 16)} for _ in range(2))
    assert len(first | second) == 32


@pytest.mark.parametrize(("threshold", "count"), [(0, 3), (1, 3), (-2, 3), (4, 3), (2, 17), (17, 17), (2, 1)])
def test_a_threshold_that_cannot_be_is_misuse(threshold: int, count: int) -> None:
    with pytest.raises(ValueError):
        shamir.split(SECRET, threshold, count)


def test_the_bounds_themselves_are_good() -> None:
    for threshold, count in ((2, 2), (2, 16), (16, 16)):
        shares = shamir.split(SECRET, threshold, count)
        assert shamir.combine({x: share.value for x, share in enumerate(shares, 1)}).value == SECRET


def test_a_short_secret_and_short_randomness_are_misuse() -> None:
    with pytest.raises(ValueError):
        shamir.split(SECRET[:15], 2, 3)
    with pytest.raises(ValueError):
        shamir.split(SECRET, 2, 3, lambda length: bytes(length - 1))


@pytest.mark.parametrize(
    "shares",
    [{}, {0: SHARE, 1: SHARE}, {1: SHARE, 256: SHARE}, {-1: SHARE, 1: SHARE}, {1: SHARE, 2: SHARE[:31]}],
    ids=["none", "x = 0", "x = 256", "x = -1", "lengths"],
)
def test_shares_that_cannot_be_are_misuse(shares: dict[int, bytes]) -> None:
    with pytest.raises(ValueError):
        shamir.combine(shares)


def test_only_the_results_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: list[Secret] = []
    init = Secret.__init__

    def noted(secret: Secret, value: bytes) -> None:
        init(secret, value)
        secrets.append(secret)

    monkeypatch.setattr(Secret, "__init__", noted)
    shares = shamir.split(SECRET, 3, 5)
    assert [secret for secret in secrets if not secret._wiped] == list(shares)
