"""Opening HPKE with the private key elsewhere: against the published vectors, and against the cryptography package."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hpke as published
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from medcrypt_hsm.crypto import hpke
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, TokenRemoved
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = {
    vector["name"]: {name: bytes.fromhex(value) for name, value in vector.items() if name not in ("name", "aead_id")}
    for vector in json.loads((VECTOR_DIRECTORY / "hpke-p256.json").read_text())["vectors"]
}
CFRG = VECTORS["CFRG, AES-256-GCM"]
SUITE = published.Suite(published.KEM.P256, published.KDF.HKDF_SHA256, published.AEAD.AES_256_GCM)
INFO = b"what is bound"
TEXT = bytes(range(96))


class Token:
    """A private key that does ECDH and nothing else, and counts."""

    def __init__(self, scalar: bytes | None = None) -> None:
        curve = ec.SECP256R1()
        self.key = (
            ec.derive_private_key(int.from_bytes(scalar, "big"), curve) if scalar else ec.generate_private_key(curve)
        )
        self.asked = 0

    def ecdh(self, point: bytes) -> Secret:
        self.asked += 1
        return Secret(self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)))

    @property
    def spki(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.DER, form)

    @property
    def point(self) -> bytes:
        form = serialization.PublicFormat.UncompressedPoint
        return self.key.public_key().public_bytes(serialization.Encoding.X962, form)


@pytest.fixture
def token() -> Token:
    return Token()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Secret]:
    """Every Secret that is made from now on."""
    secrets: list[Secret] = []
    init = Secret.__init__

    def remembering(secret: Secret, value: bytes) -> None:
        init(secret, value)
        secrets.append(secret)

    monkeypatch.setattr(Secret, "__init__", remembering)
    return secrets


def is_wiped(secret: Secret) -> bool:
    with pytest.raises(RuntimeError) if secret._wiped else contextlib.nullcontext():
        assert secret.value
    return secret._value == bytes(len(secret._value))


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_the_published_shared_secret(vector: dict[str, bytes]) -> None:
    recipient = Token(vector["skRm"])
    assert recipient.point == vector["pkRm"]
    shared = hpke._shared_secret(recipient.ecdh(vector["enc"]), vector["enc"] + vector["pkRm"])
    assert shared.value == vector["shared_secret"]


def test_the_published_key_schedule() -> None:
    key, nonce = hpke._key_and_nonce(Secret(bytes(bytearray(CFRG["shared_secret"]))), CFRG["info"])
    assert key.value == CFRG["key"]
    assert nonce == CFRG["base_nonce"]


def test_the_published_ciphertext_opens() -> None:
    recipient = Token(CFRG["skRm"])
    opened = hpke.open_with(recipient.ecdh, recipient.point, CFRG["info"], CFRG["enc"] + CFRG["ct"], CFRG["aad"])
    assert opened.value == CFRG["pt"]
    for wrong in ({"info": b"other"}, {"aad": b"Count-1"}, {"pkRm": Token().point}):
        given = CFRG | wrong
        with pytest.raises(NotAuthentic):
            hpke.open_with(recipient.ecdh, given["pkRm"], given["info"], CFRG["enc"] + CFRG["ct"], given["aad"])


@pytest.mark.parametrize("length", [16, 17, 32, 96, 1000])
def test_the_cryptography_package_opens_and_seals_the_same(token: Token, length: int) -> None:
    text = bytes(range(256)) * 4
    sealed = hpke.seal(token.spki, INFO, text[:length])
    assert len(sealed) == length + 65 + 16
    assert SUITE.decrypt(sealed, token.key, INFO) == text[:length]
    sealed = SUITE.encrypt(text[:length], token.key.public_key(), INFO)
    assert hpke.open_with(token.ecdh, token.point, INFO, sealed).value == text[:length]


def test_every_changed_byte_is_refused_and_a_wrong_point_before_the_token_sees_it(token: Token) -> None:
    sealed = hpke.seal(token.spki, INFO, TEXT)
    for at in range(len(sealed)):
        token.asked = 0
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(NotAuthentic):
            hpke.open_with(token.ecdh, token.point, INFO, bytes(changed))
        assert token.asked == (at >= 65)  # a point with one bit changed is off the curve


def test_what_is_too_short_never_reaches_the_token(token: Token) -> None:
    sealed = hpke.seal(token.spki, INFO, bytes(16))
    for length in range(len(sealed)):
        with pytest.raises(NotAuthentic):
            hpke.open_with(token.ecdh, token.point, INFO, sealed[:length])
    assert not token.asked


def test_other_encodings_of_a_point_never_reach_the_token(token: Token) -> None:
    sealed = hpke.seal(token.spki, INFO, TEXT)
    x, y, text = sealed[1:33], sealed[33:65], sealed[65:]
    infinity, off_curve = bytes(65), b"\4" + bytes(64)
    compressed, hybrid = bytes([2 + y[31] % 2]) + x + bytes(32), bytes([6 + y[31] % 2]) + x + y
    for wrong in (
        infinity,
        off_curve,
        compressed,
        hybrid,
        b"\5" + x + y,
        b"\4" + x + bytes(32),
        b"\4" + x + b"\xff" * 32,
    ):
        with pytest.raises(NotAuthentic):
            hpke.open_with(token.ecdh, token.point, INFO, wrong + text)
    assert not token.asked


def test_the_point_itself_is_bound(token: Token) -> None:
    """ECDH gives the same for -P."""
    sealed = hpke.seal(token.spki, INFO, TEXT)
    negative = (2**256 - 2**224 + 2**192 + 2**96 - 1 - int.from_bytes(sealed[33:65], "big")).to_bytes(32, "big")
    with pytest.raises(NotAuthentic):
        hpke.open_with(token.ecdh, token.point, INFO, sealed[:33] + negative + sealed[65:])
    assert token.asked == 1


def test_another_key_does_not_open_it(token: Token) -> None:
    other = Token()
    for ecdh, point in ((other.ecdh, other.point), (other.ecdh, token.point), (token.ecdh, other.point)):
        with pytest.raises(NotAuthentic):
            hpke.open_with(ecdh, point, INFO, hpke.seal(token.spki, INFO, TEXT))


def test_what_the_token_says_passes_through(token: Token) -> None:
    def pulled(point: bytes) -> Secret:
        raise TokenRemoved("the token was removed")

    with pytest.raises(TokenRemoved):
        hpke.open_with(pulled, token.point, INFO, hpke.seal(token.spki, INFO, TEXT))


def test_only_the_plaintext_is_left(token: Token, made: list[Secret]) -> None:
    opened = hpke.open_with(token.ecdh, token.point, INFO, hpke.seal(token.spki, INFO, TEXT))
    assert opened.value == TEXT
    assert len(made) > 5
    assert [secret for secret in made if not is_wiped(secret)] == [opened]


def test_nothing_is_left_of_a_refusal(token: Token, made: list[Secret]) -> None:
    with pytest.raises(NotAuthentic):
        hpke.open_with(token.ecdh, token.point, b"other", hpke.seal(token.spki, INFO, TEXT))
    assert len(made) > 5
    assert all(is_wiped(secret) for secret in made)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()], ids=["P-384", "secp256k1"])
def test_sealing_to_another_kind_of_key_is_misuse(curve: Any) -> None:
    key = ec.generate_private_key(curve).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    with pytest.raises(ValueError):
        hpke.seal(key.public_bytes(serialization.Encoding.DER, form), INFO, TEXT)
    with pytest.raises(ValueError):
        hpke.seal(b"no key", INFO, TEXT)
