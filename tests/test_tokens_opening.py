"""Many texts opened at once: each is what it would have been alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.keys import AeadKey, open_each
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, Token, open_token
from medcrypt_hsm.tokens.pkcs11 import cryptoki
from tests.support import USER_PIN, SoftHsm

KEK = "medcrypt kek 00 1"
SECRET = (b"w" * 32, b"m" * 32, b"s" * 32)
NONCE = bytes(range(12))


@pytest.fixture(params=[AES_KW, P256_HPKE])
def token(request: pytest.FixtureRequest, softhsm: SoftHsm) -> Iterator[Token]:
    with open_token(softhsm.make_token(), lambda info: USER_PIN) as token:
        token.make_kek(KEK, request.param)
        yield token


@pytest.fixture
def key(token: Token) -> AeadKey:
    return token.unwrap_keyset(KEK, token.wrap_keyset(KEK, SECRET, b""), b"").sealing


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
    key = token.unwrap_keyset(KEK, token.wrap_keyset(KEK, SECRET, b""), b"").sealing
    token.close()
    with pytest.raises(RuntimeError):
        list(open_each(key, [text]))


@pytest.mark.parametrize("token", [AES_KW], indirect=True)
def test_an_interrupt_between_two_calls_leaves_the_session_usable(
    key: AeadKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [(NONCE, key.seal(NONCE, b"a note", b""), b"")]
    function = cryptoki._function

    def interrupted(path: str, index: int, *arguments: type) -> Callable[..., int]:
        call = function(path, index, *arguments)

        def late(session: int, *more: object) -> int:
            if more[1]:  # the text's length; none in the call that ends what was begun
                raise KeyboardInterrupt
            return int(call(session, *more))

        return late if index == cryptoki._C_DECRYPT else call

    with monkeypatch.context() as patch:
        patch.setattr(cryptoki, "_function", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(open_each(key, texts))
    assert list(open_each(key, texts)) == [b"a note"]
