"""What of ours is on a YubiKey by name: free slots, keys of others, a forged directory, proof that a key is gone."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from yubikit.piv import KEY_TYPE, PIN_POLICY, SLOT, PivSession

from medcrypt_hsm.errors import TokenError, TokenUnfit
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.check import check_token
from medcrypt_hsm.tokens.yubikey import slots, storage
from medcrypt_hsm.tokens.yubikey.directory import Directory, Entry, Kind, State, encode, newest
from tests.support.ready_yubikey import AUDIT, KEK, opened, ready, some_key
from tests.support.virtual_yubikey.store import StoredKey
from tests.support.yubikey import FIRMWARES, VirtualYubiKey, YubiKeys

SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


TRIAL = "medcrypt trial kek"


CERTIFICATE_82 = 0x5FC10D


def slots_of(key: VirtualYubiKey, *slots: int) -> dict[int, StoredKey | None]:
    state = key.state
    return {slot: state.keys.get(slot) for slot in slots}


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
