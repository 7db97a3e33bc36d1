"""What is written into slots and what is not: keys of others, certificates, and what somebody changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.yubikey import slots
from tests.support.ready_yubikey import ANCHOR, AUDIT, KEK, OTHER, opened, ready, some_key
from tests.support.virtual_yubikey.store import StoredKey
from tests.support.yubikey import FIRMWARES, YubiKeys

SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
KEYSET = bytes(32), bytes(32), bytes(32)
CERTIFICATE_82 = 0x5FC10D


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_log_on_slots_and_slots_of_others_are_not_touched(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    theirs = {0x9A: True, 0x9C: True, 0x9D: True, 0x9E: True, 0x82: False, 0x84: True}
    key.stop()
    with key.tampering() as state:
        made = some_key()
        for slot, generated in theirs.items():
            state.keys[slot] = StoredKey(0x11, made, 2, 1, generated)
        state.objects[0x5FC105] = state.objects[0x5FC10E] = b"\x70\x01\x00\x71\x01\x00\xfe\x00"  # 9A's and 83's
        before = (dict(state.keys), dict(state.objects))
    key.start()
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
        token.make_signing_key(AUDIT)
        token.put_object(ANCHOR, b"value")
        with token.trial() as trial:
            trial.make_kek("medcrypt trial kek", P256_HPKE)
        token.destroy(KEK)
        token.make_kek(OTHER, P256_HPKE)
    state = key.state
    for slot in (*theirs, 0x83, 0xF9):
        assert state.keys.get(slot) == before[0].get(slot), f"{slot:02X}"
    for object_id in (0x5FC105, 0x5FC10E, 0x5FFF01):
        assert state.objects.get(object_id) == before[1].get(object_id)
    used = set(state.keys) - set(before[0])
    assert used <= set(range(0x82, 0x96))
    assert {0x85, 0x86} <= used


def test_other_programs_see_our_keys_by_certificates(yubikey: YubiKeys) -> None:
    key = ready(yubikey("4.3.5"))
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
        public = token.public_key(KEK)
        stored = key.state.objects[CERTIFICATE_82]
        certificate = x509.load_der_x509_certificate(stored[4 : 4 + int.from_bytes(stored[2:4], "big")])
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == KEK
        assert certificate.public_key().public_bytes(*SPKI) == public


# What somebody changed


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pin_policy": 1}, "its PIN policy is not 'once'"),
        ({"touch_policy": 2}, "it waits for a finger at every use"),
        ({"generated": False}, "it was not made on the device"),
    ],
)
def test_evidence_tells_what_is_wrong_with_an_audit_key(yubikey: YubiKeys, changed: dict[str, int], words: str) -> None:
    key = ready(yubikey("5.7.4"))
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        assert not token.evidence(AUDIT).problems
    key.stop()
    with key.tampering() as state:
        state.keys[0x82] = replace(state.keys[0x82], **changed)
    key.start()
    with opened(key) as token:
        assert token.evidence(AUDIT).problems == (words,)


@pytest.mark.parametrize("firmware", ["4.3.5", "5.7.4"])
@pytest.mark.parametrize("theirs", ["of another name", "unreadable"])
def test_a_certificate_that_somebody_put_over_ours_stays(yubikey: YubiKeys, firmware: str, theirs: str) -> None:
    key = ready(yubikey(firmware))
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
        if theirs == "unreadable":
            token._session.put_object(CERTIFICATE_82, b"\x70\x01\x00\x71\x01\x00\xfe\x00")
        else:
            slots.put_certificate(token._session, 0x82, "Example Hospital", token.public_key(KEK))
        before = key.state.objects[CERTIFICATE_82]
        token.destroy(KEK)
        assert not token.names()
    assert key.state.objects[CERTIFICATE_82] == before


# Fingers
