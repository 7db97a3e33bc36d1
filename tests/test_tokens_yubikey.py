"""What only a YubiKey can show: serials, other programs, cards that come and go, slots of others, fingers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from medcrypt_hsm.errors import (
    LastTry,
    NotTouched,
    PinLocked,
    TokenAbsent,
    TokenError,
    TokenHeld,
    TokenRemoved,
    TokenUnfit,
    UsageError,
    WrongPin,
)
from medcrypt_hsm.tokens import P256_HPKE, TokenInfo, find_token, list_tokens, open_token
from medcrypt_hsm.tokens.stored import same_token, stored_uri
from medcrypt_hsm.tokens.yubikey import discovery, slots
from tests.support_pcscd import Pcscd
from tests.support_ready import (
    ANCHOR,
    AUDIT,
    KEK,
    OTHER,
    PIN,
    SELECT_PIV,
    WRONG,
    YKMAN,
    OtherProgram,
    never,
    opened,
    pin,
    ready,
    some_key,
)
from tests.support_yubikey import FIRMWARES, VirtualYubiKey
from tests.virtual_yubikey.store import StoredKey

YubiKeys = Callable[..., VirtualYubiKey]
KEYSET = bytes(32), bytes(32), bytes(32)
VERIFY = 0x20
BY_PUK = "with the PUK: 'medcrypt token pin yubikey:12345678 --unblock'"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that somebody keeps is not waited for."""
    monkeypatch.setattr(discovery, "PATIENCE", 0.0)


# Names


@pytest.mark.parametrize("uri", ["yubikey:", "yubikey:doctor", "yubikey:12 34", "yubikey:٣", "yubikey:12345678901"])
def test_other_names_are_refused(uri: str) -> None:
    for call in (find_token, lambda uri: open_token(uri, never)):
        with pytest.raises(UsageError, match="serial number"):
            call(uri)


def test_a_stored_uri_is_the_one_a_person_means() -> None:
    assert same_token("yubikey:0123", "yubikey:123")
    assert not same_token("yubikey:124", "yubikey:123")
    assert not same_token("yubikey:x", "yubikey:x")
    assert not same_token("yubikey:1", "pkcs11:serial=1")
    assert not same_token("pkcs11:serial=1", "yubikey:1")
    assert stored_uri("yubikey:123") == "yubikey:123"


# What it says of itself


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_it_says_what_it_is(yubikey: YubiKeys, firmware: str) -> None:
    key = yubikey(firmware)
    blank = find_token(key.uri, blank=True)
    assert (blank.initialized, blank.user_pin_set, blank.pin_tries) == (False, False, 3)
    for call in (find_token, lambda uri: open_token(uri, never)):
        with pytest.raises(TokenUnfit, match="factory PIN") as refused:
            call(key.uri)
        assert f"medcrypt token init {key.uri}" in refused.value.hint
    ready(key)
    info = find_token(key.uri)
    assert (info.uri, info.serial, info.firmware) == (key.uri, str(key.serial), firmware)
    assert (info.initialized, info.user_pin_set, info.pin_tries, info.pin_flags) == (True, True, 5, frozenset())
    assert info.manufacturer == "Yubico"
    assert "YubiKey" in info.model
    assert info.unblocked_by == "puk"
    assert info in list_tokens()


