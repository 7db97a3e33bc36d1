"""AES-256-GCM over buffers, against Project Wycheproof's vectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medcrypt_hsm.crypto.gcm import TAG_BYTES, Gcm
from medcrypt_hsm.errors import NotAuthentic
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = json.loads((VECTOR_DIRECTORY / "wycheproof" / "aes-gcm-256.json").read_text())["tests"]


def octets(vector: dict[str, Any], *members: str) -> list[bytes]:
    return [bytes.fromhex(vector[member]) for member in members]


@pytest.mark.parametrize(
    "vector", [one for one in VECTORS if one["result"] == "valid"], ids=lambda vector: vector["tcId"]
)
def test_valid(vector: dict[str, Any]) -> None:
    key, nonce, aad, text, sealed = octets(vector, "key", "iv", "aad", "msg", "ct")
    sealed += bytes.fromhex(vector["tag"])
    gcm, into = Gcm(key), bytearray(len(text) + TAG_BYTES)
    assert gcm.seal_into(nonce, memoryview(text), aad, memoryview(into)) == len(text) + TAG_BYTES
    assert into == sealed
    back = bytearray(len(text))
    assert gcm.open_into(nonce, memoryview(sealed), aad, memoryview(back)) == len(text)
    assert back == text
    assert gcm.is_authentic(nonce, memoryview(sealed), aad)


@pytest.mark.parametrize(
    "vector", [one for one in VECTORS if one["result"] == "invalid"], ids=lambda vector: vector["tcId"]
)
def test_invalid(vector: dict[str, Any]) -> None:
    key, nonce, aad, sealed, tag = octets(vector, "key", "iv", "aad", "ct", "tag")
    gcm, into = Gcm(key), bytearray(len(sealed))
    with pytest.raises(NotAuthentic, match="the text was altered, or its key is another"):
        gcm.open_into(nonce, memoryview(sealed + tag), aad, memoryview(into))
    assert not gcm.is_authentic(nonce, memoryview(sealed + tag), aad)
