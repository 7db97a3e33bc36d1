"""Profile p256-hpke as PKCS#11 shows it: keys that only agree, a public key that must be the right one, and memory."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import KDF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from medcrypt_hsm.errors import NotAuthentic, TokenError, TokenRemoved, TokenUnfit
from medcrypt_hsm.tokens import AES_KW, P256_HPKE
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.check import check_token
from medcrypt_hsm.tokens.pkcs11 import keys, p256, p256_hpke
from medcrypt_hsm.tokens.pkcs11 import token as pkcs11_token
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import AUDIT, KEK, SECRET, directory_of, outside_program, pin, session, the_key
from tests.support.process_memory import Looked
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module

INFO = b"what is bound"
PRIVATE, PUBLIC = ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY


@pytest.fixture
def kek(token: Pkcs11Token) -> str:
    token.make_kek(KEK, P256_HPKE)
    return KEK


def without_pin(uri: str, *arguments: str) -> None:
    label = uri.removeprefix("pkcs11:token=").partition("?")[0]
    command = ["pkcs11-tool", "--module", str(softhsm_module()), "--token-label", label]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


def put_public(uri: str, key: ec.EllipticCurvePublicKey, directory: Path) -> None:
    file = directory / "public.der"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    file.write_bytes(key.public_bytes(serialization.Encoding.DER, form))
    without_pin(uri, "--write-object", str(file), "--type", "pubkey", "--label", KEK)


def remove_public(uri: str) -> None:
    without_pin(uri, "--delete-object", "--type", "pubkey", "--label", KEK)


class TestTheKek:
    def test_both_profiles_the_better_first(self, token: Pkcs11Token) -> None:
        assert token.profiles() == (AES_KW, P256_HPKE)

    def test_it_is_not_readable(self, token: Pkcs11Token, kek: str) -> None:
        with pytest.raises(pkcs11.AttributeSensitive):
            the_key(token, kek, PRIVATE)[Attribute.VALUE]

    def test_it_agrees_and_nothing_else(self, token: Pkcs11Token, kek: str) -> None:
        private = the_key(token, kek, PRIVATE)
        for operation in ("sign", "decrypt", "unwrap_key"):
            assert not hasattr(private, operation)
        for attribute in (Attribute.SIGN, Attribute.DECRYPT, Attribute.UNWRAP, Attribute.EXTRACTABLE):
            assert private[attribute] is False
        public = the_key(token, kek, PUBLIC)
        for attribute in (Attribute.VERIFY, Attribute.ENCRYPT, Attribute.WRAP, Attribute.DERIVE):
            assert public[attribute] is False

    @pytest.mark.parametrize("attribute", [Attribute.EXTRACTABLE, Attribute.SIGN, Attribute.DECRYPT])
    def test_it_cannot_be_changed(self, token: Pkcs11Token, kek: str, attribute: Attribute) -> None:
        with pytest.raises(pkcs11.PKCS11Error):
            the_key(token, kek, PRIVATE)[attribute] = True

    def test_it_is_not_wrapped_out(self, token: Pkcs11Token, kek: str) -> None:
        token.make_kek("medcrypt kek 00 2", AES_KW)
        with pytest.raises(pkcs11.KeyUnextractable):
            the_key(token, "medcrypt kek 00 2").wrap_key(the_key(token, kek, PRIVATE), mechanism=Mechanism.AES_KEY_WRAP)

    def test_an_imported_one_is_told_apart(self, token: Pkcs11Token) -> None:
        curve = session(token).create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: p256.PARAMETERS}, local=True)
        curve.generate_keypair(
            label=KEK, store=True, capabilities=MechanismFlag.DERIVE, private_template={Attribute.EXTRACTABLE: True}
        )
        problems = " ".join(token.evidence(KEK).problems)
        assert "NEVER_EXTRACTABLE" in problems
        assert "EXTRACTABLE is true" in problems

    def test_one_that_also_signs_is_judged_as_a_signing_key(self, token: Pkcs11Token) -> None:
        keys.generate_pair(session(token), KEK, MechanismFlag.DERIVE | MechanismFlag.SIGN, stored=True)
        assert token.evidence(KEK).problems == ("it can derive keys (DERIVE is true)",)

    def test_a_module_that_makes_it_sign_too_is_unfit(
        self, token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(p256_hpke, "DERIVING", MechanismFlag.DERIVE | MechanismFlag.SIGN)
        with pytest.raises(TokenUnfit, match="SIGN is true"):
            token.make_kek(KEK, P256_HPKE)
        assert not token.names()

    def test_a_module_that_makes_a_signing_key_agree_too_is_unfit(
        self, token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pkcs11_token, "SIGNING", keys.SIGNING | MechanismFlag.DERIVE)
        with pytest.raises(TokenUnfit, match="DERIVE is true"):
            token.make_signing_key(AUDIT)
        assert not token.names()

    def test_a_module_that_makes_a_signing_key_to_carry_off_is_unfit(
        self, token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "GUARDED", {**keys.GUARDED, Attribute.EXTRACTABLE: True})
        with pytest.raises(TokenUnfit, match="EXTRACTABLE is true"):
            token.make_signing_key(AUDIT)
        assert not token.names()

    def test_a_module_that_lets_nobody_read_what_was_agreed_is_unfit(
        self, token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(p256_hpke, "READABLE", keys.GUARDED)  # what a module does that ignores the template
        with pytest.raises(TokenUnfit, match="does not let the host read") as unfit:
            token.make_kek(KEK, P256_HPKE)
        assert unfit.value.hint
        assert not token.names()
        report = check_token(token, profile=P256_HPKE)
        assert not report.ok
        assert [step.ok for step in report.steps] == [False] * 6 + [True, True]

    def test_a_destroyed_one_agrees_on_nothing(self, token: Pkcs11Token, kek: str) -> None:
        handle = the_key(token, kek, PRIVATE)
        assert token._objects.still_works(handle)
        token.destroy(kek)
        assert not token._objects.still_works(handle)
        with pytest.raises(pkcs11.PKCS11Error):
            handle.derive_key(
                KeyType.GENERIC_SECRET, 256, capabilities=MechanismFlag(0), mechanism=Mechanism.ECDH1_DERIVE,
                mechanism_param=(KDF.NULL, None, p256.GENERATOR), template=keys.READABLE,
            )  # fmt: skip


class TestAgreeing:
    @pytest.mark.parametrize("first", [0x00, 0x3F, 0x41, 0x04])
    def test_points_that_look_like_der(self, token: Pkcs11Token, kek: str, first: int) -> None:
        """A module may take 04 3F … for an OCTET STRING of 63 bytes."""
        private, public = the_key(token, kek, PRIVATE), serialization.load_der_public_key(token.public_key(kek))
        assert isinstance(public, ec.EllipticCurvePublicKey)
        while True:
            own = ec.generate_private_key(ec.SECP256R1())
            form = serialization.PublicFormat.UncompressedPoint
            point = own.public_key().public_bytes(serialization.Encoding.X962, form)
            if point[1] == first:
                break
        agreed = p256_hpke.ecdh(token._place, session(token), private, point)
        assert agreed.value == own.exchange(ec.ECDH(), public)

    def test_a_secret_that_begins_with_zeros_has_32_bytes_all_the_same(self, token: Pkcs11Token, kek: str) -> None:
        public = serialization.load_der_public_key(token.public_key(kek))
        assert isinstance(public, ec.EllipticCurvePublicKey)
        while True:
            own = ec.generate_private_key(ec.SECP256R1())
            if own.exchange(ec.ECDH(), public)[0] == 0:
                break
        point = own.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        agreed = p256_hpke.ecdh(token._place, session(token), the_key(token, kek, PRIVATE), point)
        assert agreed.value == own.exchange(ec.ECDH(), public)

    def test_nothing_of_an_unwrapping_stays_in_the_session(self, token: Pkcs11Token, kek: str) -> None:
        wrapped = token.wrap_keyset(kek, SECRET, INFO)
        token.unwrap_keyset(kek, wrapped, INFO)
        token.unwrap_keyset_to_host(kek, wrapped, INFO)
        with pytest.raises(NotAuthentic):
            token.unwrap_keyset(kek, wrapped, b"other")
        assert not list(session(token).get_objects({Attribute.TOKEN: False}))

    def test_nor_of_a_check(self, token: Pkcs11Token) -> None:
        assert check_token(token, profile=P256_HPKE).ok
        assert not list(session(token).get_objects())

    def test_nor_of_bringing_an_aes_keyset_to_the_host(self, token: Pkcs11Token) -> None:
        token.make_kek(KEK, AES_KW)
        wrapped = token.wrap_keyset(KEK, SECRET, b"")
        for part in (wrapped, wrapped[:80] + bytes(40)):
            try:
                for secret in token.unwrap_keyset_to_host(KEK, part, b""):
                    secret.wipe()
            except NotAuthentic:
                assert part is not wrapped
        assert not list(session(token).get_objects({Attribute.TOKEN: False}))


class TestExchangedKeys:
    """Public objects, and keys marked public, can be put on a token by anybody who reaches it, without a PIN."""

    def test_nothing_is_sealed_to_a_foreign_public_key(
        self, token: Pkcs11Token, kek: str, uri: str, tmp_path: Path
    ) -> None:
        wrapped = token.wrap_keyset(kek, SECRET, INFO)
        token.close()
        remove_public(uri)
        put_public(uri, ec.generate_private_key(ec.SECP256R1()).public_key(), tmp_path)
        with open_token(uri, pin) as again:
            with pytest.raises(TokenError, match="does not belong") as refused:
                again.wrap_keyset(kek, SECRET, INFO)
            assert "exchanged" in refused.value.hint
            with pytest.raises(TokenError, match="does not belong"):
                again.public_key(kek)
            with pytest.raises(NotAuthentic):
                again.unwrap_keyset(kek, wrapped, INFO)

    def test_two_public_keys_are_never_chosen_from(
        self, token: Pkcs11Token, kek: str, uri: str, tmp_path: Path
    ) -> None:
        token.close()
        put_public(uri, ec.generate_private_key(ec.SECP256R1()).public_key(), tmp_path)
        with open_token(uri, pin) as again, pytest.raises(TokenError, match="more than one key"):
            again.wrap_keyset(kek, SECRET, INFO)

    def test_a_public_key_on_another_curve_is_none(
        self, token: Pkcs11Token, kek: str, uri: str, tmp_path: Path
    ) -> None:
        token.close()
        remove_public(uri)
        put_public(uri, ec.generate_private_key(ec.SECP256K1()).public_key(), tmp_path)
        with open_token(uri, pin) as again, pytest.raises(TokenUnfit, match="not a P-256 key"):
            again.wrap_keyset(kek, SECRET, INFO)

    def test_a_missing_public_key_is_a_problem(self, token: Pkcs11Token, kek: str, uri: str) -> None:
        wrapped = token.wrap_keyset(kek, SECRET, INFO)
        token.close()
        remove_public(uri)
        with open_token(uri, pin) as again:
            assert again.evidence(kek).problems == ("its public key is not on the token",)
            with pytest.raises(KeyError):
                again.unwrap_keyset(kek, wrapped, INFO)

    @pytest.mark.parametrize("profile", [AES_KW, P256_HPKE])
    def test_a_key_of_the_other_kind_beside_the_kek_is_never_chosen(
        self, token: Pkcs11Token, uri: str, profile: str
    ) -> None:
        token.make_kek(KEK, profile)
        wrapped = token.wrap_keyset(KEK, SECRET, INFO)
        if profile == AES_KW:
            keys.generate_pair(session(token), KEK, MechanismFlag.DERIVE, stored=True)
        else:
            session(token).create_object(
                {
                    Attribute.CLASS: ObjectClass.SECRET_KEY,
                    Attribute.KEY_TYPE: KeyType.AES,
                    Attribute.LABEL: KEK,
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: False,
                    Attribute.WRAP: True,
                    Attribute.UNWRAP: True,
                    Attribute.VALUE: bytes(32),
                }
            )
        token.close()
        with open_token(uri, pin) as again:
            for use in (
                lambda: again.wrap_keyset(KEK, SECRET, INFO),
                lambda: again.unwrap_keyset(KEK, wrapped, INFO),
                lambda: again.unwrap_keyset_to_host(KEK, wrapped, INFO),
                lambda: again.evidence(KEK),
            ):
                with pytest.raises(TokenError, match="more than one key"):
                    use()


class TestDisturbed:
    def test_a_kek_destroyed_by_another_program_is_not_there(self, token: Pkcs11Token, kek: str, uri: str) -> None:
        wrapped = token.wrap_keyset(kek, SECRET, INFO)
        outside_program(uri, "--delete-object", "--type", "privkey", "--label", KEK)
        with pytest.raises(KeyError, match=KEK):
            token.unwrap_keyset(kek, wrapped, INFO)

    def test_a_vanished_token_is_removed(self, softhsm: SoftHsm, token: Pkcs11Token, kek: str, tmp_path: Path) -> None:
        wrapped = token.wrap_keyset(kek, SECRET, INFO)
        home = directory_of(softhsm, token.info.label)
        away = home.rename(tmp_path / "away")
        try:
            for use in (
                lambda: token.unwrap_keyset(kek, wrapped, INFO),
                lambda: token.unwrap_keyset_to_host(kek, wrapped, INFO),
                lambda: token.wrap_keyset(kek, SECRET, INFO),
                lambda: token.make_kek("medcrypt kek 00 2", P256_HPKE),
                lambda: token.destroy(kek),
            ):
                with pytest.raises(TokenRemoved):
                    use()
        finally:
            away.rename(home)


@pytest.mark.parametrize(("profile", "unwrapped"), [(AES_KW, 0), (P256_HPKE, 1)])
def test_how_often_an_unwrapped_keyset_is_in_the_host_s_memory(
    token: Pkcs11Token, uri: str, profile: str, unwrapped: int
) -> None:
    """With the token's own module in the same process, which SoftHSM2 is."""
    keyset = (secrets.token_bytes(32), secrets.token_bytes(32), secrets.token_bytes(32))
    token.make_kek(KEK, profile)
    wrapped = token.wrap_keyset(KEK, keyset, b"")
    token.close()
    steps = {"nothing yet": 0, "unwrapped": unwrapped, "destroyed": 0, "on the host": 1, "wiped": 0, "closed": 0}
    with Looked("token", uri, KEK, wrapped.hex()) as process:
        for step, copies in steps.items():
            with process.at(step):
                assert [process.copies(key) for key in keyset] == [copies] * 3, step


def test_the_pin_stays_out_of_it(token: Pkcs11Token, kek: str) -> None:
    shown = repr(token) + repr(token.unwrap_keyset(kek, token.wrap_keyset(kek, SECRET, INFO), INFO))
    for hidden in (USER_PIN, *map(repr, SECRET), *(part.hex() for part in SECRET)):
        assert hidden not in shown
