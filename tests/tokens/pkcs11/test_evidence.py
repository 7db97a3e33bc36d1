"""What a key says of itself, and in words what is wrong if it is not what it should be."""

from __future__ import annotations

import pytest
from pkcs11 import Attribute, ObjectClass

from medcrypt_hsm.errors import TokenUnfit
from medcrypt_hsm.tokens import AES_KW
from medcrypt_hsm.tokens.pkcs11 import keys
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import (
    AUDIT,
    KEK,
    SECRET,
    import_key,
    the_key,
)


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
