"""P-256 public keys and signatures, in the one form that each has (docs/spec/notation.md).

In: a key in DER, a signature of 64 bytes, data. Out: nothing, or NotAuthentic; a key's fingerprint. Whoever signs, on a
token or in an audit log, is known by that fingerprint. Not here: private keys, which stay on tokens; points as PKCS#11
shows them (tokens/pkcs11/p256.py); what signatures are over.
"""

from __future__ import annotations

import functools
from hashlib import sha256
from typing import TYPE_CHECKING

from medcrypt_hsm.errors import NotAuthentic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # DER, up to the point


def fingerprint(spki: bytes) -> bytes:
    """SHA-256 of the DER SubjectPublicKeyInfo; an audit key's is its token's id."""
    return sha256(spki).digest()


def verify_signature(spki: bytes, signature: bytes, data: bytes) -> None:
    """ECDSA P-256 with SHA-256, 64 bytes r || s (FIPS 186-5). Raises NotAuthentic."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    key = load_p256(spki)
    if len(signature) != 64:
        raise NotAuthentic("a signature is not 64 bytes long")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError) as exc:
        raise NotAuthentic("a signature does not verify") from exc


@functools.lru_cache(maxsize=64)  # a log has a few keys and a million heads, and loading one is slow
def load_p256(spki: bytes) -> EllipticCurvePublicKey:
    """A P-256 public key from its DER SubjectPublicKeyInfo (RFC 5480), point uncompressed. Raises NotAuthentic.

    No other encoding is taken: it would have another fingerprint, and be one key introduced as two tokens.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    if not spki.startswith(P256_SPKI + b"\x04"):
        raise NotAuthentic(_why_not_p256(spki))
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[len(P256_SPKI) :])
    except ValueError as exc:
        raise NotAuthentic("that is not a public key") from exc


def spki_of_pem(pem: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of one public key in PEM (RFC 7468), of whatever kind. Raises ValueError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        return load_pem_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UnsupportedAlgorithm as exc:
        raise ValueError("a key of an unknown kind") from exc


def der_signature(raw: bytes) -> bytes:
    """r || s as DER (RFC 3279 section 2.2.3), as other programs carry ECDSA signatures."""
    from cryptography.hazmat.primitives.asymmetric import utils

    r, s = (int.from_bytes(half, "big") for half in (raw[:32], raw[32:]))
    return utils.encode_dss_signature(r, s)


def raw_signature(der: bytes) -> bytes:
    """The reverse: 64 bytes. Raises ValueError."""
    from cryptography.hazmat.primitives.asymmetric import utils

    r, s = utils.decode_dss_signature(der)
    if not (0 < r < 1 << 256 and 0 < s < 1 << 256):
        raise ValueError("not a signature of P-256")
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _why_not_p256(spki: bytes) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return "that is not a public key"
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return "that is not a P-256 key"
    return "that P-256 key is not encoded as the spec says"
