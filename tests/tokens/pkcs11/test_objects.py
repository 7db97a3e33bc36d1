"""Objects by name: two of one name, one that was replaced half-way, and names that begin alike."""

from __future__ import annotations

import pytest
from pkcs11 import Attribute, ObjectClass

from medcrypt_hsm.errors import TokenError
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import ANCHOR, KEK, SECRET, import_key, session


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


def test_a_name_is_not_a_prefix(token: Token) -> None:
    token.put_object("medcrypt anchor 1", b"one")
    assert not token.read_objects("medcrypt anchor")
    assert not token.read_objects("medcrypt anchor 11")
