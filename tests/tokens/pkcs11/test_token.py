"""What only PKCS#11 can show: tokens that are disturbed, opened twice or not there, threads, and a forked child."""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medcrypt_hsm.errors import TokenAbsent, TokenError, TokenRemoved, WrongPin
from medcrypt_hsm.tokens import AES_KW, TokenInfo
from medcrypt_hsm.tokens.access import find_token, list_tokens, open_token
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import ANCHOR, AUDIT, KEK, SECRET, directory_of, never, outside_program, pin
from tests.support.softhsm import USER_PIN, WRONG_PIN, SoftHsm, softhsm_module


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
