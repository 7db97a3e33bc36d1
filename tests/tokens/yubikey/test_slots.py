"""What is written on a YubiKey and what is not: slots, certificates, the management key, sizes; and fingers."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from yubikit.piv import KEY_TYPE, PIN_POLICY, SLOT, PivSession

from medcrypt_hsm.errors import NotTouched, TokenError, TokenUnfit
from medcrypt_hsm.tokens import P256_HPKE, TokenInfo
from medcrypt_hsm.tokens.access import find_token
from medcrypt_hsm.tokens.check import check_token
from medcrypt_hsm.tokens.yubikey import slots, storage
from medcrypt_hsm.tokens.yubikey.directory import Directory, Entry, Kind, State, encode, newest
from tests.support.ready_yubikey import ANCHOR, AUDIT, KEK, OTHER, PIN, YKMAN, opened, ready, some_key
from tests.support.virtual_yubikey.store import StoredKey
from tests.support.yubikey import FIRMWARES, VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]
SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
KEYSET = bytes(32), bytes(32), bytes(32)
TRIAL = "medcrypt trial kek"
CERTIFICATE_82 = 0x5FC10D


# Slots of others


def slots_of(key: VirtualYubiKey, *slots: int) -> dict[int, StoredKey | None]:
    state = key.state
    return {slot: state.keys.get(slot) for slot in slots}


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


def test_a_key_that_can_no_longer_be_attested_is_not_overwritten(yubikey: YubiKeys) -> None:
    """Before 5.3 the public keys come from attestations alone; without them a slot must not seem to be empty."""
    key = ready(yubikey("4.3.5"))
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    key.stop()
    with key.tampering() as state:
        del state.objects[0x5FFF01]  # F9's certificate
    before = slots_of(key, 0x82)
    key.start()
    with opened(key) as token:
        with pytest.raises(TokenError, match="slot 82"):
            token.sign(AUDIT, b"head")
        assert not token.names()
        with pytest.raises(TokenUnfit, match="lost its attestation certificate"):
            token.make_kek(KEK, P256_HPKE)
    assert slots_of(key, 0x82) == before


def filled(key: VirtualYubiKey, free: int) -> VirtualYubiKey:
    key.stop()
    with key.tampering() as state:
        for slot in range(0x82, 0x96 - free):
            state.keys[slot] = StoredKey(0x11, some_key(), 2, 1, False)
    return key.start()


@pytest.mark.parametrize("firmware", ["4.3.5", "5.4.3"])
def test_too_few_free_slots_are_counted(yubikey: YubiKeys, firmware: str) -> None:
    key = filled(ready(yubikey(firmware)), free=1)
    with opened(key) as token:
        assert not token.profiles()
        assert token.missing(P256_HPKE) == ("free slots: 1 of its 20 retired ones is free, and a vault needs 2",)
        token.make_kek(KEK, P256_HPKE)
        with pytest.raises(TokenUnfit, match="none of the 20 retired slots"):
            token.make_signing_key(AUDIT)
        assert token.names() == [KEK]
        token.destroy(KEK)
        token.make_signing_key(AUDIT)  # in the slot that was ours


def test_a_key_that_somebody_put_over_ours_is_not_used_and_not_destroyed(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    key.stop()
    with key.tampering() as state:
        state.keys[0x82] = StoredKey(0x11, some_key(), 2, 1, True)
    key.start()
    with opened(key) as token:
        assert not token.names()
        with pytest.raises(TokenError, match="slot 82"):
            token.sign(AUDIT, b"head")
        with pytest.raises(TokenError, match="slot 82"):
            token.public_key(AUDIT)
        theirs = slots_of(key, 0x82)
        token.destroy(AUDIT)
        token.make_signing_key(AUDIT)
        assert token.names() == [AUDIT]
    assert slots_of(key, 0x82) == theirs
    assert 0x83 in key.state.keys


@pytest.mark.parametrize("firmware", ["4.3.5", "5.7.4"])
@pytest.mark.parametrize("name", [KEK, TRIAL])
def test_a_forged_directory_brings_nobody_to_a_log_on_slot(yubikey: YubiKeys, firmware: str, name: str) -> None:
    """The management key alone writes one that names 9A's key as a KEK, or as what a trial left: it is none of ours."""
    key = ready(yubikey(firmware))
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    key.stop()
    with key.tampering() as state:
        state.keys[0x9A] = StoredKey(0x11, some_key(), 2, 1, True)
        private = serialization.load_der_private_key(state.keys[0x9A].private, None)
        shown = hashlib.sha256(private.public_key().public_bytes(*SPKI)).digest()
        (ours,) = newest([state.objects.get(place, b"") for place in storage.DIRECTORY]).entries
        forged = Directory(9, (ours, Entry(name, Kind.KEK, 0x9A, State.ACTIVE, shown)))
        state.objects[storage.DIRECTORY[1]] = encode(forged)  # where an odd one belongs
    before = slots_of(key, 0x9A)
    key.start()
    with opened(key) as token:
        assert check_token(token).ok  # which clears up after trials first
        token.destroy(name)
        token.make_kek(name, P256_HPKE)
        token.destroy(name)
        assert token.names() == [AUDIT]  # the directory before counts
    assert slots_of(key, 0x9A) == before


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_destroyed_key_is_gone_and_its_slot_used_again(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    with opened(key) as token:
        for _ in range(25):  # more often than there are slots
            token.make_kek(KEK, P256_HPKE)
            before = slots_of(key, 0x82)[0x82]
            token.destroy(KEK)
            assert slots_of(key, 0x82)[0x82] != before
            assert not token.names()
    used = set(key.state.keys) - {0xF9}
    assert used == (set() if firmware == FIRMWARES[-1] else {0x82})
    assert not key.state.objects.get(CERTIFICATE_82)


def test_other_programs_see_our_keys_by_certificates(yubikey: YubiKeys) -> None:
    key = ready(yubikey("4.3.5"))
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
        public = token.public_key(KEK)
        stored = key.state.objects[CERTIFICATE_82]
        certificate = x509.load_der_x509_certificate(stored[4 : 4 + int.from_bytes(stored[2:4], "big")])
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == KEK
        assert certificate.public_key().public_bytes(*SPKI) == public


# Keys made otherwise than asked, and what somebody changed


@pytest.mark.parametrize("firmware", ["4.3.5", "5.7.4"])
@pytest.mark.parametrize(
    ("pin_policy", "touch", "words"),
    [
        (PIN_POLICY.NEVER, "cached", "its PIN policy is not 'once'"),
        (PIN_POLICY.ALWAYS, "cached", "its PIN policy is not 'once'"),
        (PIN_POLICY.ONCE, "never", "its touch policy is 'never'"),
        (PIN_POLICY.ONCE, "always", "its touch policy is 'always'"),
    ],
)
def test_a_kek_with_other_policies_than_asked_is_not_kept(
    yubikey: YubiKeys, monkeypatch: pytest.MonkeyPatch, firmware: str, pin_policy: PIN_POLICY, touch: str, words: str
) -> None:
    """A card that makes what it likes; the key's owner asked for a finger, cached."""
    key = ready(yubikey(firmware))
    generate = slots.generate

    def otherwise(session: PivSession, slot: int, asked: str) -> None:
        if asked == "cached":
            session.generate_key(SLOT(slot), KEY_TYPE.ECCP256, pin_policy, slots.TOUCH[touch])
        else:  # the key that overwrites it
            generate(session, slot, asked)

    with opened(key) as token:
        with monkeypatch.context() as making:
            making.setattr(slots, "generate", otherwise)
            with pytest.raises(TokenUnfit, match=f"otherwise than asked: {words}$"):
                token.make_kek(KEK, P256_HPKE, touch="cached")
        assert not token.names()
        token.make_kek(KEK, P256_HPKE, touch="cached")
        assert token.names() == [KEK]
    assert set(key.state.keys) == {0x82, 0xF9}  # the slot is used again


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


@pytest.mark.parametrize("at", [0, 4, 7, 8, 12, -33, -32, -1])  # magic, counter, value, digest
def test_a_torn_version_of_an_object_does_not_count(yubikey: YubiKeys, at: int) -> None:
    """The newest is damaged or cut off there, and the one before, not emptied yet, is what the object is."""
    older, newest = storage.FIRST_OBJECT + 1, storage.FIRST_OBJECT
    key = ready(yubikey())
    with opened(key) as token:
        token.put_object(ANCHOR, b"the one before")
        before = key.state.objects[older]
        token.put_object(ANCHOR, b"the newest")
        whole = key.state.objects[newest]
        token._session.put_object(older, before)
        assert token.read_objects(ANCHOR) == (b"the newest", b"the one before")
        damaged = bytearray(whole)
        damaged[at] ^= 1
        foreign = b"MCO\x02" + whole[4:-32]  # a later program's, and in itself whole
        for torn in (bytes(damaged), whole[:at], foreign + hashlib.sha256(foreign).digest()):
            token._session.put_object(newest, torn)
            assert token.read_objects(ANCHOR) == (b"the one before",)
        token.put_object(ANCHOR, b"another")
        assert token.read_objects(ANCHOR) == (b"another",)


# Management key and sizes


def test_a_management_key_that_is_not_kept_behind_the_pin(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    ykman = [YKMAN, "piv", "access", "change-management-key", "-P", PIN, "-f"]
    new = "00" * 8 + "11" * 24
    subprocess.run([*ykman, "-a", "AES256", "-n", new], check=True)
    with opened(key) as token:
        assert len(token.sign(AUDIT, b"head")) == 64  # nothing is written
        with pytest.raises(TokenUnfit, match="not kept on it") as refused:
            token.make_kek(KEK, P256_HPKE)
        assert "ykman --device 12345678 piv access change-management-key --generate --protect" in refused.value.hint
    subprocess.run([*ykman, "-m", new, "--generate", "--protect"], check=True, capture_output=True)
    with opened(key) as token:  # as ykman keeps it
        token.make_kek(KEK, P256_HPKE)


def test_a_management_key_that_waits_for_a_finger(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    command = [YKMAN, "piv", "access", "change-management-key", "--generate", "--protect", "--touch", "-P", PIN, "-f"]
    subprocess.run(command, check=True)
    touch = Watched()
    key.finger(None)
    with opened(key, touch=touch) as token:
        with pytest.raises(NotTouched, match="giving its management key"):
            token.make_kek(KEK, P256_HPKE)
        key.finger()
        token.make_kek(KEK, P256_HPKE)
        token.make_signing_key(AUDIT)  # it was given already
    assert touch.asked == 2


def test_objects_that_are_too_large(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.put_object(ANCHOR, b"x" * 2960)
        with pytest.raises(TokenUnfit, match="keeps 3000 in one object"):
            token.put_object(ANCHOR, b"x" * 2961)
        assert list(token.read_objects(ANCHOR)) == [b"x" * 2960]
        for number in range(15):  # 16 of 3,000 bytes, a directory, certificates: the card has room for 51,200
            token.put_object(f"medcrypt large {number}", b"x" * 2960)
        with pytest.raises(TokenUnfit, match="is full"):
            token.put_object("medcrypt too many", b"x" * 2960)


# Fingers


class Watched:
    """A ``Touch`` that counts."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, info: TokenInfo) -> AbstractContextManager[object]:
        return self._entered()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        self.asked += 1
        yield


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_finger_is_asked_for_only_where_it_is_needed(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    touch = Watched()
    with opened(key, touch=touch) as token:
        token.make_kek(KEK, P256_HPKE, touch="always")
        token.make_signing_key(AUDIT)
        wrapped = token.wrap_keyset(KEK, KEYSET, b"info")
        token.sign(AUDIT, b"head")
        token.evidence(KEK)
        token.attestation(KEK)
        assert touch.asked == 0
        token.unwrap_keyset(KEK, wrapped, b"info")
        assert (touch.asked, key.touches()) == (1, 1)
        token.destroy(KEK)  # and none to destroy it
        assert (touch.asked, key.touches()) == (1, 1)


def test_a_finger_that_does_not_come(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    touch = Watched()
    with opened(key, touch=touch) as token:
        token.make_kek(KEK, P256_HPKE, touch="cached")
        wrapped = token.wrap_keyset(KEK, KEYSET, b"info")
        key.finger(None)
        with pytest.raises(NotTouched, match="not touched in time while unwrapping"):
            token.unwrap_keyset(KEK, wrapped, b"info")
        key.finger(0.2)
        token.unwrap_keyset(KEK, wrapped, b"info")
    assert find_token(key.uri).pin_tries == 5
    assert touch.asked == 2


def test_other_threads_run_while_a_finger_is_awaited(yubikey: YubiKeys) -> None:
    """Or no countdown could be shown."""
    import threading

    key = ready(yubikey())
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE, touch="always")
        wrapped = token.wrap_keyset(KEK, KEYSET, b"info")
        key.finger(0.5)
        ticks: list[float] = []
        done = threading.Event()

        def tick() -> None:
            while not done.wait(0.02):
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        thread.start()
        token.unwrap_keyset(KEK, wrapped, b"info")
        done.set()
        thread.join()
    assert len(ticks) > 10


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_card_that_only_claims_to_destroy_is_found_out(
    yubikey: YubiKeys, monkeypatch: pytest.MonkeyPatch, firmware: str
) -> None:
    """The card is told nothing, and then all it shows of the slot is believed, or nothing is shown."""
    key = ready(yubikey(firmware))
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
        for claim in (slots.read_key, lambda session, slot: None):
            with monkeypatch.context() as lying:
                lying.setattr(slots, "destroy", claim)
                with pytest.raises(TokenError, match="still uses"):
                    token.destroy(KEK)
        token._contents._keys.clear()
        assert token.names() == [KEK]
        token.destroy(KEK)
        assert not token.names()
