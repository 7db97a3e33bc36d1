"""Asymmetric keys: made, taken in, shown and used as GENERAL AUTHENTICATE wants it (SP 800-73-4 part 2, 3.2.4)."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from tests.support.virtual_yubikey.apdu import WRONG_DATA, Refused, tlv
from tests.support.virtual_yubikey.firmware import ED25519, P_256, P_384, RSA_1024, RSA_2048, RSA_3072, RSA_4096, X25519
from tests.support.virtual_yubikey.store import StoredKey

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey

CURVES: Mapping[int, ec.EllipticCurve] = {P_256: ec.SECP256R1(), P_384: ec.SECP384R1()}
DIGESTS: Mapping[int, hashes.HashAlgorithm] = {P_256: hashes.SHA256(), P_384: hashes.SHA384()}  # of the curve's size
RSA_BITS = {RSA_1024: 1024, RSA_2048: 2048, RSA_3072: 3072, RSA_4096: 4096}
CHALLENGE, EXPONENTIATION = 0x81, 0x85


def generate(algorithm: int) -> PrivateKey:
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm in RSA_BITS:
        return rsa.generate_private_key(65537, RSA_BITS[algorithm])
    return ed25519.Ed25519PrivateKey.generate() if algorithm == ED25519 else x25519.X25519PrivateKey.generate()


def imported(algorithm: int, parts: Mapping[int, bytes]) -> PrivateKey:
    """From the tags of Yubico's IMPORT KEY: 01 to 05 for RSA, 06 for a curve, 07 Ed25519, 08 X25519."""
    try:
        if algorithm in CURVES:
            return ec.derive_private_key(int.from_bytes(parts[0x06]), CURVES[algorithm])
        if algorithm == ED25519:
            return ed25519.Ed25519PrivateKey.from_private_bytes(parts[0x07])
        if algorithm == X25519:
            return x25519.X25519PrivateKey.from_private_bytes(parts[0x08])
        p, q, dp, dq, qinv = (int.from_bytes(parts[tag]) for tag in range(0x01, 0x06))
        public = rsa.RSAPublicNumbers(65537, p * q)
        if public.n.bit_length() != RSA_BITS[algorithm]:
            raise Refused(WRONG_DATA)
        d = pow(65537, -1, (p - 1) * (q - 1))
        return rsa.RSAPrivateNumbers(p, q, d, dp, dq, qinv, public).private_key()
    except (KeyError, ValueError) as exc:
        raise Refused(WRONG_DATA) from exc


def encoded(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def loaded(stored: StoredKey) -> PrivateKey:
    key = load_der_private_key(stored.private, None)
    assert isinstance(
        key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey
    )
    return key


def public_point(key: PrivateKey) -> bytes:
    """The public key as GENERATE and GET METADATA give it: 81 and 82 for RSA, else 86."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        return tlv(0x81, numbers.n.to_bytes((public.key_size + 7) // 8)) + tlv(0x82, numbers.e.to_bytes(3))
    if isinstance(public, ec.EllipticCurvePublicKey):
        return tlv(0x86, public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    return tlv(0x86, public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def used(stored: StoredKey, tag: int, data: bytes) -> bytes:
    """A signature over the challenge (81), or what ECDH and the other's public key (85) give. Raises Refused(6A80)."""
    key = loaded(stored)
    if isinstance(key, rsa.RSAPrivateKey) and tag == CHALLENGE:
        return _rsa(key, data)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _signature(stored.algorithm, key, data) if tag == CHALLENGE else _agreed(key, data)
    if isinstance(key, ed25519.Ed25519PrivateKey) and tag == CHALLENGE:
        return key.sign(data)
    if isinstance(key, x25519.X25519PrivateKey) and tag == EXPONENTIATION:
        try:
            return key.exchange(x25519.X25519PublicKey.from_public_bytes(data))
        except ValueError as exc:
            raise Refused(WRONG_DATA) from exc
    raise Refused(WRONG_DATA)


def _rsa(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    numbers = key.private_numbers()
    n, size = numbers.public_numbers.n, (key.key_size + 7) // 8
    value = int.from_bytes(data)
    if len(data) != size or value >= n:
        raise Refused(WRONG_DATA)
    return pow(value, numbers.d, n).to_bytes(size)


def _signature(algorithm: int, key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    size = (key.curve.key_size + 7) // 8
    if not digest or len(digest) > size:
        raise Refused(WRONG_DATA)
    return key.sign(digest.rjust(size, b"\0"), ec.ECDSA(Prehashed(DIGESTS[algorithm])))


def _agreed(key: ec.EllipticCurvePrivateKey, point: bytes) -> bytes:
    try:
        if point[:1] != b"\x04":
            raise ValueError("not an uncompressed point")
        other = ec.EllipticCurvePublicKey.from_encoded_point(key.curve, point)
        return key.exchange(ec.ECDH(), other)
    except ValueError as exc:
        raise Refused(WRONG_DATA) from exc
