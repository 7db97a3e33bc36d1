"""One vector, one fault, one expected error: tests/vectors/wire-faults.json."""

from __future__ import annotations

import json

import pytest

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.wire.pairing import PairingPayload
from tests.support.checkout import VECTOR_DIRECTORY

FAULTS = json.loads((VECTOR_DIRECTORY / "wire-faults.json").read_text("utf-8"))["faults"]


@pytest.mark.parametrize("vector", FAULTS, ids=lambda vector: f"{vector['format']}: {vector['fault']}")
def test_fault_is_named(vector: dict[str, str]) -> None:
    read = PairingPayload.parse if vector["format"] == "payload" else wire.parse
    with pytest.raises(Malformed) as caught:
        read(vector["text"])
    assert vector["error"] in caught.value.message


@pytest.mark.parametrize("vector", FAULTS, ids=lambda vector: f"{vector['format']}: {vector['fault']}")
def test_find_reports_what_parse_refuses(vector: dict[str, str]) -> None:
    """In a whole chat the same fault stays in its place; only text around a message is no fault there."""
    found = wire.find(vector["text"])
    if vector["error"] == "more in this text":
        assert any(not isinstance(item, wire.Bad) for item in found)
    elif vector["error"] == "no MedCrypt message" or vector["format"] == "payload":
        assert found == []
    else:
        (bad,) = found
        assert isinstance(bad, wire.Bad)
        assert (bad.number, bad.offset) == (1, 0)
        assert vector["error"] in bad.error.message
