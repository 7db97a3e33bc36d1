"""P-256 public keys and signatures: the published vectors, and that a key and a signature each have one form."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.crypto.p256 import P256_SPKI, fingerprint, load_p256, verify_signature
from medcrypt_hsm.errors import NotAuthentic

# RFC 6979, appendix A.2.5
X = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
Y = "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
SIGNATURES = {
    b"sample": "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
    "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
    b"test": "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367"
    "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
}
SPKI = P256_SPKI + b"\x04" + bytes.fromhex(X + Y)
KEY = ec.generate_private_key(ec.SECP256R1())


def der(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def raw(signature: bytes) -> bytes:
    r, s = utils.decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.mark.parametrize(("data", "signature"), SIGNATURES.items())
def test_published_signatures_verify(data: bytes, signature: str) -> None:
    verify_signature(SPKI, bytes.fromhex(signature), data)
    for other in SIGNATURES.keys() - {data}:
        with pytest.raises(NotAuthentic, match="does not verify"):
            verify_signature(SPKI, bytes.fromhex(signature), other)


@given(st.integers(0, 511), st.binary(max_size=40))
def test_no_flipped_bit_of_a_signature_verifies(bit: int, data: bytes) -> None:
    signature = bytearray(raw(KEY.sign(data, ec.ECDSA(SHA256()))))
    verify_signature(der(KEY.public_key()), bytes(signature), data)
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(NotAuthentic, match="does not verify"):
        verify_signature(der(KEY.public_key()), bytes(signature), data)


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_signature_of_another_length(size: int) -> None:
    with pytest.raises(NotAuthentic, match="not 64 bytes"):
        verify_signature(SPKI, bytes(size), b"sample")


def test_a_signature_in_der_is_none() -> None:
    with pytest.raises(NotAuthentic):
        verify_signature(der(KEY.public_key()), KEY.sign(b"sample", ec.ECDSA(SHA256())), b"sample")


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(32) + b"\1" * 32, b"\1" * 32 + bytes(32)])
def test_numbers_out_of_range(signature: bytes) -> None:
    with pytest.raises(NotAuthentic, match="does not verify"):
        verify_signature(SPKI, signature, b"sample")


def test_the_prefix_is_what_every_p256_key_in_der_begins_with() -> None:
    for _ in range(4):
        spki = der(ec.generate_private_key(ec.SECP256R1()).public_key())
        assert spki[: len(P256_SPKI)] == P256_SPKI
        assert len(spki) == len(P256_SPKI) + 65
        assert der(load_p256(spki)) == spki
    assert der(load_p256(SPKI)) == SPKI


def test_a_fingerprint_is_over_the_whole_key() -> None:
    assert fingerprint(SPKI) == hashlib.sha256(SPKI).digest()


def compressed() -> bytes:
    """A P-256 key as RFC 5480 allows it too, with a fingerprint of its own."""
    point = bytes([2 + int(Y, 16) % 2]) + bytes.fromhex(X)
    return bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point


OTHERS = {
    "nothing": (b"", "not a public key"),
    "no key": (b"text", "not a public key"),
    "a compressed point": (compressed(), "not encoded as the spec says"),
    "a P-384 key": (der(ec.generate_private_key(ec.SECP384R1()).public_key()), "not a P-256 key"),
    "an Ed25519 key": (der(ed25519.Ed25519PrivateKey.generate().public_key()), "not a P-256 key"),
    "an RSA key": (der(rsa.generate_private_key(65537, 2048).public_key()), "not a P-256 key"),
    "a byte behind it": (SPKI + b"\0", "not a public key"),
    "a byte too few": (SPKI[:-1], "not a public key"),
    "a point beside the curve": (SPKI[:-1] + bytes([SPKI[-1] ^ 1]), "not a public key"),
    "a coordinate above the prime": (P256_SPKI + b"\x04" + b"\xff" * 64, "not a public key"),
    "the point at infinity": (P256_SPKI + b"\0", "not a public key"),
}


def test_the_compressed_key_is_one_elsewhere() -> None:
    """Or the case below would show nothing."""
    key = serialization.load_der_public_key(compressed())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert der(key) == SPKI


@pytest.mark.parametrize("other", OTHERS)
def test_no_other_encoding_is_taken(other: str) -> None:
    spki, why = OTHERS[other]
    with pytest.raises(NotAuthentic, match=why):
        load_p256(spki)
    with pytest.raises(NotAuthentic, match=why):
        verify_signature(spki, bytes(64), b"")
