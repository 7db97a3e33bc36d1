"""Profile aes-kw against published vectors, and against the host's own AES key wrap."""

from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.tokens import AES_KW
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import KEK, SECRET, import_key


class TestVectors:
    def test_rfc_3394_section_4_6(self, token: Pkcs11Token) -> None:
        import_key(token, bytes(range(32)))
        key = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
        wrapped = bytes.fromhex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21")
        assert token.wrap_keyset(KEK, (key, key, key), b"") == wrapped * 3
        sealing = token.unwrap_keyset(KEK, wrapped * 3, b"").sealing
        assert sealing.seal(bytes(12), b"text", b"") == AESGCM(key).encrypt(bytes(12), b"text", b"")

    def test_the_host_unwraps_what_the_token_wrapped_and_back(self, token: Pkcs11Token) -> None:
        kek = secrets.token_bytes(32)
        import_key(token, kek)
        wrapped = token.wrap_keyset(KEK, SECRET, b"")
        assert [keywrap.aes_key_unwrap(kek, wrapped[at : at + 40]) for at in (0, 40, 80)] == list(SECRET)
        made = b"".join(keywrap.aes_key_wrap(kek, secret) for secret in SECRET)
        keyset = token.unwrap_keyset(KEK, made, b"")
        record = secrets.token_bytes(32)
        assert keyset.wrapping.wrap(record) == keywrap.aes_key_wrap(SECRET[0], record)

    def test_gcm_test_case_16(self, token: Pkcs11Token) -> None:
        """McGrew and Viega, The Galois/Counter Mode of Operation, appendix B."""
        token.make_kek(KEK, AES_KW)
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
        sealing = token.unwrap_keyset(KEK, token.wrap_keyset(KEK, (bytes(32), bytes(32), key), b""), b"").sealing
        assert sealing.seal(nonce, text, aad) == sealed
        assert sealing.open(nonce, sealed, aad) == text

    @pytest.mark.parametrize(
        ("key", "data", "tag"),
        [
            ("0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe".hex(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            ("aa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                bytes(range(1, 26)).hex(),
                b"\xcd" * 50,
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
        ],
    )
    def test_rfc_4231(self, token: Pkcs11Token, key: str, data: bytes, tag: str) -> None:
        # HMAC pads a short key with zeros (RFC 2104), so a vector's key and its 32-byte padding give one tag.
        token.make_kek(KEK, AES_KW)
        padded = bytes.fromhex(key).ljust(32, b"\0")
        mac = token.unwrap_keyset(KEK, token.wrap_keyset(KEK, (bytes(32), padded, bytes(32)), b""), b"").mac
        assert mac.mac(data).hex() == tag
