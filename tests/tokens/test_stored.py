"""URIs that a vault file names: whose they are, and how far a file is followed."""

from __future__ import annotations

from medcrypt_hsm.tokens.stored import same_token, stored_uri


def test_a_stored_uri_is_the_one_a_person_means() -> None:
    assert same_token("yubikey:0123", "yubikey:123")
    assert not same_token("yubikey:124", "yubikey:123")
    assert not same_token("yubikey:x", "yubikey:x")
    assert not same_token("yubikey:1", "pkcs11:serial=1")
    assert not same_token("pkcs11:serial=1", "yubikey:1")
    assert stored_uri("yubikey:123") == "yubikey:123"
