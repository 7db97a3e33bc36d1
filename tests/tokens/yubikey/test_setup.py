"""Factory state to ready, PIN changed, PIN unblocked by the PUK. ykman is the witness."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable

import pytest

from medcrypt_hsm.errors import (
    LastTry,
    PinLocked,
    PinNeeded,
    TokenAbsent,
    TokenError,
    TokenUnfit,
    UsageError,
    WrongPin,
)
from medcrypt_hsm.tokens import P256_HPKE
from medcrypt_hsm.tokens.access import find_token, open_token
from medcrypt_hsm.tokens.provision import begin, change_pin, initialize, unblock
from tests.support.ready_yubikey import AUDIT, KEK, PIN, PUK, WRONG, YKMAN, never, opened, pin, ready, some_key
from tests.support.virtual_yubikey.store import DEFAULT_MANAGEMENT_KEY, StoredKey
from tests.support.yubikey import FIRMWARES, VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]
NEW_PIN, FACTORY_PIN = "246810", "123456"
everywhere = pytest.mark.parametrize("firmware", FIRMWARES)
VERIFY, CHANGE, RESET_RETRY, SET_RETRIES = 0x20, 0x24, 0x2C, 0xFA


def ykman(*arguments: str) -> str:
    done = subprocess.run([YKMAN, "piv", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@everywhere
def test_a_key_from_the_factory_becomes_a_ready_one(yubikey: YubiKeys, firmware: str) -> None:
    key = yubikey(firmware)
    key.log()
    info = initialize(key.uri, None, PUK, PIN)
    assert (info.uri, info.initialized, info.pin_tries) == (key.uri, True, 5)
    sent = [apdu["ins"] for apdu in key.log() if apdu["sw"] == 0x9000]
    # Each secret once, the PIN last: while it is the factory's, all of it can be done again.
    assert [ins for ins in sent if ins in (VERIFY, CHANGE, SET_RETRIES)] == [VERIFY, SET_RETRIES, CHANGE, CHANGE]
    state = key.state
    assert (state.pin.total, state.puk.total) == (5, 5)
    assert len(state.management.value) == (24 if firmware == "4.3.5" else 32)
    assert state.management.value != DEFAULT_MANAGEMENT_KEY
    seen = ykman("info")
    assert "Management key is stored on the YubiKey, protected by PIN" in seen
    assert "WARNING" not in seen
    ykman("keys", "generate", "9a", "-", "--pin", PIN, "--algorithm", "ECCP256")  # ykman finds the management key
    ykman("access", "change-pin", "--pin", PIN, "--new-pin", NEW_PIN)
    ykman("access", "change-puk", "--puk", PUK, "--new-puk", "11223344")


@everywhere
def test_two_keys_have_two_management_keys(yubikey: YubiKeys, firmware: str) -> None:
    first = ready(yubikey(firmware))
    before = first.state.management.value
    ykman("reset", "--force")
    ready(first)
    assert first.state.management.value != before


@pytest.mark.parametrize(
    ("puk", "new"),
    [
        (PUK, "12345"),
        (PUK, "123456789"),
        (PUK, "pässwö"),
        (PUK, "a\tb\tc\td"),
        (PUK, FACTORY_PIN),
        ("12345678", PIN),
        ("1234", PIN),
        ("", PIN),
    ],
)
def test_pins_that_do_not_fit_are_refused_before_anything_is_sent(yubikey: YubiKeys, puk: str, new: str) -> None:
    key = yubikey()
    key.log()
    with pytest.raises(UsageError) as refused:
        initialize(key.uri, None, puk, new)
    assert new not in refused.value.message + refused.value.hint
    assert not {VERIFY, CHANGE, SET_RETRIES} & {apdu["ins"] for apdu in key.log()}
    assert not find_token(key.uri, blank=True).initialized


def test_a_label_is_for_other_tokens(yubikey: YubiKeys) -> None:
    key = yubikey()
    with pytest.raises(UsageError, match="has no label"):
        begin(key.uri, "doctor")
    with pytest.raises(UsageError, match="needs a label"):
        begin("pkcs11:token=x", None)
    with pytest.raises(UsageError, match="no kind of token"):
        begin("tpm:1", None)
    assert not begin(key.uri, None).erases


def with_key(state: object) -> None:
    state.keys[0x9A] = StoredKey(0x11, some_key(), 2, 1, True)  # type: ignore[attr-defined]


def with_retired_key(state: object) -> None:
    state.keys[0x95] = StoredKey(0x11, some_key(), 2, 1, True)  # type: ignore[attr-defined]


def with_certificate(state: object) -> None:
    state.objects[0x5FC105] = b"\x70\x01\x00\x71\x01\x00\xfe\x00"  # type: ignore[attr-defined]


def with_containers(state: object) -> None:
    state.objects[0x5FFF10] = b"\x81\x00"  # type: ignore[attr-defined]


def with_pin(state: object) -> None:
    state.pin.value = b"424242\xff\xff"  # type: ignore[attr-defined]


IN_USE = [
    (with_key, "slot 9A"),
    (with_retired_key, "slot 95"),
    (with_certificate, "object 5FC105"),
    (with_containers, "object 5FFF10"),
    (with_pin, "its PIN is not the factory's"),
]


@everywhere
@pytest.mark.parametrize(("use", "words"), IN_USE, ids=[words for _, words in IN_USE])
def test_one_in_use_is_refused(yubikey: YubiKeys, firmware: str, use: Callable[[object], None], words: str) -> None:
    key = yubikey(firmware)
    key.stop()
    with key.tampering() as state:
        use(state)
    before = key.state
    key.start()
    with pytest.raises(TokenError, match=f"in use already.*{words}") as refused:
        initialize(key.uri, None, PUK, PIN)
    assert refused.value.hint
    after = key.state
    assert (after.keys, after.objects, after.management) == (before.keys, before.objects, before.management)
    # Without metadata nothing but a try tells whether the PIN is the factory's; it costs one.
    tried = use is with_pin and firmware == "4.3.5"
    assert (after.pin.left, after.puk.left) == (2 if tried else 3, 3)


def test_one_that_is_ready_is_refused_before_anybody_is_asked(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with pytest.raises(TokenError, match="in use already"):
        begin(key.uri, None)
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
    with pytest.raises(TokenError, match="in use already"):
        initialize(key.uri, None, PUK, PIN)
    with opened(key) as token:
        assert token.names() == [KEK]


def test_no_try_is_spent_where_none_is_to_spare(yubikey: YubiKeys) -> None:
    key = yubikey("4.3.5")
    key.stop()
    with key.tampering() as state:
        state.pin.left = 1
    key.start()
    with pytest.raises(TokenError, match="no tries to spare"):
        initialize(key.uri, None, PUK, PIN)
    assert key.state.pin.left == 1


def test_a_foreign_management_key_is_refused(yubikey: YubiKeys) -> None:
    key = yubikey()
    key.stop()
    with key.tampering() as state:
        state.management.value = bytes(24)
    key.start()
    with pytest.raises(TokenError, match="management key is not the factory's") as refused:
        initialize(key.uri, None, PUK, PIN)
    assert "piv reset" in refused.value.hint
    assert (key.state.pin.value[:6], key.state.pin.left) == (b"123456", 3)


# PIN and PUK


@everywhere
def test_the_pin_is_changed(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    with opened(key) as token:
        public = token.make_signing_key(AUDIT)
    with pytest.raises(WrongPin) as wrong:
        change_pin(key.uri, lambda _: WRONG, NEW_PIN)
    assert wrong.value.tries_left == 4
    assert change_pin(key.uri, pin, NEW_PIN).pin_tries == 5
    with pytest.raises(WrongPin):
        open_token(key.uri, pin)
    with open_token(key.uri, lambda _: NEW_PIN) as token:
        assert token.public_key(AUDIT) == public
        token.make_kek(KEK, P256_HPKE)  # the management key is where it was


def test_an_unfit_new_pin_is_not_sent(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    for new in ("12345", "123456789", "é" * 6, FACTORY_PIN):
        with pytest.raises(UsageError):
            change_pin(key.uri, never, new)
        with pytest.raises(UsageError):
            unblock(key.uri, never, new)
    opened(key).close()


@everywhere
def test_a_locked_pin_is_set_anew_by_the_puk(yubikey: YubiKeys, firmware: str) -> None:
    key = ready(yubikey(firmware))
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    for _ in range(5):
        with pytest.raises((WrongPin, PinLocked)):
            open_token(key.uri, lambda _: WRONG, last_try=True)
    with pytest.raises(PinLocked):
        change_pin(key.uri, never, NEW_PIN)
    with pytest.raises(WrongPin, match="refused the PUK; 4 tries are left") as wrong:
        unblock(key.uri, lambda _: "00000000", NEW_PIN)
    assert wrong.value.tries_left == 4
    with pytest.raises(WrongPin, match="cannot be the PUK"):
        unblock(key.uri, lambda _: "1234", NEW_PIN)
    with pytest.raises(PinNeeded):
        unblock(key.uri, lambda _: "", NEW_PIN)
    assert unblock(key.uri, lambda _: PUK, NEW_PIN).pin_tries == 5
    with open_token(key.uri, lambda _: NEW_PIN) as token:
        assert token.names() == [AUDIT]


def test_the_puk_locks_too(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    for _ in range(4):
        with pytest.raises(WrongPin):
            unblock(key.uri, lambda _: "00000000", NEW_PIN)
    assert "so-final-try" in find_token(key.uri).pin_flags
    with pytest.raises(LastTry):
        unblock(key.uri, never, NEW_PIN)
    with pytest.raises(PinLocked, match="last try") as locked:
        unblock(key.uri, lambda _: "00000000", NEW_PIN, last_try=True)
    assert "ykman --device 12345678 piv reset" in locked.value.hint
    with pytest.raises(PinLocked):
        unblock(key.uri, never, NEW_PIN, last_try=True)
    opened(key).close()  # the PIN itself is as it was


def test_each_is_sent_once(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    key.log()
    change_pin(key.uri, pin, NEW_PIN)
    assert [apdu["ins"] for apdu in key.log() if apdu["ins"] in (VERIFY, CHANGE, RESET_RETRY)] == [CHANGE]
    unblock(key.uri, lambda _: PUK, PIN)
    assert [apdu["ins"] for apdu in key.log() if apdu["ins"] in (VERIFY, CHANGE, RESET_RETRY)] == [RESET_RETRY]


def test_a_management_key_made_from_the_pin_is_left_to_ykman(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    key.stop()
    with key.tampering() as state:
        state.objects[0x5FFF00] = bytes.fromhex("8012 8210".replace(" ", "")) + bytes(16)
    key.start()
    with pytest.raises(TokenUnfit, match="made from its PIN"):
        change_pin(key.uri, pin, NEW_PIN)
    opened(key).close()


def test_one_that_is_not_there() -> None:
    for call in (lambda: begin("yubikey:7", None), lambda: change_pin("yubikey:7", never, PIN)):
        with pytest.raises(TokenAbsent):
            call()


def test_nothing_secret_is_logged(yubikey: YubiKeys, caplog: pytest.LogCaptureFixture) -> None:
    """yubikit logs at length; at its lowest level, the traffic with the card, it must find nothing of ours."""
    caplog.set_level(1)
    key = ready(yubikey())
    keyset = secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32)
    with opened(key) as token:
        token.make_kek(KEK, P256_HPKE)
        token.unwrap_keyset(KEK, token.wrap_keyset(KEK, keyset, b"info"), b"info")
        management = key.state.management.value
    change_pin(key.uri, pin, NEW_PIN)
    unblock(key.uri, lambda _: PUK, PIN)
    assert "Verifying PIN" in caplog.text  # it does log
    for hidden in (PIN, NEW_PIN, PUK, management.hex(), *(part.hex() for part in keyset), *map(repr, keyset)):
        assert hidden not in caplog.text
    for digits in (PIN, PUK):
        assert digits.encode().hex() not in caplog.text
