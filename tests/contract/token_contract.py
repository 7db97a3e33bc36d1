"""One contract for every ``Token``.

A backend joins with a file of its own: a subclass, and a ``backend`` fixture that says how to open one token.

Everything here goes through the protocol alone; what only PKCS#11 can show is in tests/test_tokens_pkcs11.py.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.errors import NotAuthentic, TokenError
from medcrypt_hsm.keys import KeysetSecret
from medcrypt_hsm.tokens import Token, open_token
from medcrypt_hsm.tokens.check import TrialToken, check_token

KEK = "medcrypt kek 00 1"
OTHER_KEK = "medcrypt kek 00 2"
AUDIT = "medcrypt audit 00"
ANCHOR = "medcrypt anchor 00"
INFO = b"what is bound"
NONCE = bytes(range(12))


@dataclass(frozen=True)
class Backend:
    """One ready token, and how this test run opens it."""

    uri: str
    pin: str
    profile: str

    def open(self) -> Token:
        return open_token(self.uri, lambda info: self.pin)


def verify(public_key: bytes, signature: bytes, data: bytes) -> None:
    key = serialization.load_der_public_key(public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert len(signature) == 64
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))


def flipped(value: bytes, at: int) -> bytes:
    changed = bytearray(value)
    changed[at] ^= 1
    return bytes(changed)


class TokenContract:
    """Subclass it beside a ``backend`` fixture of the module, and every test below runs on that token."""

    @pytest.fixture
    def token(self, backend: Backend) -> Iterator[Token]:
        with backend.open() as token:
            yield token
        with backend.open() as token:  # the test may have closed it
            for name in token.names():
                token.destroy(name)

    @pytest.fixture
    def secret(self) -> KeysetSecret:
        return secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32)

    @pytest.fixture
    def kek(self, token: Token, backend: Backend) -> str:
        token.make_kek(KEK, backend.profile)
        return KEK

    def test_it_says_who_it_is(self, token: Token, backend: Backend) -> None:
        assert token.info.initialized
        assert token.info.user_pin_set
        assert token.info.serial
        with pytest.raises(TokenError, match="already open"):
            backend.open()

    def test_its_own_uri_opens_it_again(self, backend: Backend) -> None:
        with backend.open() as token:
            uri = token.info.uri
        with Backend(uri, backend.pin, backend.profile).open() as again:
            assert again.info == token.info

    def test_the_profile_is_promised_and_proven(self, token: TrialToken, backend: Backend) -> None:
        assert backend.profile in token.profiles()
        assert not token.missing(backend.profile)
        report = check_token(token)
        assert report.ok, report
        assert not token.names()  # nothing is left

    def test_check_reports_what_is_wrong_with_a_named_key(self, token: TrialToken, kek: str) -> None:
        report = check_token(token, [kek, "medcrypt absent"])
        assert [evidence.problems for evidence in report.evidence] == [(), ("it is not on the token",)]
        assert not report.ok

    def test_a_kek_says_that_it_never_leaves(self, token: Token, kek: str) -> None:
        evidence = token.evidence(kek)
        assert not evidence.problems
        assert evidence.name == kek

    def test_a_kek_is_made_once(self, token: Token, kek: str, backend: Backend) -> None:
        with pytest.raises(TokenError, match="already"):
            token.make_kek(kek, backend.profile)

    def test_a_keyset_survives_the_session(
        self, backend: Backend, token: Token, kek: str, secret: KeysetSecret
    ) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        token.close()
        with backend.open() as again:
            keyset = again.unwrap_keyset(kek, wrapped, INFO)
            sealed = keyset.sealing.seal(NONCE, b"text", b"aad")
            assert sealed == AESGCM(secret[2]).encrypt(NONCE, b"text", b"aad")
            assert keyset.mac.mac(b"data") == hmac.new(secret[1], b"data", hashlib.sha256).digest()

    def test_wrapping_again_opens_to_the_same_keys(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        first, second = (
            token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).mac.mac(b"") for _ in range(2)
        )
        assert first == second

    @pytest.mark.parametrize("part", range(3))
    def test_a_tampered_keyset_is_refused(self, token: Token, kek: str, secret: KeysetSecret, part: int) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        third = len(wrapped) // 3
        for at in (part * third, part * third + third - 1):
            with pytest.raises(NotAuthentic):
                token.unwrap_keyset(kek, flipped(wrapped, at), INFO)

    def test_a_keyset_of_another_length_is_refused(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        for wrong in (b"", wrapped[:-1], wrapped + b"\0", wrapped[:40], wrapped + wrapped[:40]):
            with pytest.raises(NotAuthentic):
                token.unwrap_keyset(kek, wrong, INFO)

    def test_another_kek_does_not_open_it(self, token: Token, kek: str, secret: KeysetSecret, backend: Backend) -> None:
        token.make_kek(OTHER_KEK, backend.profile)
        with pytest.raises(NotAuthentic):
            token.unwrap_keyset(OTHER_KEK, token.wrap_keyset(kek, secret, INFO), INFO)

    def test_sealing(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        sealing = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).sealing
        for text in (b"", b"x", b"a note", secrets.token_bytes(300), secrets.token_bytes(100_000)):
            for aad in (b"", b"associated"):
                sealed = sealing.seal(NONCE, text, aad)
                assert sealed == AESGCM(secret[2]).encrypt(NONCE, text, aad)
                assert sealing.open(NONCE, sealed, aad) == text

    def test_tampering_with_a_sealed_text_is_refused(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        sealing = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).sealing
        sealed = sealing.seal(NONCE, b"a note", b"aad")
        for at in range(len(sealed)):
            with pytest.raises(NotAuthentic):
                sealing.open(NONCE, flipped(sealed, at), b"aad")
        with pytest.raises(NotAuthentic):
            sealing.open(NONCE, sealed, b"Aad")
        with pytest.raises(NotAuthentic):
            sealing.open(NONCE, sealed, b"")
        with pytest.raises(NotAuthentic):
            sealing.open(flipped(NONCE, 0), sealed, b"aad")
        assert sealing.open(NONCE, sealed, b"aad") == b"a note"  # a refusal leaves the session usable

    @pytest.mark.parametrize("length", [0, 1, 15, 16, 17])
    def test_what_is_too_short_to_be_sealed_is_refused(
        self, token: Token, kek: str, secret: KeysetSecret, length: int
    ) -> None:
        sealing = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).sealing
        with pytest.raises(NotAuthentic):
            sealing.open(NONCE, bytes(length), b"aad")

    def test_a_nonce_of_another_length_is_misuse(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        sealing = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).sealing
        for length in (0, 11, 13, 16):
            with pytest.raises(ValueError):
                sealing.seal(bytes(length), b"", b"")
            with pytest.raises(ValueError):
                sealing.open(bytes(length), bytes(16), b"")

    def test_mac(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        mac = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).mac
        for data in (b"", b"x", bytes(64), secrets.token_bytes(100_000)):
            assert mac.mac(data) == hmac.new(secret[1], data, hashlib.sha256).digest()

    def test_record_keys(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapping = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).wrapping
        aead_key, mac_key = secrets.token_bytes(32), secrets.token_bytes(32)
        for _ in range(2):  # the first of a kind is read back
            aead = wrapping.unwrap_aead(wrapping.wrap(aead_key))
            assert aead.seal(NONCE, b"text", b"") == AESGCM(aead_key).encrypt(NONCE, b"text", b"")
            mac = wrapping.unwrap_mac(wrapping.wrap(mac_key))
            assert mac.mac(b"data") == hmac.new(mac_key, b"data", hashlib.sha256).digest()

    def test_tampered_record_keys_are_refused(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapping = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).wrapping
        wrapped = wrapping.wrap(bytes(32))
        assert len(wrapped) == 40
        for at in range(40):
            with pytest.raises(NotAuthentic):
                wrapping.unwrap_aead(flipped(wrapped, at))
        for wrong in (b"", wrapped[:-1], wrapped[:32], wrapped + b"\0", wrapped + bytes(8)):
            with pytest.raises(NotAuthentic):
                wrapping.unwrap_mac(wrong)

    @pytest.mark.parametrize("length", [0, 16, 31, 33])
    def test_only_256_bit_keys_are_wrapped(self, token: Token, kek: str, secret: KeysetSecret, length: int) -> None:
        wrapping = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO).wrapping
        with pytest.raises(ValueError):
            wrapping.wrap(bytes(length))

    def test_a_destroyed_key_is_misuse(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        keyset = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO)
        wrapped = keyset.wrapping.wrap(bytes(32))
        for handle in (keyset.wrapping, keyset.mac, keyset.sealing):
            handle.destroy()
            handle.destroy()
        with pytest.raises(RuntimeError):
            keyset.sealing.seal(NONCE, b"", b"")
        with pytest.raises(RuntimeError):
            keyset.sealing.open(NONCE, bytes(16), b"")
        with pytest.raises(RuntimeError):
            keyset.mac.mac(b"")
        with pytest.raises(RuntimeError):
            keyset.wrapping.wrap(bytes(32))
        with pytest.raises(RuntimeError):
            keyset.wrapping.unwrap_mac(wrapped)

    def test_a_closed_token_is_misuse(self, token: Token, kek: str, secret: KeysetSecret, backend: Backend) -> None:
        keyset = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO)
        token.close()
        token.close()
        with backend.open():
            with pytest.raises(RuntimeError):
                keyset.sealing.seal(NONCE, b"", b"")
            with pytest.raises(RuntimeError):
                token.names()
        keyset.sealing.destroy()

    def test_signing(self, token: Token) -> None:
        public_key = token.make_signing_key(AUDIT)
        assert token.public_key(AUDIT) == public_key
        assert not token.evidence(AUDIT).problems
        for data in (b"", b"head", secrets.token_bytes(10_000)):
            verify(public_key, token.sign(AUDIT, data), data)
        with pytest.raises(InvalidSignature):
            verify(public_key, token.sign(AUDIT, b"head"), b"heat")

    def test_a_signing_key_survives_the_session(self, token: Token, backend: Backend) -> None:
        public_key = token.make_signing_key(AUDIT)
        token.close()
        with backend.open() as again:
            assert again.public_key(AUDIT) == public_key
            verify(public_key, again.sign(AUDIT, b"head"), b"head")

    def test_a_signing_key_is_made_once(self, token: Token) -> None:
        token.make_signing_key(AUDIT)
        with pytest.raises(TokenError, match="already"):
            token.make_signing_key(AUDIT)

    def test_objects(self, token: Token, backend: Backend) -> None:
        assert not token.read_objects(ANCHOR)
        for value in (b"first", b"", secrets.token_bytes(2000)):
            token.put_object(ANCHOR, value)
            assert list(token.read_objects(ANCHOR)) == [value]
        token.close()
        with backend.open() as again:
            assert list(again.read_objects(ANCHOR)) == [value]

    def test_names_are_sorted_and_given_once(self, token: Token, kek: str) -> None:
        token.put_object(ANCHOR, b"")
        token.make_signing_key(AUDIT)
        assert token.names() == sorted([kek, ANCHOR, AUDIT])

    def test_what_is_not_there(self, token: Token, secret: KeysetSecret) -> None:
        for absent in (
            lambda: token.wrap_keyset(KEK, secret, INFO),
            lambda: token.unwrap_keyset(KEK, bytes(120), INFO),
            lambda: token.sign(AUDIT, b""),
            lambda: token.public_key(AUDIT),
            lambda: token.evidence(KEK),
        ):
            with pytest.raises(KeyError):
                absent()
        token.destroy(KEK)  # nothing to do

    def test_destroying(self, token: Token, kek: str, secret: KeysetSecret, backend: Backend) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        token.make_signing_key(AUDIT)
        token.put_object(ANCHOR, b"value")
        token.destroy(kek)
        assert token.names() == sorted([ANCHOR, AUDIT])
        token.destroy(AUDIT)
        token.destroy(ANCHOR)
        assert not token.names()
        assert not token.read_objects(ANCHOR)
        with pytest.raises(KeyError):
            token.sign(AUDIT, b"")
        token.make_kek(kek, backend.profile)  # the name is free again, and it is another key
        with pytest.raises(NotAuthentic):
            token.unwrap_keyset(kek, wrapped, INFO)

    @pytest.mark.parametrize("name", ["", "kek", "Medcrypt kek"])
    def test_other_names_are_misuse(self, token: Token, name: str, backend: Backend) -> None:
        with pytest.raises(ValueError):
            token.make_kek(name, backend.profile)
        with pytest.raises(ValueError):
            token.put_object(name, b"")
        with pytest.raises(ValueError):
            token.destroy(name)

    def test_nothing_shows_a_secret(self, token: Token, kek: str, secret: KeysetSecret, backend: Backend) -> None:
        keyset = token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), INFO)
        token.put_object(ANCHOR, b"anchor-value")
        shown = "".join(map(repr, (token, token.info, keyset, keyset.wrapping, keyset.mac, keyset.sealing)))
        shown += "".join(map(str, (token, keyset.sealing, token.evidence(kek))))
        with pytest.raises(NotAuthentic) as refused:
            keyset.sealing.open(NONCE, bytes(32), b"the-aad")
        shown += repr(refused.value) + str(refused.value)
        for hidden in (backend.pin, "the-aad", *(part.hex() for part in secret), *map(repr, secret), "anchor-value"):
            assert hidden not in shown
