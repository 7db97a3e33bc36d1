"""One contract for every ``Token``, and what each profile adds to it.

A backend joins with a file of its own: a subclass of ``AesKwContract`` or ``P256Contract`` for each profile that it
offers, and a ``backend`` fixture of scope "class", which finds the profile in ``request.cls.profile``.

Everything here goes through the protocol alone; what only PKCS#11 can show is in tests/tokens/pkcs11.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.errors import NotAuthentic, TokenError, TokenUnfit
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, Token
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.check import TrialToken, check_token

KEK = "medcrypt kek 00 1"
OTHER_KEK = "medcrypt kek 00 2"
AUDIT = "medcrypt audit 00"
ANCHOR = "medcrypt anchor 00"
INFO = b"what is bound"
NONCE = bytes(range(12))
SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True)
class Backend:
    """One ready token, how this test run opens it, and what it can do that not every token can."""

    uri: str
    pin: str
    profile: str
    touches: bool = False  # it can make keys that wait for a finger
    attests: bool = False  # it certifies the keys that it made

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
    """Subclass it beside a ``backend`` fixture, and every test below runs on that token."""

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
        with replace(backend, uri=uri).open() as again:
            assert again.info == token.info

    def test_the_profile_is_promised_and_proven(self, token: TrialToken, backend: Backend) -> None:
        assert backend.profile in token.profiles()
        assert not token.missing(backend.profile)
        report = check_token(token, profile=backend.profile)
        assert report.ok, report
        assert report.profile == backend.profile
        assert not token.names()  # nothing is left

    def test_the_best_profile_is_checked_unless_one_is_named(self, token: TrialToken) -> None:
        assert check_token(token).profile == token.profiles()[0]

    def test_check_reports_what_is_wrong_with_a_named_key(self, token: TrialToken, kek: str) -> None:
        report = check_token(token, [kek, "medcrypt absent"], profile=token.profiles()[0])
        assert [evidence.problems for evidence in report.evidence] == [(), ("it is not on the token",)]
        assert not report.ok

    def test_a_kek_says_that_it_never_leaves(self, token: Token, kek: str) -> None:
        evidence = token.evidence(kek)
        assert not evidence.problems
        assert evidence.name == kek

    def test_a_kek_is_made_once(self, token: Token, kek: str, backend: Backend) -> None:
        with pytest.raises(TokenError, match="already"):
            token.make_kek(kek, backend.profile)

    def test_an_unknown_profile_or_touch_policy_is_misuse(self, token: Token, backend: Backend) -> None:
        with pytest.raises(ValueError):
            token.make_kek(KEK, "rot13")
        with pytest.raises(ValueError):
            token.missing("rot13")
        with pytest.raises(ValueError):
            token.make_kek(KEK, backend.profile, touch="sometimes")
        assert not token.names()

    def test_a_touch_policy_is_kept_or_refused_with_words(self, token: Token, backend: Backend) -> None:
        if backend.touches:
            token.make_kek(KEK, backend.profile, touch="cached")
            assert not token.evidence(KEK).problems
            return
        for touch in ("cached", "always"):
            with pytest.raises(TokenUnfit, match="touch"):
                token.make_kek(KEK, backend.profile, touch=touch)
        assert not token.names()

    def test_what_is_attested_are_certificates_of_the_key(self, token: Token, kek: str, backend: Backend) -> None:
        token.make_signing_key(AUDIT)
        assert bool(token.attestation(kek)) is bool(token.attestation(AUDIT)) is backend.attests
        for name in (kek, AUDIT):
            certificates = [x509.load_der_x509_certificate(der) for der in token.attestation(name)]
            for first in certificates[:1]:
                assert first.public_key().public_bytes(*SPKI) == token.public_key(name)

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
            for unwrap in (token.unwrap_keyset, token.unwrap_keyset_to_host):
                with pytest.raises(NotAuthentic):
                    unwrap(kek, flipped(wrapped, at), INFO)

    def test_a_keyset_comes_to_the_host_to_be_wrapped_for_another_token(
        self, token: Token, kek: str, secret: KeysetSecret, backend: Backend
    ) -> None:
        token.make_kek(OTHER_KEK, backend.profile)
        keys = token.unwrap_keyset_to_host(kek, token.wrap_keyset(kek, secret, INFO), INFO)
        assert tuple(key.value for key in keys) == secret
        wrapping, mac, sealing = keys
        wrapped = token.wrap_keyset(OTHER_KEK, (wrapping.value, mac.value, sealing.value), INFO)
        for key in keys:
            key.wipe()
        handles = token.unwrap_keyset(OTHER_KEK, wrapped, INFO)
        assert handles.mac.mac(b"data") == hmac.new(secret[1], b"data", hashlib.sha256).digest()

    def test_a_keyset_of_another_length_is_refused(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        for wrong in (b"", wrapped[:-1], wrapped + b"\0", wrapped[:40], wrapped + wrapped[:40]):
            for unwrap in (token.unwrap_keyset, token.unwrap_keyset_to_host):
                with pytest.raises(NotAuthentic):
                    unwrap(kek, wrong, INFO)

    def test_another_kek_does_not_open_it(self, token: Token, kek: str, secret: KeysetSecret, backend: Backend) -> None:
        token.make_kek(OTHER_KEK, backend.profile)
        with pytest.raises(NotAuthentic):
            token.unwrap_keyset(OTHER_KEK, token.wrap_keyset(kek, secret, INFO), INFO)

    def test_one_key_is_wrapped_and_comes_back_to_the_host(
        self, token: Token, kek: str, secret: KeysetSecret, backend: Backend
    ) -> None:
        wrapped = token.wrap_key(kek, secret[0], INFO)
        assert len(wrapped) == (40 if backend.profile == AES_KW else 113)
        with token.unwrap_key(kek, wrapped, INFO) as key:
            assert key.value == secret[0]
        for wrong in (b"", wrapped[:-1], wrapped + b"\0", flipped(wrapped, 0), flipped(wrapped, len(wrapped) - 1)):
            with pytest.raises(NotAuthentic):
                token.unwrap_key(kek, wrong, INFO)
        token.make_kek(OTHER_KEK, backend.profile)
        with pytest.raises(NotAuthentic):
            token.unwrap_key(OTHER_KEK, wrapped, INFO)
        if backend.profile != AES_KW:
            with pytest.raises(NotAuthentic):
                token.unwrap_key(kek, wrapped, b"something else")

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
        record = keyset.wrapping.unwrap_aead(keyset.wrapping.wrap(bytes(32)))
        token.close()
        token.close()
        with backend.open():
            with pytest.raises(RuntimeError):
                keyset.sealing.seal(NONCE, b"", b"")
            with pytest.raises(RuntimeError):
                keyset.mac.mac(b"")
            with pytest.raises(RuntimeError):
                keyset.wrapping.wrap(bytes(32))
            with pytest.raises(RuntimeError):
                record.open(NONCE, bytes(16), b"")
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
            lambda: token.unwrap_keyset(KEK, b"", INFO),
            lambda: token.unwrap_keyset_to_host(KEK, bytes(177), INFO),
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


class AesKwContract(TokenContract):
    """Profile ``aes-kw``: the bytes, and what AES key wrap cannot do."""

    profile = AES_KW

    def test_a_wrapped_keyset_is_three_wrapped_keys(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        assert len(wrapped) == 120
        assert wrapped == token.wrap_keyset(kek, secret, INFO)  # deterministic, RFC 3394
        turned = wrapped[80:] + wrapped[40:80] + wrapped[:40]
        keys = token.unwrap_keyset_to_host(kek, turned, INFO)
        assert [key.value for key in keys] == list(secret[::-1])

    def test_aes_key_wrap_has_no_room_for_what_is_to_be_bound(
        self, token: Token, kek: str, secret: KeysetSecret
    ) -> None:
        assert token.unwrap_keyset(kek, token.wrap_keyset(kek, secret, INFO), b"something else")

    def test_a_kek_has_no_public_key(self, token: Token, kek: str) -> None:
        with pytest.raises(KeyError):
            token.public_key(kek)


class P256Contract(TokenContract):
    """Profile ``p256-hpke``: the bytes, what is bound, and that the public key is enough to wrap."""

    profile = P256_HPKE

    def test_a_wrapped_keyset_is_a_point_and_a_sealed_text(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        assert len(wrapped) == 65 + 3 * 32 + 16
        assert wrapped[0] == 4
        assert wrapped != token.wrap_keyset(kek, secret, INFO)  # another ephemeral key every time

    def test_wrapping_is_bound_to_its_info(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        for other in (b"", INFO + b".", INFO[:-1], b"something else"):
            for unwrap in (token.unwrap_keyset, token.unwrap_keyset_to_host):
                with pytest.raises(NotAuthentic):
                    unwrap(kek, wrapped, other)
        assert token.unwrap_keyset(kek, wrapped, INFO)

    def test_no_bit_of_a_wrapped_keyset_can_be_changed(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        for at in range(len(wrapped)):
            with pytest.raises(NotAuthentic):
                token.unwrap_keyset(kek, flipped(wrapped, at), INFO)

    def test_points_that_are_none_are_refused(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        wrapped = token.wrap_keyset(kek, secret, INFO)
        point, text = wrapped[:65], wrapped[65:]
        other = ec.generate_private_key(ec.SECP256K1()).public_key()
        foreign = other.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        prime = (2**256 - 2**224 + 2**192 + 2**96 - 1).to_bytes(32, "big")
        hybrid = bytes([6 + point[64] % 2]) + point[1:]
        for wrong in (bytes(65), b"\4" + bytes(64), b"\2" + point[1:], hybrid, foreign, b"\4" + prime + point[33:]):
            with pytest.raises(NotAuthentic):
                token.unwrap_keyset(kek, wrong + text, INFO)

    def test_the_public_key_is_enough_to_wrap(
        self, token: Token, kek: str, secret: KeysetSecret, backend: Backend
    ) -> None:
        public_key = token.public_key(kek)
        token.close()
        key = serialization.load_der_public_key(public_key)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        suite = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        wrapped = suite.encrypt(b"".join(secret), key, INFO)
        with backend.open() as again:
            assert again.public_key(kek) == public_key
            keys = again.unwrap_keyset_to_host(kek, wrapped, INFO)
            assert tuple(key.value for key in keys) == secret

    def test_a_kek_agrees_and_a_signing_key_signs(self, token: Token, kek: str, secret: KeysetSecret) -> None:
        token.make_signing_key(AUDIT)
        assert token.evidence(kek).claims != token.evidence(AUDIT).claims
        with pytest.raises(TokenError):
            token.sign(kek, b"head")
        with pytest.raises(TokenError):
            token.wrap_keyset(AUDIT, secret, INFO)
        wrapped = token.wrap_keyset(kek, secret, INFO)
        with pytest.raises(TokenError):
            token.unwrap_keyset(AUDIT, wrapped, INFO)
