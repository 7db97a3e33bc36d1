"""Version 1 is what the reference program writes and reads: tests/vectors/medcrypt-v1.json."""

from __future__ import annotations

import base64
import json
from functools import cache

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.wire import v1
from medcrypt_hsm.month import Month
from tests.support.checkout import VECTOR_DIRECTORY

MESSAGES = json.loads((VECTOR_DIRECTORY / "medcrypt-v1.json").read_text("utf-8"))["messages"]


@cache  # 600,000 rounds each; the vectors share a handful of keys
def month_key(secret: str, month: str) -> bytes:
    return v1.month_key(secret, Month.parse(month))


@pytest.mark.parametrize("vector", MESSAGES)
def test_reference_message_is_read(vector: dict[str, str]) -> None:
    message = wire.parse(vector["wire"])
    assert isinstance(message, wire.MessageV1)
    assert message.patient_id == vector["patient_id"]
    key = month_key(vector["secret"], vector["month"])
    assert key.hex() == vector["message_key_hex"]
    assert AESGCM(key).decrypt(message.nonce, message.sealed, message.aad).decode() == vector["plaintext"]


@pytest.mark.parametrize("vector", MESSAGES)
def test_reference_message_is_written(vector: dict[str, str]) -> None:
    message = v1.parse(vector["wire"])
    assert message.text == vector["wire"]
    sealed = AESGCM(bytes.fromhex(vector["message_key_hex"])).encrypt(
        message.nonce, vector["plaintext"].encode(), vector["patient_id"].encode()
    )
    assert v1.encode(vector["patient_id"], message.nonce, sealed) == vector["wire"]


def test_secret_may_be_bytes() -> None:
    month = Month.parse("2026-03")
    assert v1.month_key("eñe".encode(), month) == v1.month_key("eñe", month)


@pytest.mark.parametrize(
    "patient_id", ["x", "x" * 128, "ñ" * 64, "EXP:con:dos:puntos:9", "🩺", "a b", "\u00a0", "\ufffd"]
)
def test_patient_id_travels(patient_id: str) -> None:
    text = v1.encode(patient_id, bytes(12), bytes(16))
    message = v1.parse(text)
    assert message.patient_id == patient_id
    assert message.aad == patient_id.encode()


@pytest.mark.parametrize("patient_id", ["", "x" * 129, "ñ" * 65, "a\nb", "a\x00", "a\x7f", "a\x80", "a\x9f", "a\ud800"])
def test_patient_id_that_cannot_travel(patient_id: str) -> None:
    with pytest.raises(UsageError, match="patient id") as caught:
        v1.encode(patient_id, bytes(12), bytes(16))
    # Neither the error nor what led to it repeats the id.
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("nonce", "sealed"), [(bytes(11), bytes(16)), (bytes(12), bytes(15))])
def test_wrong_lengths_are_misuse(nonce: bytes, sealed: bytes) -> None:
    with pytest.raises(ValueError, match="a nonce is"):
        v1.encode("EXP-1", nonce, sealed)


def test_base64_agrees_with_the_standard_library() -> None:
    fields = v1.encode("EXP-1", b"n" * 12, b"c" * 5 + b"t" * 16)[1:-1].split(":")[2:]
    assert [base64.b64decode(field, validate=True) for field in fields] == [b"EXP-1", b"n" * 12, b"c" * 5, b"t" * 16]
