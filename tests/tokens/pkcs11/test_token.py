"""What only PKCS#11 can show: keys that cannot be carried off, published vectors, and tokens that are disturbed."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pkcs11
import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from medcrypt_hsm.errors import NotAuthentic, TokenAbsent, TokenError, TokenRemoved, TokenUnfit, WrongPin
from medcrypt_hsm.tokens import AES_KW, Token, TokenInfo
from medcrypt_hsm.tokens.access import find_token, list_tokens, open_token
from medcrypt_hsm.tokens.check import check_token
from medcrypt_hsm.tokens.pkcs11 import keys
from medcrypt_hsm.tokens.pkcs11.errors import translate
from medcrypt_hsm.tokens.pkcs11.keys import Pkcs11WrappingKey
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.softhsm import USER_PIN, WRONG_PIN, SoftHsm, softhsm_module

KEK = "medcrypt kek 00 1"
AUDIT = "medcrypt audit 00"
ANCHOR = "medcrypt anchor 00"
SECRET = (b"w" * 32, b"m" * 32, b"s" * 32)


def pin(info: TokenInfo) -> str:
    return USER_PIN


def never(info: TokenInfo) -> str:
    raise AssertionError("asked for a PIN")


@pytest.fixture
def uri(softhsm: SoftHsm) -> str:
    return softhsm.make_token()


@pytest.fixture
def token(uri: str) -> Iterator[Pkcs11Token]:
    with open_token(uri, pin) as token:
        assert isinstance(token, Pkcs11Token)
        yield token


def session(token: Pkcs11Token) -> pkcs11.Session:
    return token._session


def the_key(token: Pkcs11Token, name: str = KEK, kind: ObjectClass = ObjectClass.SECRET_KEY) -> Any:
    (key,) = list(session(token).get_objects({Attribute.LABEL: name, Attribute.CLASS: kind}))
    return key


def import_key(token: Pkcs11Token, value: bytes, name: str = KEK, **uses: bool) -> Any:
    """Test set-up: a KEK that the host knows, which the program itself never makes."""
    return session(token).create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.LABEL: name,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.WRAP: True,
            Attribute.UNWRAP: True,
            **{Attribute[use.upper()]: value for use, value in uses.items()},
            Attribute.VALUE: value,
        }
    )


def directory_of(softhsm: SoftHsm, label: str) -> Path:
    """Where SoftHSM2 keeps this token."""
    tokens = (softhsm.directory / "tokens").iterdir()
    (directory,) = [path for path in tokens if label.encode() in (path / "token.object").read_bytes()]
    return directory


class TestKeysStay:
    def test_a_kek_is_not_readable(self, token: Pkcs11Token) -> None:
        token.make_kek(KEK, AES_KW)
        with pytest.raises(pkcs11.AttributeSensitive):
            the_key(token)[Attribute.VALUE]

    def test_a_kek_is_not_wrapped_out(self, token: Pkcs11Token) -> None:
        token.make_kek(KEK, AES_KW)
        token.make_kek("medcrypt kek 00 2", AES_KW)
        with pytest.raises(pkcs11.KeyUnextractable):
            the_key(token, "medcrypt kek 00 2").wrap_key(the_key(token), mechanism=Mechanism.AES_KEY_WRAP)

    @pytest.mark.parametrize("use", [keys.SEALING, keys.MAC])
    def test_a_kek_wraps_and_nothing_else(self, token: Pkcs11Token, use: Any) -> None:
        token.make_kek(KEK, AES_KW)
        kek = the_key(token)
        for operation in ("encrypt", "decrypt", "sign", "verify", "derive_key"):
            assert not hasattr(kek, operation)
        for attribute in (Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.SIGN, Attribute.VERIFY, Attribute.DERIVE):
            assert kek[attribute] is False

    @pytest.mark.parametrize(
        ("attribute", "value"),
        [
            (Attribute.EXTRACTABLE, True),
            (Attribute.SENSITIVE, False),
            (Attribute.DECRYPT, True),
            (Attribute.LABEL, "medcrypt kek 00 9"),
        ],
    )
    def test_a_kek_cannot_be_changed(self, token: Pkcs11Token, attribute: Attribute, value: object) -> None:
        token.make_kek(KEK, AES_KW)
        with pytest.raises(pkcs11.PKCS11Error):
            the_key(token)[attribute] = value

    def test_a_signing_key_is_not_readable(self, token: Pkcs11Token) -> None:
        token.make_signing_key(AUDIT)
        with pytest.raises(pkcs11.AttributeSensitive):
            the_key(token, AUDIT, ObjectClass.PRIVATE_KEY)[Attribute.VALUE]
        assert token.evidence(AUDIT).claims["sign"] is True
        assert token.evidence(AUDIT).claims["decrypt"] is False

    def test_what_is_unwrapped_is_not_readable_and_not_stored(self, token: Pkcs11Token) -> None:
        token.make_kek(KEK, AES_KW)
        keyset = token.unwrap_keyset(KEK, token.wrap_keyset(KEK, SECRET, b""), b"")
        wrapping = cast(Pkcs11WrappingKey, keyset.wrapping)
        aead = wrapping.unwrap_aead(wrapping.wrap(bytes(32)))
        for handle in (wrapping, keyset.mac, keyset.sealing, aead):
            key = cast(Any, handle)._key
            with pytest.raises(pkcs11.AttributeSensitive):
                key[Attribute.VALUE]
            assert key[Attribute.TOKEN] is False
            with pytest.raises(pkcs11.PKCS11Error):
                key[Attribute.EXTRACTABLE] = True

    def test_nothing_of_a_wrapping_stays_in_the_session(self, token: Pkcs11Token) -> None:
        token.make_kek(KEK, AES_KW)
        keyset = token.unwrap_keyset(KEK, token.wrap_keyset(KEK, SECRET, b""), b"")
        keyset.wrapping.unwrap_mac(keyset.wrapping.wrap(bytes(32))).destroy()
        with pytest.raises(NotAuthentic):
            token.unwrap_keyset(KEK, token.wrap_keyset(KEK, SECRET, b"")[:80] + bytes(40), b"")
        for handle in (keyset.wrapping, keyset.mac, keyset.sealing):
            handle.destroy()
        assert not list(session(token).get_objects({Attribute.TOKEN: False}))

    def test_a_check_leaves_nothing_in_the_session_either(self, token: Pkcs11Token) -> None:
        assert check_token(token).ok
        assert not list(session(token).get_objects())

    def test_objects_need_the_pin(self, token: Pkcs11Token, uri: str) -> None:
        token.put_object(ANCHOR, b"value")
        assert the_key(token, ANCHOR, ObjectClass.DATA)[Attribute.PRIVATE] is True


class TestEvidence:
    def test_an_imported_kek_is_told_apart(self, token: Pkcs11Token) -> None:
        import_key(token, bytes(32), encrypt=True)
        problems = " ".join(token.evidence(KEK).problems)
        for words in ("LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "it can encrypt"):
            assert words in problems
        assert "it can wrap" not in problems

    def test_a_module_that_ignores_templates_is_unfit(
        self, token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token.make_kek(KEK, AES_KW)
        wrapped = token.wrap_keyset(KEK, SECRET, b"")
        token.unwrap_keyset(KEK, wrapped, b"")
        # What SoftHSM2 does when it is not told.
        monkeypatch.setattr(keys, "GUARDED", {Attribute.PRIVATE: True, Attribute.EXTRACTABLE: True})
        with pytest.raises(TokenUnfit, match="SENSITIVE is false, EXTRACTABLE is true"):
            token.unwrap_keyset(KEK, wrapped, b"")

    def test_a_missing_public_key_is_a_problem(self, token: Pkcs11Token) -> None:
        token.make_signing_key(AUDIT)
        the_key(token, AUDIT, ObjectClass.PUBLIC_KEY).destroy()
        assert token.evidence(AUDIT).problems == ("its public key is not on the token",)


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


class TestDuplicates:
    def test_two_keys_of_one_name_are_never_chosen_from(self, token: Pkcs11Token) -> None:
        import_key(token, bytes(32))
        import_key(token, b"x" * 32)
        for use in (
            lambda: token.wrap_keyset(KEK, SECRET, b""),
            lambda: token.unwrap_keyset(KEK, bytes(120), b""),
            lambda: token.evidence(KEK),
        ):
            with pytest.raises(TokenError, match=f"more than one key '{KEK}'"):
                use()
        assert token.names() == [KEK]
        token.destroy(KEK)
        assert token.names() == []

    def test_an_interrupted_replacement_shows_both(self, token: Pkcs11Token) -> None:
        token.put_object(ANCHOR, b"first")
        session(token).create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.LABEL: ANCHOR,
                Attribute.APPLICATION: "medcrypt",
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.VALUE: b"second",
            }
        )
        assert sorted(token.read_objects(ANCHOR)) == [b"first", b"second"]
        token.put_object(ANCHOR, b"third")
        assert list(token.read_objects(ANCHOR)) == [b"third"]


def outside_program(uri: str, *arguments: str) -> None:
    label = uri.removeprefix("pkcs11:token=").partition("?")[0]
    command = ["pkcs11-tool", "--module", str(softhsm_module()), "--token-label", label, "--login", "--pin", USER_PIN]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


class TestDisturbed:
    def test_a_kek_destroyed_by_another_program_is_not_there(self, token: Pkcs11Token, uri: str) -> None:
        token.make_kek(KEK, AES_KW)
        wrapped = token.wrap_keyset(KEK, SECRET, b"")
        outside_program(uri, "--delete-object", "--type", "secrkey", "--label", KEK)
        with pytest.raises(KeyError, match=KEK):
            token.unwrap_keyset(KEK, wrapped, b"")
        with pytest.raises(KeyError):
            token.wrap_keyset(KEK, SECRET, b"")
        assert token.names() == []

    def test_a_signing_key_destroyed_by_another_program_is_not_there(self, token: Pkcs11Token, uri: str) -> None:
        token.make_signing_key(AUDIT)
        outside_program(uri, "--delete-object", "--type", "privkey", "--label", AUDIT)
        with pytest.raises(KeyError, match=AUDIT):
            token.sign(AUDIT, b"head")

    def test_a_vanished_token_is_removed_not_empty(self, softhsm: SoftHsm, uri: str, tmp_path: Path) -> None:
        token = open_token(uri, pin)
        token.make_kek(KEK, AES_KW)
        token.make_signing_key(AUDIT)
        token.put_object(ANCHOR, b"value")
        wrapped = token.wrap_keyset(KEK, SECRET, b"")
        sealing = token.unwrap_keyset(KEK, wrapped, b"").sealing
        home = directory_of(softhsm, token.info.label)
        away = home.rename(tmp_path / "away")
        try:
            for use in (
                lambda: token.wrap_keyset(KEK, SECRET, b""),
                lambda: token.unwrap_keyset(KEK, wrapped, b""),
                lambda: token.sign(AUDIT, b"head"),
                lambda: token.names(),
                lambda: token.read_objects(ANCHOR),
                lambda: token.put_object(ANCHOR, b"newer"),
                lambda: token.destroy(KEK),  # an empty search is no proof of destruction
                lambda: token.evidence(KEK),
                lambda: token.make_kek("medcrypt kek 00 2", AES_KW),
                lambda: sealing.open(bytes(12), bytes(32), b""),  # a refusal proves nothing either
            ):
                with pytest.raises(TokenRemoved):
                    use()
            token.close()
            with pytest.raises((TokenAbsent, TokenRemoved)):
                open_token(uri, never)
        finally:
            away.rename(home)
        with open_token(uri, pin) as again:
            assert len(again.names()) == 3

    def test_a_token_that_vanishes_at_the_prompt_gets_no_pin(self, softhsm: SoftHsm, uri: str, tmp_path: Path) -> None:
        home = directory_of(softhsm, find_token(uri).label)

        def pull(info: TokenInfo) -> str:
            home.rename(tmp_path / "away")
            return USER_PIN

        try:
            with pytest.raises(TokenRemoved):
                open_token(uri, pull)
        finally:
            (tmp_path / "away").rename(home)


class TestOpening:
    def test_a_wrong_pin_is_sent_once_and_leaves_no_session(self, uri: str) -> None:
        for _ in range(3):
            asked: list[TokenInfo] = []

            def wrong(info: TokenInfo, asked: list[TokenInfo] = asked) -> str:
                asked.append(info)
                return WRONG_PIN

            with pytest.raises(WrongPin) as refused:
                open_token(uri, wrong)
            assert len(asked) == 1
            assert refused.value.tries_left is None  # SoftHSM2 does not say
            assert WRONG_PIN not in str(refused.value)
        with open_token(uri, pin):
            pass

    @pytest.mark.parametrize("long", ["x" * 300, "1"])
    def test_an_impossible_pin_is_a_wrong_one(self, uri: str, long: str) -> None:
        with pytest.raises(WrongPin):
            open_token(uri, lambda info: long)

    def test_an_absent_token_asks_for_no_pin(self) -> None:
        with pytest.raises(TokenAbsent) as absent:
            open_token(f"pkcs11:token=nobody?module-path={softhsm_module()}", never)
        assert absent.value.exit_code == 3

    def test_two_that_fit_are_named(self, softhsm: SoftHsm, uri: str) -> None:
        softhsm.make_token()
        serials = {info.serial for info in list_tokens([str(softhsm_module())]) if info.initialized}
        assert len(serials) > 1
        with pytest.raises(TokenError) as two:
            open_token(f"pkcs11:model=SoftHSM%20v2?module-path={softhsm_module()}", never)
        assert find_token(uri).serial in str(two.value)
        assert "serial=" in two.value.hint

    def test_a_serial_settles_it(self, uri: str) -> None:
        serial = find_token(uri).serial
        with open_token(f"pkcs11:serial={serial}?module-path={softhsm_module()}", pin) as token:
            assert token.info.serial == serial

    def test_two_tokens_are_open_at_once(self, softhsm: SoftHsm, uri: str) -> None:
        other = softhsm.make_token()
        with open_token(other, pin) as second, open_token(uri, pin) as first:
            first.make_kek(KEK, AES_KW)
            wrapped = first.wrap_keyset(KEK, SECRET, b"")
            second.put_object(ANCHOR, b"second")
            assert not first.read_objects(ANCHOR)
            second.close()
            assert first.unwrap_keyset(KEK, wrapped, b"")

    def test_looking_for_a_new_token_cuts_no_session_off(self, softhsm: SoftHsm, token: Pkcs11Token) -> None:
        token.make_kek(KEK, AES_KW)
        # Made by another process after the module was loaded, and without telling this one as make_token() does.
        label = f"newer-{secrets.token_hex(4)}"
        softhsm._make_tokens(label)
        newer = f"pkcs11:token={label}?module-path={softhsm_module()}"
        with pytest.raises(TokenAbsent):
            open_token(newer, never)
        assert token.wrap_keyset(KEK, SECRET, b"")
        token.close()
        with open_token(newer, pin):
            pass

    def test_a_module_that_cannot_be_loaded(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.so"
        broken.write_bytes(b"no library")
        with pytest.raises(TokenError, match=r"broken\.so cannot be used"):
            open_token(f"pkcs11:token=a?module-path={broken}", never)
        good = str(softhsm_module())
        infos = list_tokens([str(broken), str(tmp_path / "absent.so"), good])
        assert [bool(info.problem) for info in infos[:2]] == [True, True]
        assert any(info.initialized for info in infos[2:])
        with pytest.raises(TokenAbsent, match=r"broken\.so"):
            open_token("pkcs11:token=a", never, modules=[str(broken), good])


class _Gone:
    title = "token 'x'"
    closed = False

    def present(self) -> bool:
        return False


class _There(_Gone):
    def present(self) -> bool:
        return True


def test_every_foreign_error_has_words_and_one_of_ours() -> None:
    errors = {
        value
        for value in vars(pkcs11.exceptions).values()
        if isinstance(value, type) and issubclass(value, pkcs11.PKCS11Error)
    }
    assert len(errors) > 60
    for error in errors:
        for place, opening in ((_Gone(), False), (_There(), False), (_There(), True)):
            ours = translate(error(), place, "signing", opening=opening)
            assert ours.exit_code in (3, 4, 5)
            assert "token 'x'" in ours.message
            assert "CKR" not in ours.message
            assert error.__name__ == "PinLocked" or error.__name__ not in ours.message


def test_a_name_is_not_a_prefix(token: Token) -> None:
    token.put_object("medcrypt anchor 1", b"one")
    assert not token.read_objects("medcrypt anchor")
    assert not token.read_objects("medcrypt anchor 11")


def test_threads_share_a_token(token: Pkcs11Token) -> None:
    """SoftHSM2 crashes the process where two threads call it at once."""
    token.make_kek(KEK, AES_KW)
    token.make_signing_key(AUDIT)
    keyset = token.unwrap_keyset(KEK, token.wrap_keyset(KEK, SECRET, b""), b"")

    def work(number: int) -> None:
        nonce = number.to_bytes(12, "big")
        for _ in range(100):
            assert keyset.sealing.open(nonce, keyset.sealing.seal(nonce, b"text", b""), b"") == b"text"
            keyset.wrapping.unwrap_mac(keyset.wrapping.wrap(bytes(32))).destroy()
            token.sign(AUDIT, nonce)
            token.read_objects(ANCHOR)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_a_forked_child_uses_the_token_afresh(uri: str) -> None:
    with open_token(uri, pin) as token:
        token.put_object(ANCHOR, b"value")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open_token(uri, pin) as again:
                status = 0 if list(again.read_objects(ANCHOR)) == [b"value"] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
