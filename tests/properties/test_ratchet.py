"""The key schedule against its vectors, against the patient's program, and HMAC against the RFCs."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.ratchet import ChainKey, check_code, derive_message_key, step_chain
from medcrypt_hsm.vault.seen import SeenKey
from scripts.standalone import patient
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = json.loads((VECTOR_DIRECTORY / "chain-v2.json").read_text())
PAIRING = bytes.fromhex(VECTORS["pairing_hex"])

keys = st.binary(min_size=32, max_size=32)
pairings = st.binary(min_size=8, max_size=8)
months = st.integers(0, 1198).map(Month)


def secret(key: bytes) -> Secret:
    """A copy of its own: a ``Secret`` wipes what it was given."""
    return Secret(bytes(bytearray(key)))


class HostMac:
    """HMAC in host memory, in the place of a token's."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def mac(self, data: bytes) -> bytes:
        return hmac.digest(self.key, data, "sha256")

    def destroy(self) -> None: ...


def theirs(month: Month) -> patient.Month:
    return patient.Month.parse(str(month))


@pytest.mark.parametrize("at", range(len(VECTORS["months"])))
def test_message_key_vector(at: int) -> None:
    vector = VECTORS["months"][at]
    chain_key = secret(bytes.fromhex(vector["chain_key_hex"]))
    derived = derive_message_key(chain_key, PAIRING, Month.parse(vector["month"]))
    assert derived.value.hex() == vector["message_key_hex"]


@pytest.mark.parametrize("at", range(len(VECTORS["months"]) - 1))
def test_step_vector_on_the_host_and_through_a_handle(at: int) -> None:
    before, after = VECTORS["months"][at : at + 2]
    key, month = bytes.fromhex(before["chain_key_hex"]), Month.parse(after["month"])
    assert step_chain(secret(key), PAIRING, month).value.hex() == after["chain_key_hex"]
    assert ChainKey(HostMac(key), PAIRING).step(month).value.hex() == after["chain_key_hex"]


def test_check_code_vector() -> None:
    assert check_code(secret(bytes.fromhex(VECTORS["secret_hex"])), PAIRING) == VECTORS["check_code"]


def test_expand_of_rfc_5869_appendix_a_1() -> None:
    """Its first 32 bytes are the one HMAC that a token computes: T(1)."""
    vector = VECTORS["rfc5869"]
    first = HostMac(bytes.fromhex(vector["prk_hex"])).mac(bytes.fromhex(vector["info_hex"]) + b"\x01")
    assert first.hex() == vector["okm_hex"][:64]
    whole = patient.hkdf_expand(bytes.fromhex(vector["prk_hex"]), bytes.fromhex(vector["info_hex"]), vector["length"])
    assert whole.hex() == vector["okm_hex"]


@given(keys, pairings, months)
def test_the_patients_program_agrees(key: bytes, pairing: bytes, month: Month) -> None:
    assert derive_message_key(secret(key), pairing, month).value == patient.message_key(key, pairing, theirs(month))
    assert step_chain(secret(key), pairing, month).value == patient.next_chain(key, pairing, theirs(month))
    assert ChainKey(HostMac(key), pairing).step(month).value == patient.next_chain(key, pairing, theirs(month))
    assert check_code(secret(key), pairing) == patient.check_code(key, pairing)


@given(keys, pairings, months, st.integers(1, 30))
def test_a_chain_of_any_length_agrees(key: bytes, pairing: bytes, month: Month, steps: int) -> None:
    assume(month.ordinal + steps < 1200)
    ours, phone = secret(key), key
    for ordinal in range(month.ordinal + 1, month.ordinal + steps + 1):
        ours = step_chain(ours, pairing, Month(ordinal))
        phone = patient.next_chain(phone, pairing, patient.Month(ordinal))
    assert ours.value == phone


@given(keys, pairings, pairings, months, months)
def test_keys_of_different_things_differ(key: bytes, one: bytes, other: bytes, month: Month, later: Month) -> None:
    assume(one != other and month != later)
    derived = {
        key,
        derive_message_key(secret(key), one, month).value,
        derive_message_key(secret(key), other, month).value,
        derive_message_key(secret(key), one, later).value,
        step_chain(secret(key), one, month).value,
        step_chain(secret(key), other, month).value,
        step_chain(secret(key), one, later).value,
    }
    assert len(derived) == 7


@given(keys, pairings)
def test_check_codes_have_six_digits(key: bytes, pairing: bytes) -> None:
    code = check_code(secret(key), pairing)
    assert len(code) == 6
    assert code.isdigit()


# RFC 4231, cases 1 to 7: key, data, HMAC-SHA-256. Of case 5 the RFC gives the first 128 bits, as much as mac16 gives.
RFC_4231 = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b"),
    (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c7"),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a7"),
    (bytes(range(1, 26)), b"\xcd" * 50, "82558a389a443c0ea4cc819899f2083a"),
    (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b"),
    (b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First", "60e431591ee0b67f0d8a26aacbf5b77f"),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be "
        b"hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944",
    ),
]


@pytest.mark.parametrize(("key", "data", "expected"), RFC_4231)
def test_mac16_is_rfc_4231(key: bytes, data: bytes, expected: str) -> None:
    assert [mac.hex() for mac in SeenKey(key).mac16(b"", [data])] == [expected]


@given(keys, st.binary(min_size=12, max_size=12), st.text(st.characters(exclude_categories=["Cs"])))
def test_seen_rows_are_those_of_the_spec(key: bytes, nonce: bytes, text: str) -> None:
    def mac(*parts: str | bytes) -> bytes:
        return hmac.new(key, patient.ctx(*parts), hashlib.sha256).digest()[:16]

    seen = SeenKey(key)
    assert seen.nonces([nonce]) == [mac("medcrypt/seen/nonce", nonce)]
    assert seen.read([text]) == [mac("medcrypt/seen/read", text)]
    assert seen.sent([text]) == [mac("medcrypt/seen/sent", text)]
    assert seen.read([text, text]) == seen.read([text]) * 2 != seen.sent([text]) * 2
