"""Profile ``p256-hpke`` apart from any token: a key pair in memory does the one ECDH that a token would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.tokens.p256_hpke import unwrap_key, unwrap_keyset, wrap_key, wrap_keyset

OWN = ec.generate_private_key(ec.SECP256R1())
SPKI = OWN.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
KEYSET = (b"w" * 32, b"m" * 32, b"s" * 32)
INFO = b"what is bound"


def ecdh(point: bytes) -> Secret:
    return Secret(OWN.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)))


def never(point: bytes) -> Secret:
    raise AssertionError("the token was asked")


def test_a_keyset_takes_177_bytes_and_comes_back() -> None:
    wrapped = wrap_keyset(SPKI, KEYSET, INFO)
    assert len(wrapped) == 177
    assert tuple(key.value for key in unwrap_keyset(ecdh, SPKI, wrapped, INFO)) == KEYSET


def test_a_single_key_takes_113_bytes_and_comes_back() -> None:
    wrapped = wrap_key(SPKI, KEYSET[0], INFO)
    assert len(wrapped) == 113
    assert unwrap_key(ecdh, SPKI, wrapped, INFO).value == KEYSET[0]


@pytest.mark.parametrize("info", [b"", INFO + b".", b"something else"])
def test_it_opens_for_what_it_was_bound_to_alone(info: bytes) -> None:
    with pytest.raises(NotAuthentic):
        unwrap_keyset(ecdh, SPKI, wrap_keyset(SPKI, KEYSET, INFO), info)
    with pytest.raises(NotAuthentic):
        unwrap_key(ecdh, SPKI, wrap_key(SPKI, KEYSET[0], INFO), info)


@pytest.mark.parametrize(
    ("unwrap", "wrapped", "why"),
    [
        (unwrap_keyset, bytes(176), "a wrapped vault keyset has 177 bytes, not 176"),
        (unwrap_keyset, bytes(113), "a wrapped vault keyset has 177 bytes, not 113"),
        (unwrap_key, bytes(177), "a wrapped key has 113 bytes, not 177"),
        (unwrap_key, b"", "a wrapped key has 113 bytes, not 0"),
    ],
)
def test_another_length_is_refused_before_the_token_is_asked(
    unwrap: Callable[..., object], wrapped: bytes, why: str
) -> None:
    with pytest.raises(NotAuthentic) as refused:
        unwrap(never, SPKI, wrapped, INFO)
    assert refused.value.message == why


def test_a_key_of_another_length_is_misuse() -> None:
    with pytest.raises(ValueError, match="the keys of a keyset have 32 bytes"):
        wrap_keyset(SPKI, (*KEYSET[:2], bytes(31)), INFO)
    with pytest.raises(ValueError, match="a key to wrap has 32 bytes"):
        wrap_key(SPKI, bytes(16), INFO)
