"""Grades of keys on tokens: PKCS#11 under both profiles, and tokens that show certificates for their keys."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, KeyType, ObjectClass

from medcrypt_hsm.errors import TokenError, TokenRemoved
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, Token, TokenInfo
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.attestation.grades import (
    DEVICE_ATTESTED,
    NOT_ATTESTED,
    TOKEN_CLAIMED,
    Attested,
    grade,
    worst,
)
from medcrypt_hsm.tokens.attestation.vendor import read_roots
from tests.support.attestation_vendor import NOW, ROOTS, SERIAL, Chain, device_says, key, new_chain, old_chain, spki
from tests.support.softhsm import USER_PIN

KEK, SIGNER = "medcrypt test kek", "medcrypt test audit"


def pin(info: TokenInfo) -> str:
    return USER_PIN


@pytest.fixture
def token(token_uri: str) -> Iterator[Token]:
    with open_token(token_uri, pin) as opened:
        yield opened
        for name in opened.names():
            opened.destroy(name)


@pytest.mark.parametrize("profile", [AES_KW, P256_HPKE])
@pytest.mark.parametrize("roots", [False, True], ids=["without roots", "with the vendor's"])
def test_a_pkcs11_token_can_only_claim(token: Token, profile: str, roots: bool) -> None:
    token.make_kek(KEK, profile)
    public = token.make_signing_key(SIGNER)
    found = grade(token, (KEK, SIGNER), read_roots(ROOTS) if roots else (), on_record={SIGNER: public})
    assert [(one.name, one.grade, one.forged) for one in found] == [
        (KEK, TOKEN_CLAIMED, False),
        (SIGNER, TOKEN_CLAIMED, False),
    ]
    assert worst(one.grade for one in found) == TOKEN_CLAIMED
    assert all("no certificate" in one.reasons[0] for one in found)
    assert [bool(one.public_key) for one in found] == [profile == P256_HPKE, True]


def test_a_key_that_is_not_there_is_not_attested(token: Token) -> None:
    assert grade(token, ("medcrypt nothing",)) == [
        Attested("medcrypt nothing", NOT_ATTESTED, ("it is not on the token",))
    ]


def test_a_key_that_was_brought_to_the_token_is_not_attested(token: Token) -> None:
    token._session.create_object(  # type: ignore[attr-defined]
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.LABEL: KEK,
            Attribute.VALUE: secrets.token_bytes(32),
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.WRAP: True,
            Attribute.UNWRAP: True,
        }
    )
    (found,) = grade(token, (KEK,))
    assert (found.grade, found.forged) == (NOT_ATTESTED, False)
    assert any("LOCAL is false" in reason for reason in found.reasons)


def test_a_key_other_than_the_one_on_record_is_not_attested(token: Token) -> None:
    token.make_signing_key(SIGNER)
    token.make_kek(KEK, AES_KW)
    other = spki(key("other").public_key())
    found = grade(token, (SIGNER, KEK), on_record={SIGNER: other, KEK: other})
    assert [one.grade for one in found] == [NOT_ATTESTED] * 2
    assert all("on record" in one.reasons[0] for one in found)
    assert [one.grade for one in grade(token, (SIGNER, KEK), on_record={SIGNER: b"", KEK: b""})] == [TOKEN_CLAIMED] * 2


class AttestingToken:
    """A real token with real keys, which shows certificates for them as a device would. All else is passed through."""

    def __init__(self, token: Token, certify: Callable[[str], Sequence[bytes]]) -> None:
        self._token = token
        self.attestation = certify
        self.serial = str(SERIAL)

    @property
    def info(self) -> TokenInfo:
        return self._token.info._replace(serial=self.serial)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._token, name)


def attesting(token: Token, make: Callable[..., Chain] = old_chain, **changes: Any) -> Any:
    """Each key's certificate is for that key, but for ``changes``."""
    return AttestingToken(token, lambda name: make(load_der_public_key(token.public_key(name)), **changes).shown)


def graded(token: Any, *, vendor: Chain | None = None, followed: bool = True, **more: Any) -> Attested:
    vendor = vendor or old_chain()
    (found,) = grade(token, (SIGNER,), vendor.roots if followed else (), vendor.pins, now=NOW, **more)
    return found


