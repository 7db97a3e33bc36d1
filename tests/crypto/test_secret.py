"""``Secret``: wiped where it lies, and shown nowhere."""

from __future__ import annotations

import ctypes
import secrets

import pytest

from medcrypt_hsm.crypto.secret import Secret, wipe_text


def test_a_wiped_secret_is_no_key_of_zeros() -> None:
    secret = Secret(bytes(range(32)))
    with secret:
        assert len(secret.value) == 32
    with pytest.raises(RuntimeError):
        _ = secret.value


def test_the_very_bytes_that_were_handed_in_are_zeros_afterwards() -> None:
    key = secrets.token_bytes(32)
    with Secret(key) as secret:
        assert secret.value is key
        assert ctypes.string_at(secret.address, 32) == key
    assert key == bytes(32)


def test_an_exception_wipes_it_too() -> None:
    key = secrets.token_bytes(32)
    with pytest.raises(ZeroDivisionError), Secret(key):
        1 / 0  # noqa: B018
    assert key == bytes(32)


def test_it_has_no_text_form() -> None:
    with Secret(secrets.token_bytes(32)) as secret:
        assert repr(secret) == str(secret) == f"{secret}" == "Secret(…)"


def test_a_short_one_is_misuse() -> None:
    """The interpreter has one object for every byte there is: wiping it would be wiping it everywhere."""
    with pytest.raises(ValueError, match="short bytes objects are shared"):
        Secret(b"x")


def test_a_pin_is_overwritten_and_what_is_shared_is_not() -> None:
    pin = "".join(secrets.choice("0123456789") for _ in range(8))
    wipe_text(pin)
    assert pin == "\0" * 8
    shared, accented = "7", "contraseña"
    wipe_text(shared)
    wipe_text(accented)
    assert (ord(shared), accented.encode()) == (0x37, b"contrase\xc3\xb1a")
