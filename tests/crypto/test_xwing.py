"""X-Wing and HPKE with it: against the published vectors, and what does not open.

The published HPKE vectors are of another AEAD, and the KEM's own end with its shared secret, which the package does not
hand out. So HPKE's key schedule is written down here once more, shown to be right by the published one, and used to
seal texts after published encapsulations: only who decapsulates to the published shared secret opens these.
"""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = json.loads((VECTOR_DIRECTORY / "xwing.json").read_text())
KEM = [{name: bytes.fromhex(value) for name, value in vector.items()} for vector in VECTORS["kem"]]
HPKE = {name: bytes.fromhex(value) for name, value in VECTORS["hpke"].items()}
OURS = b"HPKE\x64\x7a\x00\x01\x00\x02"
SEED = bytes(range(32))
PUBLIC = xwing.public_key(SEED)
INFO = b"what is bound"
TEXT = bytes(range(96))


def key_and_nonce(suite: bytes, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """RFC 9180, section 5.1, in base mode."""

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(label: bytes, length: int) -> bytes:
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(secret, labeled + b"\1", "sha256")[:length]

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return expand(b"key", 32), expand(b"base_nonce", 12)


def test_the_published_key_schedule() -> None:
    key, nonce = key_and_nonce(HPKE["suite_id"], HPKE["shared_secret"], HPKE["info"])
    assert (key, nonce) == (HPKE["key"], HPKE["base_nonce"])
    assert ChaCha20Poly1305(key).decrypt(nonce, HPKE["ct"], HPKE["aad"]) == HPKE["pt"]


@pytest.mark.parametrize(
    ("seed", "public", "enc", "shared"),
    [
        *((vector["sk"], vector["pk"], vector["ct"], vector["ss"]) for vector in KEM),
        (HPKE["skRm"], HPKE["pkRm"], HPKE["enc"], HPKE["shared_secret"]),
    ],
    ids=["X-Wing 1", "X-Wing 2", "X-Wing 3", "HPKE"],
)
def test_the_published_keys_and_encapsulations(seed: bytes, public: bytes, enc: bytes, shared: bytes) -> None:
    assert xwing.public_key(seed) == public
    key, nonce = key_and_nonce(OURS, shared, INFO)
    assert xwing.open_with_seed(seed, INFO, enc + AESGCM(key).encrypt(nonce, TEXT, b"")).value == TEXT


@pytest.mark.parametrize("length", [16, 32, 96, 1000])
def test_what_is_sealed_opens(length: int) -> None:
    text = (TEXT * 11)[:length]
    sealed = xwing.seal(PUBLIC, INFO, text)
    assert len(sealed) == xwing.ENC + length + xwing.TAG
    assert xwing.open_with_seed(SEED, INFO, sealed).value == text
    with Secret(bytes(bytearray(SEED))) as seed:
        assert xwing.open_with_seed(seed, INFO, sealed).value == text
        assert seed.value == SEED
    assert xwing.seal(PUBLIC, INFO, text) != sealed


def test_every_changed_byte_another_key_and_another_purpose_are_refused() -> None:
    sealed = xwing.seal(PUBLIC, INFO, TEXT)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(NotAuthentic):
            xwing.open_with_seed(SEED, INFO, bytes(changed))
    for seed, info in ((SEED, b"other"), (bytes(32), INFO)):
        with pytest.raises(NotAuthentic):
            xwing.open_with_seed(seed, info, sealed)


def test_what_is_too_short_or_of_no_point_is_refused() -> None:
    sealed = xwing.seal(PUBLIC, INFO, bytes(16))
    for length in (0, 1, 32, 1088, xwing.ENC, len(sealed) - 17, len(sealed) - 16, len(sealed) - 1):
        with pytest.raises(NotAuthentic):
            xwing.open_with_seed(SEED, INFO, sealed[:length])
    with pytest.raises(NotAuthentic):  # the shared secret of X25519 would be 0
        xwing.open_with_seed(SEED, INFO, sealed[:1088] + bytes(32) + sealed[xwing.ENC :])


@pytest.mark.parametrize(
    "public",
    [b"", PUBLIC[:-1], PUBLIC + b"\0", b"\xff" * 1184 + PUBLIC[1184:], PUBLIC[:1184] + bytes(32)],
    ids=["empty", "short", "long", "no ML-KEM key", "X25519 of low order"],
)
def test_nothing_is_sealed_to_what_is_no_key(public: bytes) -> None:
    with pytest.raises(NotAuthentic):
        xwing.seal(public, INFO, TEXT)


def test_a_seed_of_another_length_is_misuse() -> None:
    for seed in (b"", SEED[:31], SEED + b"\0"):
        with pytest.raises(ValueError):
            xwing.public_key(seed)


def test_only_the_plaintext_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Secret] = []
    init = Secret.__init__

    def remembering(secret: Secret, value: bytes) -> None:
        init(secret, value)
        made.append(secret)

    sealed = xwing.seal(PUBLIC, INFO, TEXT)
    monkeypatch.setattr(Secret, "__init__", remembering)
    opened = xwing.open_with_seed(SEED, INFO, sealed)
    assert [secret for secret in made if not secret._wiped] == [opened]
    assert made[0]._value == bytes(96)  # the expanded seed


def test_the_combiner_is_that_of_the_spec() -> None:
    """draft-connolly-cfrg-xwing-kem-06, section 5.3, from ML-KEM's and X25519's own shared secrets."""
    sealed = xwing.seal(PUBLIC, INFO, TEXT)
    ct_m, ct_x, ct = sealed[:1088], sealed[1088:1120], sealed[1120:]
    expanded = hashlib.shake_256(SEED).digest(96)
    ss_m = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(ct_m)
    ss_x = X25519PrivateKey.from_private_bytes(expanded[64:]).exchange(X25519PublicKey.from_public_bytes(ct_x))
    shared = hashlib.sha3_256(ss_m + ss_x + ct_x + PUBLIC[1184:] + bytes.fromhex("5c2e2f2f5e5c")).digest()
    key, nonce = key_and_nonce(OURS, shared, INFO)
    assert AESGCM(key).decrypt(nonce, ct, b"") == TEXT
