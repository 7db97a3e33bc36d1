"""What is called past python-pkcs11: many texts opened at once, and HMACs. Each is what it would have been."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from medcrypt_hsm.crypto.handles import AeadKey, KeysetHandles, MacKey, open_each
from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, Token
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.pkcs11 import cryptoki
from medcrypt_hsm.tokens.pkcs11.modules import LOCK
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module

KEK = "medcrypt kek 00 1"
SECRET = (b"w" * 32, b"m" * 32, b"s" * 32)
NONCE = bytes(range(12))


@pytest.fixture(params=[AES_KW, P256_HPKE])
def token(request: pytest.FixtureRequest, softhsm: SoftHsm) -> Iterator[Token]:
    with open_token(softhsm.make_token(), lambda info: USER_PIN) as token:
        token.make_kek(KEK, request.param)
        yield token


def keyset(token: Token) -> KeysetHandles:
    return token.unwrap_keyset(KEK, token.wrap_keyset(KEK, SECRET, b""), b"")


@pytest.fixture
def key(token: Token) -> AeadKey:
    return keyset(token).sealing


def test_each_is_what_it_would_be_alone(key: AeadKey) -> None:
    texts = [secrets.token_bytes(length) for length in (0, 1, 300, 4079, 4080, 4081, 100_000)]
    good = [(NONCE, key.seal(NONCE, text, b"aad"), b"aad") for text in texts]
    bad = [(NONCE, bytes([sealed[0] ^ 1]) + sealed[1:], b"aad") for _, sealed, _ in good]
    bad += [(NONCE, good[2][1], b""), (bytes(12), good[2][1], b"aad")]
    bad += [(NONCE, bytes(length), b"aad") for length in (0, 1, 15, 16, 17)]
    for text in bad:
        with pytest.raises(NotAuthentic):
            key.open(*text)
    assert list(open_each(key, [*good, *bad, *good])) == [*texts, *[None] * len(bad), *texts]
    assert list(open_each(key, [])) == []


def test_misuse_is_misuse(token: Token, key: AeadKey) -> None:
    text = (NONCE, key.seal(NONCE, b"a note", b""), b"")
    for length in (0, 11, 13):
        with pytest.raises(ValueError, match="12 bytes"):
            list(open_each(key, [text, (bytes(length), bytes(16), b"")]))
    key.destroy()
    with pytest.raises(RuntimeError):
        list(open_each(key, [text]))
    key = keyset(token).sealing
    token.close()
    with pytest.raises(RuntimeError):
        list(open_each(key, [text]))


@pytest.fixture
def mac_key(token: Token) -> MacKey:
    return keyset(token).mac


def test_hmacs(mac_key: MacKey) -> None:
    for data in (b"", b"a", bytes(63), bytes(64), bytes(65), secrets.token_bytes(300), bytes(100_000)):
        assert mac_key.mac(data) == hmac.digest(SECRET[1], data, "sha256")


@pytest.mark.parametrize("token", [AES_KW], indirect=True)
def test_an_hmac_that_is_not_to_be_had(token: Token, mac_key: MacKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module refuses the key: python-pkcs11 says why. A token that was closed gives none of another session's."""
    with monkeypatch.context() as patch:
        patch.setattr(mac_key, "_hmac", lambda session, key, data: None)
        assert mac_key.mac(b"a") == hmac.digest(SECRET[1], b"a", "sha256"), "it is asked in the other way"
    other = keyset(token).mac
    other.destroy()
    with pytest.raises(RuntimeError):
        other.mac(b"a")
    token.close()
    with pytest.raises(RuntimeError):
        mac_key.mac(b"a")


@pytest.mark.parametrize("token", [AES_KW], indirect=True)
@pytest.mark.parametrize("end", ["destroyed", "closed"])
def test_a_key_that_goes_while_another_thread_waits_to_use_it(token: Token, mac_key: MacKey, end: str) -> None:
    """By then its handle may be another key's."""
    with ThreadPoolExecutor(1) as pool:
        with LOCK:
            waiting = pool.submit(mac_key.mac, b"a")
            time.sleep(0.05)
            mac_key.destroy() if end == "destroyed" else token.close()
        with pytest.raises(RuntimeError, match=end):
            waiting.result()


@pytest.mark.parametrize("token", [AES_KW], indirect=True)
@pytest.mark.parametrize("what", [cryptoki._C_DECRYPT, cryptoki._C_SIGN])
def test_an_interrupt_between_two_calls_leaves_the_session_usable(
    key: AeadKey, mac_key: MacKey, monkeypatch: pytest.MonkeyPatch, what: int
) -> None:
    texts = [(NONCE, key.seal(NONCE, b"a note", b""), b"")]
    function = cryptoki._function
    path = str(softhsm_module())

    def interrupted(path: str, index: int, *arguments: type) -> Callable[..., int]:
        call = function(path, index, *arguments)

        def late(session: int, *more: object) -> int:
            if more[1]:  # the text's length; none in the call that ends what was begun
                raise KeyboardInterrupt
            return int(call(session, *more))

        return late if index == what else call

    with monkeypatch.context() as patch:
        patch.setattr(cryptoki, "_function", interrupted)
        patch.setattr(mac_key, "_hmac", cryptoki.sha256_hmac.__wrapped__(path))
        with pytest.raises(KeyboardInterrupt):
            _ = list(open_each(key, texts)) if what == cryptoki._C_DECRYPT else mac_key.mac(b"a")
    assert list(open_each(key, texts)) == [b"a note"]
    assert mac_key.mac(b"a") == hmac.digest(SECRET[1], b"a", "sha256")
