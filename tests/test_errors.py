"""Every error of the program: one tree, one exit code and one name each."""

from __future__ import annotations

from medcrypt_hsm.errors import MedcryptError, VaultDamaged


def test_errors_are_caught_by_one_name() -> None:
    assert issubclass(VaultDamaged, MedcryptError)