@pytest.fixture
def signing(token: Token) -> Token:
    token.make_signing_key(SIGNER)
    return token


@pytest.mark.parametrize("make", [old_chain, new_chain])
def test_a_device_with_a_chain_is_attested(signing: Token, make: Callable[..., Chain]) -> None:
    found = graded(attesting(signing, make), vendor=make(), on_record={SIGNER: signing.public_key(SIGNER)})
    assert (found.grade, found.reasons, found.forged) == (DEVICE_ATTESTED, (), False)
    assert (found.serial, found.slot, found.pin_policy) == (str(SERIAL), "82", "once")
    assert len(found.certificates) == 2
    assert "BEGIN" not in repr(found)
    assert "certificates" not in repr(found)


def test_without_roots_a_device_only_claims(signing: Token) -> None:
    found = graded(attesting(signing), followed=False)
    assert (found.grade, found.root, found.serial) == (TOKEN_CLAIMED, "", str(SERIAL))
    assert "--roots" in found.reasons[0]


@pytest.mark.parametrize("followed", [True, False])
def test_a_chain_that_fails_is_never_a_claim(signing: Token, followed: bool) -> None:
    says = {"extensions": device_says(serial=SERIAL + 1)}
    elsewhere = AttestingToken(signing, lambda name: old_chain(key("other").public_key()).shown)
    for token, words in (
        (attesting(signing, slot=says), "serial 12345679, and this is 12345678"),
        (elsewhere, "another key"),
        (attesting(signing, slot={"signer": key("other")}), "not signed by the F9"),
        (AttestingToken(signing, lambda name: (b"garbage", b"garbage")), "cannot be read"),
        (AttestingToken(signing, lambda name: old_chain().shown[:1]), "two certificates"),
    ):
        found = graded(token, followed=followed)
        assert (found.grade, found.forged) == (NOT_ATTESTED, True)
        assert words in found.reasons[0]


def test_a_certificate_that_nothing_can_be_compared_with_proves_nothing(signing: Token) -> None:
    signing.make_kek(KEK, AES_KW)  # which has no public key
    vendor = old_chain()
    certifying: Any = AttestingToken(signing, lambda name: vendor.shown)
    (found,) = grade(certifying, (KEK,), vendor.roots, vendor.pins, now=NOW)
    assert found.grade == NOT_ATTESTED
    nameless = attesting(signing)
    nameless.serial = ""
    assert graded(nameless).grade == NOT_ATTESTED


def test_an_unpinned_vendor_proves_nothing(signing: Token) -> None:
    impostor: dict[str, Any] = {
        "root": {"public": key("other").public_key(), "signer": key("other")},
        "f9": {"signer": key("other")},
    }
    found = graded(attesting(signing, **impostor))
    assert (found.grade, found.forged) == (NOT_ATTESTED, True)


def test_a_proven_key_with_a_weakness_is_not_attested(signing: Token) -> None:
    weak = graded(attesting(signing, slot={"extensions": device_says(policy=b"\x01\x01")}))
    assert (weak.grade, weak.forged, weak.root) == (NOT_ATTESTED, False, "pin 0")
    assert "without the PIN" in weak.reasons[0]
    recorded = graded(attesting(signing), on_record={SIGNER: spki(key("other").public_key())})
    assert (recorded.grade, recorded.forged) == (NOT_ATTESTED, False)
    assert "on record" in recorded.reasons[0]


def test_a_device_that_hides_its_serial_only_claims(signing: Token) -> None:
    found = graded(attesting(signing, slot={"extensions": device_says(serial=None)}))
    assert (found.grade, found.root) == (TOKEN_CLAIMED, "pin 0")
    assert "serial" in found.reasons[0]


def test_what_a_token_cannot_do_is_a_reason_and_its_removal_an_error(signing: Token) -> None:
    def fails(name: str) -> Sequence[bytes]:
        raise TokenError("the F9 certificate cannot be read")

    def removed(name: str) -> Sequence[bytes]:
        raise TokenRemoved("the token was removed")

    found = graded(AttestingToken(signing, fails))
    assert (found.grade, found.reasons, found.forged) == (NOT_ATTESTED, ("the F9 certificate cannot be read",), False)
    with pytest.raises(TokenRemoved):
        graded(AttestingToken(signing, removed))