def test_looking_sends_no_pin(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    key.log()
    find_token(key.uri)
    discovery.list_infos()
    assert VERIFY not in [entry["ins"] for entry in key.log()]


def test_a_firmware_without_attestation_is_refused_with_the_reason(yubikey: YubiKeys) -> None:
    key = yubikey("4.2.8")
    with pytest.raises(TokenUnfit, match=r"firmware 4\.2\.8: without attestation"):
        open_token(key.uri, never)
    assert [info.problem for info in list_tokens() if info.firmware] == [find_token_problem(key)]


def find_token_problem(key: VirtualYubiKey) -> str:
    return discovery.find(key.serial).problem


def test_nobody_is_told_of_yubikeys_without_a_service(pcscd: Pcscd) -> None:
    pcscd.stop()
    assert not [info for info in list_tokens() if info.manufacturer == "Yubico"]
    with pytest.raises(TokenAbsent, match="not running") as refused:
        open_token("yubikey:1", never)
    assert "pcscd" in refused.value.hint


def test_an_empty_reader_is_no_key(pcscd: Pcscd) -> None:
    assert not discovery.list_infos()
    with pytest.raises(TokenAbsent, match="no YubiKey 1 is plugged in"):
        find_token("yubikey:1")


def test_two_are_told_apart_by_their_serials(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    pcscd.stop()
    pcscd.start(readers=2)
    keys = [ready(yubikey()), ready(yubikey("5.7.4"))]
    assert [info.uri for info in discovery.list_infos()] == [key.uri for key in keys]
    with opened(keys[0]) as first, opened(keys[1]) as second:
        first.make_kek(KEK, P256_HPKE)
        second.make_signing_key(AUDIT)
        assert (first.names(), second.names()) == ([KEK], [AUDIT])
        assert [info.uri for info in discovery.list_infos()] == [key.uri for key in keys]  # open ones too
        with pytest.raises(TokenError, match="already open"):
            opened(keys[0])
        assert find_token(keys[1].uri) == second.info


# PIN


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_wrong_pin_is_sent_once_and_counted(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    key.log()
    with pytest.raises(WrongPin) as wrong:
        open_token(key.uri, lambda _: WRONG)
    assert wrong.value.tries_left == 4
    assert [entry["sw"] for entry in key.log() if entry["ins"] == VERIFY].count(0x63C4) == 1
    assert find_token(key.uri).pin_tries == 4
    for left in (3, 2, 1):
        with pytest.raises(WrongPin) as wrong:
            open_token(key.uri, lambda _: WRONG)
        assert wrong.value.tries_left == left
    assert "final-try" in find_token(key.uri).pin_flags
    with pytest.raises(LastTry):
        open_token(key.uri, never)
    with pytest.raises(PinLocked, match="last try") as locked:
        open_token(key.uri, lambda _: WRONG, last_try=True)
    assert BY_PUK in locked.value.hint
    with pytest.raises(PinLocked) as locked:
        open_token(key.uri, never, last_try=True)
    assert BY_PUK in locked.value.hint


@pytest.mark.parametrize("text", ["1", "54321", "987654321", "é" * 5])
def test_what_cannot_be_a_pin_costs_no_try(yubikey: YubiKeys, text: str) -> None:
    key = ready(yubikey())
    with pytest.raises(WrongPin, match="cannot be the PIN") as wrong:
        open_token(key.uri, lambda _: text)
    assert text == "1" or text not in wrong.value.message + wrong.value.hint
    assert find_token(key.uri).pin_tries == 5


def test_the_pin_is_asked_for_while_nobody_holds_the_card(yubikey: YubiKeys) -> None:
    key = ready(yubikey())

    def ask(info: TokenInfo) -> str:
        with OtherProgram(key):
            return PIN

    open_token(key.uri, ask).close()


def test_the_pin_does_not_go_to_another_card(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    key.pull()

    def exchange(info: TokenInfo) -> str:
        key.stop()
        with key.tampering() as state:
            state.serial += 1
        key.start()
        return PIN

    key.insert()
    with pytest.raises(TokenAbsent):
        open_token(key.uri, exchange)
    assert not [entry for entry in key.log() if entry["ins"] == VERIFY]


def test_the_last_try_is_looked_at_again_behind_the_prompt(yubikey: YubiKeys) -> None:
    key = ready(yubikey())

    def meanwhile(info: TokenInfo) -> str:
        for _ in range(4):
            with pytest.raises(WrongPin):
                open_token(key.uri, lambda _: WRONG)
        return PIN

    with pytest.raises(LastTry):
        open_token(key.uri, meanwhile)


# Other programs


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_a_card_that_another_program_holds_is_named(yubikey: YubiKeys, mode: str) -> None:
    key = ready(yubikey())
    with OtherProgram(key, mode) as other:
        with pytest.raises(TokenHeld, match=rf"{key.reader_name}.*python\S* {other.id}\b.*YubiKey 12345678") as held:
            open_token(key.uri, never)
        assert "close that program" in held.value.hint
        problems = [info.problem for info in discovery.list_infos()]
        assert str(other.id) in problems[0]
        assert other.send(SELECT_PIV).endswith("9000")  # and goes on undisturbed
    open_token(key.uri, pin).close()


def test_a_card_that_is_held_for_a_moment_is_waited_for(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    command = "from tests.support_ready import *; import sys; open_yubikey(int(sys.argv[1]), pin, last_try=False, "
    command += "touch=no_touch).close()"
    both = [subprocess.Popen([sys.executable, "-c", command, str(key.serial)]) for _ in range(4)]
    assert [process.wait(30) for process in both] == [0] * 4


@pytest.mark.parametrize("ending", ["left", "killed"])
def test_no_other_program_inherits_the_pin(yubikey: YubiKeys, ending: str) -> None:
    """Against this, a program that leaves the card as it is: the next one can sign."""
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    if ending == "left":
        with opened(key) as token:
            token.sign(AUDIT, b"head")
    else:
        program = "from tests.support_ready import *; import sys, time; key = open_yubikey(int(sys.argv[1]), pin, "
        program += (
            "last_try=False, touch=no_touch); key.sign(AUDIT, b'head'); print('open', flush=True); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", program, str(key.serial)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    sign = bytes.fromhex("00871182267c24 8200 8120".replace(" ", "")) + bytes(32)
    with OtherProgram(key, select=False) as other:
        assert not other.send(sign).endswith("9000")
        other.send(SELECT_PIV)
        assert other.send(sign) == "6982"
        verify = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
        assert other.send(verify) == "9000"
        assert other.send(sign).endswith("9000")  # the same command, once the PIN is given


def test_what_is_in_this_program_does_not_stand_in_the_way(yubikey: YubiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PKCS#11 module that knows smart cards takes every reader when it is loaded."""
    opensc = str(next(Path("/usr/lib").glob("*/opensc-pkcs11.so")))  # Debian: opensc-pkcs11
    key = ready(yubikey())
    assert [info for info in list_tokens([opensc]) if info.uri.startswith("pkcs11:")]
    open_token(key.uri, pin).close()


# Coming and going


def test_a_pulled_key_is_removed_and_found_again(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        key.pull()
        with pytest.raises(TokenRemoved, match="removed while looking for a key"):
            token.sign(AUDIT, b"head")
        with pytest.raises(TokenRemoved):
            token.names()
        with pytest.raises(TokenAbsent):
            open_token(key.uri, never)
        key.insert()
        with pytest.raises(TokenRemoved):  # the PIN is not given to it again
            token.names()
        with opened(key) as again:
            assert again.names() == [AUDIT]


@pytest.mark.parametrize("executed", [False, True])
def test_a_key_that_is_pulled_during_a_command(yubikey: YubiKeys, executed: bool) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        token.public_key(AUDIT)
        key.pull_at(1, executed=executed)
        with pytest.raises(TokenRemoved, match="removed while signing"):
            token.sign(AUDIT, b"head")
    key.insert()


def test_a_reset_by_somebody_else_ends_the_session(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        key.insert()  # out and in again, unnoticed
        with pytest.raises(TokenRemoved):
            token.names()


def test_the_service_is_stopped_and_started_again(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        pcscd.stop()
        with pytest.raises(TokenAbsent, match="was stopped"):
            token.sign(AUDIT, b"head")
    with pytest.raises(TokenAbsent, match="not running"):
        open_token(key.uri, never)
    pcscd.start()
    key.insert()
    with opened(key) as token:
        assert token.names() == [AUDIT]


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
    assert not key.state.objects.get(0x5FC10D)


def test_other_programs_see_our_keys_by_certificates(yubikey: YubiKeys) -> None:
    key = ready(yubikey("4.3.5"))
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
        public = token.public_key(KEK)
        stored = key.state.objects[0x5FC10D]
        certificate = x509.load_der_x509_certificate(stored[4 : 4 + int.from_bytes(stored[2:4], "big")])
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == KEK
        assert public.endswith(certificate.public_key().public_bytes(*POINT))  # type: ignore[union-attr,arg-type]


def _point() -> tuple[object, object]:
    from cryptography.hazmat.primitives import serialization

    return serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint


POINT = _point()


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
        token._keys.clear()
        assert token.names() == [KEK]
        token.destroy(KEK)
        assert not token.names()
