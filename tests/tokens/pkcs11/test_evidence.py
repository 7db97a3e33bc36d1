"""What a key says of itself, and in words what is wrong if it is not what it should be."""

from __future__ import annotations

import pytest
from pkcs11 import Attribute, ObjectClass

from medcrypt_hsm.errors import TokenUnfit
from medcrypt_hsm.tokens import AES_KW
from medcrypt_hsm.tokens.pkcs11 import keys
from medcrypt_hsm.tokens.pkcs11.evidence import SIGNING_KEY_SHOULD, problems
from medcrypt_hsm.tokens.pkcs11.token import Pkcs11Token
from tests.support.pkcs11_token import AUDIT, KEK, SECRET, import_key, the_key


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


GOOD = {name: wanted for name, (wanted, _) in SIGNING_KEY_SHOULD.items()}


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({}, []),
        ({"sensitive": False}, ["its value can be read (SENSITIVE is false)"]),
        ({"sign": False, "decrypt": True}, ["it cannot sign (SIGN is false)", "it can decrypt (DECRYPT is true)"]),
        ({"sensitive": None}, ["the token does not say whether SENSITIVE holds"]),
        ({"sign": None}, ["the token does not say whether SIGN holds"]),
        ({"decrypt": None}, []),  # a use that a token does not know is none that it offers
    ],
)
def test_what_is_wrong_with_a_signing_key(claims: dict[str, bool | None], found: list[str]) -> None:
    told = {name: value for name, value in (GOOD | claims).items() if value is not None}
    assert sorted(problems(told, SIGNING_KEY_SHOULD)) == sorted(found)
