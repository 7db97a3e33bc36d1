"""URIs that a vault file names: whose they are, and how far a file is followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.tokens.uri import same_token, stored_uri
from tests.support.softhsm import softhsm_module


def test_a_stored_uri_is_the_one_a_person_means() -> None:
    assert same_token("yubikey:0123", "yubikey:123")
    assert not same_token("yubikey:124", "yubikey:123")
    assert not same_token("yubikey:x", "yubikey:x")
    assert not same_token("yubikey:1", "pkcs11:serial=1")
    assert not same_token("pkcs11:serial=1", "yubikey:1")
    assert stored_uri("yubikey:123") == "yubikey:123"


@pytest.mark.parametrize("how", ["a file", "nothing"])
def test_a_module_that_anybody_could_have_put_there_is_not_followed(tmp_path: Path, how: str) -> None:
    """It would be handed the PIN. The token is looked for as if the file had named none."""
    place = tmp_path / "module.so"
    if how == "a file":
        place.write_bytes(b"anything")
    assert stored_uri(f"pkcs11:token=doctor;serial=1?module-path={place}") == "pkcs11:token=doctor;serial=1"


def test_a_module_that_only_root_could_have_put_there_is() -> None:
    uri = f"pkcs11:token=doctor?module-path={softhsm_module()}"
    assert stored_uri(uri) == uri


@pytest.mark.parametrize(
    ("wanted", "same"),
    [
        ("pkcs11:token=doctor", True),
        ("pkcs11:serial=1;token=doctor?module-path=/any/module.so", True),
        ("pkcs11:token=doctor;serial=2", False),
        ("pkcs11:token=Doctor", False),
        ("pkcs11:?module-path=/usr/lib/m.so", False),  # names no token
        ("pkcs11:token=", False),
        ("doctor", False),
    ],
)
def test_a_person_may_say_less_of_a_token_than_the_vault_has_on_record(wanted: str, same: bool) -> None:
    record = "pkcs11:token=doctor;serial=1;manufacturer=M;model=X?module-path=/usr/lib/m.so"
    assert same_token(wanted, record) is same
