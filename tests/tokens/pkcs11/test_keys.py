"""Keys that cannot be carried off, read or changed: what PKCS#11 shows of each."""

from __future__ import annotations

from typing import Any, cast

import pkcs11
import pytest
from pkcs11 import Attribute, Mechanism, ObjectClass

from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.tokens import AES_KW
from medcrypt_hsm.tokens.check import check_token
from medcrypt_hsm.tokens.pkcs11 import keys
from medcrypt_hsm.tokens.pkcs11.keys import Pkcs11WrappingKey
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import ANCHOR, AUDIT, KEK, SECRET, session, the_key


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
