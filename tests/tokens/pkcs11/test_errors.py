"""The table of foreign errors: every PKCS#11 return value has words and one of our errors."""

from __future__ import annotations

import pkcs11

from medcrypt_hsm.tokens.pkcs11.errors import translate


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
