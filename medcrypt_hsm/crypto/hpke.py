"""HPKE base mode (RFC 9180) of one suite: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

Sealing is done by the cryptography package. Opening is taken apart, because the private key is on a token: the token
does the one ECDH, and the rest of the schedule runs here, each value of it in a ``Secret`` that is wiped.

    enc ──ECDH on the token──▶ dh ─▶ shared_secret ─▶ secret ─▶ key, base_nonce ─▶ plaintext

Base mode authenticates nobody: anyone with the public key can seal. Whether a sealed text is to be believed must be
known from elsewhere (docs/spec/tokens.md).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic

ENC = 65  # bytes of an uncompressed P-256 point, X9.62: 04 || x || y
TAG = 16
Ecdh = Callable[[bytes], Secret]
"""The peer's point, 65 bytes and known to be on the curve → the x-coordinate of the shared point, 32 bytes."""
_KEM = b"KEM\x00\x10"  # suite ids, sections 4.1 and 5.1
_SUITE = b"HPKE\x00\x10\x00\x01\x00\x02"
_VERSION = b"HPKE-v1"
_BASE = b"\x00"


def seal(spki: bytes, info: bytes, plaintext: bytes) -> bytes:
    """``enc || ct`` for the P-256 public key in DER SubjectPublicKeyInfo, single-shot with empty AAD (section 6.1).

    65 bytes and 16 more than the plaintext. Raises ValueError for another key: misuse.
    """
    from cryptography.hazmat.primitives import hpke, serialization  # slow imports that opening has no use for

    key = serialization.load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("sealing needs a P-256 public key")
    return hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM).encrypt(plaintext, key, info)


def open_with(ecdh: Ecdh, own_public: bytes, info: bytes, sealed: bytes, aad: bytes = b"") -> Secret:
    """The plaintext of ``enc || ct``; ``own_public`` is the 65-byte point of the key that ``ecdh`` uses (section 6.1).

    Raises NotAuthentic before the token is asked for anything, where the lengths or the peer's point are wrong, and
    after it where the text does not open. What ``ecdh`` raises passes through. A plaintext has at least 16 bytes.
    """
    if len(sealed) < ENC + TAG + 16:
        raise NotAuthentic("not authentic: shorter than anything that was sealed")
    enc = sealed[:ENC]
    _check_point(enc)
    with ecdh(enc) as dh, _shared_secret(dh, enc + own_public) as shared:
        key, nonce = _key_and_nonce(shared, info)
    with key:
        try:
            return Secret(AESGCM(key.value).decrypt(nonce, sealed[ENC:], aad))
        except InvalidTag as exc:
            raise NotAuthentic("not authentic: it was sealed for another key or purpose, or was altered") from exc


def point_of(spki: bytes) -> bytes:
    """The 65-byte point in a P-256 key's DER SubjectPublicKeyInfo (RFC 5480), which ends with it."""
    return spki[-ENC:]


def _check_point(point: bytes) -> None:
    """Section 7.1.4: on the curve, and not the point at infinity, which has no uncompressed form."""
    try:
        if point[0] != 4:  # compressed and hybrid forms are other encodings of one key; RFC 9180 has none of them
            raise ValueError
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as exc:
        raise NotAuthentic("not authentic: it does not begin with a point on P-256") from exc


def _shared_secret(dh: Secret, kem_context: bytes) -> Secret:
    """ExtractAndExpand of DHKEM, section 4.1."""
    with _extract(_KEM, b"", b"eae_prk", dh.value) as eae_prk:
        return _expand(_KEM, eae_prk, b"shared_secret", kem_context)


def _key_and_nonce(shared: Secret, info: bytes) -> tuple[Secret, bytes]:
    """KeySchedule in base mode, section 5.1. The nonce of the first and only message is the base nonce, section 5.2."""
    with _extract(_SUITE, b"", b"psk_id_hash", b"") as psk_id_hash, _extract(_SUITE, b"", b"info_hash", info) as hashed:
        context = _BASE + psk_id_hash.value + hashed.value
    with (
        _extract(_SUITE, shared.value, b"secret", b"") as secret,
        _expand(_SUITE, secret, b"base_nonce", context, 12) as nonce,
    ):
        return _expand(_SUITE, secret, b"key", context), nonce.value[:12]


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> Secret:
    """LabeledExtract, section 4. ``ikm`` is fed by itself, so that no joined copy of it stays in memory."""
    mac = hmac.new(salt, _VERSION + suite + label, hashlib.sha256)
    mac.update(ikm)
    return Secret(mac.digest())


def _expand(suite: bytes, prk: Secret, label: bytes, info: bytes, length: int = 32) -> Secret:
    """LabeledExpand, section 4, for up to 32 bytes: one HMAC, of which the first ``length`` bytes count."""
    labeled = length.to_bytes(2, "big") + _VERSION + suite + label + info
    return Secret(hmac.digest(prk.value, labeled + b"\x01", "sha256"))
