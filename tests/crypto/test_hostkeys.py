"""Keys in host memory: published vectors, misuse, and what is left of a key, looked for from outside the process."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.crypto import hostkeys
from medcrypt_hsm.crypto.handles import KeysetHandles
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic
from tests.support.process_memory import Looked

NONCE = bytes(range(12))


def fresh() -> Secret:
    return Secret(secrets.token_bytes(32))


def keyset(
    keys: HostKeys | None = None, *, wrapping: bytes = b"", mac: bytes = b"", sealing: bytes = b""
) -> KeysetHandles:
    """Handles on these keys, random ones for those not given. Copies: a Secret wipes what it is given."""
    wanted = (wrapping, mac, sealing)
    first, second, third = (Secret(bytes(bytearray(key))) if key else fresh() for key in wanted)
    return (keys or HostKeys()).handles((first, second, third))


class TestVectors:
    def test_rfc_3394_section_4_6(self) -> None:
        kek = bytes(range(32))
        key = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
        wrapped = bytes.fromhex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21")
        wrapping = keyset(wrapping=kek).wrapping
        assert wrapping.wrap(key) == wrapped
        assert wrapping.unwrap_aead(wrapped).seal(NONCE, b"text", b"") == AESGCM(key).encrypt(NONCE, b"text", b"")

    def test_gcm_test_case_16(self) -> None:
        """McGrew and Viega, The Galois/Counter Mode of Operation, appendix B."""
        key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
        nonce = bytes.fromhex("cafebabefacedbaddecaf888")
        aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
        text = bytes.fromhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        )
        sealed = bytes.fromhex(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
            "76fc6ece0f4e1768cddf8853bb2d551b"
        )
        sealing = keyset(sealing=key).sealing
        assert sealing.seal(nonce, text, aad) == sealed
        assert sealing.open(nonce, sealed, aad) == text

    @pytest.mark.parametrize(
        ("key", "data", "tag"),
        [
            ("0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            ("aa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        ],
    )
    def test_rfc_4231(self, key: str, data: bytes, tag: str) -> None:
        padded = bytes.fromhex(key).ljust(32, b"\0")  # HMAC pads a short key with zeros (RFC 2104)
        assert keyset(mac=padded).mac.mac(data).hex() == tag


class TestUse:
    @pytest.mark.parametrize("length", [0, 16, 31, 33])
    def test_only_256_bit_keys(self, length: int) -> None:
        with pytest.raises(ValueError):
            keyset().wrapping.wrap(bytes(length))
        with pytest.raises(ValueError):
            HostKeys().handles((fresh(), Secret(bytes(24)), fresh()))

    def test_a_wrapped_key_of_another_length_is_not_authentic(self) -> None:
        """RFC 3394 wraps longer keys too, which are none of ours."""
        kek = secrets.token_bytes(32)
        wrapping = keyset(wrapping=kek).wrapping
        for length in (16, 24, 64):
            with pytest.raises(NotAuthentic):
                wrapping.unwrap_mac(keywrap.aes_key_wrap(kek, bytes(length)))

    def test_every_handle_ends_with_the_keys_it_belongs_to(self) -> None:
        keys = HostKeys()
        handles = keyset(keys)
        wrapped = handles.wrapping.wrap(bytes(32))
        message, chain = handles.wrapping.unwrap_aead(wrapped), handles.wrapping.unwrap_mac(wrapped)
        chain.destroy()
        chain.destroy()
        with pytest.raises(RuntimeError):
            chain.mac(b"")
        message.seal(NONCE, b"", b"")
        keys.wipe()
        keys.wipe()
        for use in (
            lambda: message.seal(NONCE, b"", b""),
            lambda: handles.mac.mac(b""),
            lambda: handles.sealing.open(NONCE, bytes(16), b""),
            lambda: handles.wrapping.unwrap_aead(wrapped),
        ):
            with pytest.raises(RuntimeError):
                use()
        message.destroy()

    def test_another_token_s_keys_go_on(self) -> None:
        first, second = HostKeys(), HostKeys()
        keyset(first)
        going_on = keyset(second)
        first.wipe()
        assert going_on.mac.mac(b"")

    def test_what_is_destroyed_is_not_remembered(self) -> None:
        """Ten thousands of message keys come and go in one command."""
        keys = HostKeys()
        handles = keyset(keys)
        wrapped = handles.wrapping.wrap(bytes(32))
        for _ in range(100):
            handles.wrapping.unwrap_aead(wrapped).destroy()
        assert len(keys._alive) == 3

    def test_nothing_shows_a_key(self) -> None:
        known = {"wrapping": b"w" * 32, "mac": b"m" * 32, "sealing": b"s" * 32}
        keys = HostKeys()
        handles = keyset(keys, **known)
        shown = "".join(map(repr, (keys, handles, handles.wrapping, handles.mac, handles.sealing)))
        assert not any(key.decode() in shown or key.hex() in shown for key in known.values())


def test_a_key_is_not_wiped_half_way_through_a_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be used as zeros."""
    key = secrets.token_bytes(32)
    expected = AESGCM(key).encrypt(NONCE, b"text", b"")
    keys = HostKeys()
    sealing = keyset(keys, sealing=key).sealing
    in_use, wiped = Event(), Event()

    def slow(key: bytes) -> AESGCM:
        in_use.set()
        wiped.wait(0.2)  # the other thread's chance
        return AESGCM(key)

    def wipe() -> None:
        assert in_use.wait(10)
        keys.wipe()
        wiped.set()

    monkeypatch.setattr(hostkeys, "AESGCM", slow)
    with ThreadPoolExecutor(1) as pool:
        wiping = pool.submit(wipe)
        assert sealing.seal(NONCE, b"text", b"") == expected
        wiping.result(10)
    with pytest.raises(RuntimeError):
        sealing.seal(NONCE, b"text", b"")


def masked(key: bytes, mask: bytes) -> str:
    return bytes(a ^ b for a, b in zip(key, mask, strict=True)).hex()


def test_a_key_is_in_memory_once_while_it_is_held_and_not_at_all_after() -> None:
    wrapping, mac, sealing, message, mask = (secrets.token_bytes(32) for _ in range(5))
    every = (wrapping, mac, sealing, message)
    shown = [masked(key, mask) for key in (wrapping, mac, sealing)]
    with Looked("keys", *shown, mask.hex(), keywrap.aes_key_wrap(wrapping, message).hex()) as process:
        with process.at("nothing yet"):
            assert [process.copies(key) for key in every] == [0, 0, 0, 0]
            assert process.locked == 0
        with process.at("keyset"):
            assert [process.copies(key) for key in every] == [1, 1, 1, 0]
            assert process.locked > 0
        with process.at("used"):
            assert [process.copies(key) for key in every] == [1, 1, 1, 1]
        with process.at("message key destroyed"):
            assert [process.copies(key) for key in every] == [1, 1, 1, 0]
        with process.at("closed"):
            assert [process.copies(key) for key in every] == [0, 0, 0, 0]
