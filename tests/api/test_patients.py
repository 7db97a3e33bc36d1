"""Pairing with patients through the library: codes, ways back, and what a refusal leaves."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import NotAuthentic, Refused, UsageError
from tests.support.practice import Practice


class TestWrongCodes:
    @pytest.mark.parametrize("unconfirmed", [False, True])
    def test_three_void_the_pairing(self, practice: Practice, unconfirmed: bool) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-1", unconfirmed=unconfirmed)
            for _ in range(3):
                with pytest.raises(NotAuthentic):
                    vault.patients.confirm("EXP-1", "000000")
            for use in (
                lambda: vault.patients.confirm("EXP-1", "000000"),
                lambda: vault.patients.qr("EXP-1"),
                lambda: vault.encrypt("EXP-1", "hola"),
            ):
                with pytest.raises(Refused):
                    use()
            vault.log.verify()


def test_v2_that_is_not_confirmed_yet_is_no_way_back_to_v1_either(practice: Practice) -> None:
    with practice.open() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        with pytest.raises(Refused, match="no way back"):
            vault.patients.add("EXP-1", protocol="v1")


def test_v1_has_no_code_to_leave_unconfirmed(practice: Practice) -> None:
    with practice.open() as vault, pytest.raises(UsageError):
        vault.patients.add("EXP-1", protocol="v1", unconfirmed=True)


def test_a_refused_encryption_and_a_refused_pairing_leave_entries(practice: Practice) -> None:
    with practice.open() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        with pytest.raises(Refused):
            vault.patients.add("EXP-1")
        with pytest.raises(UsageError):
            vault.encrypt("EXP-404", "hola")
        told = [(entry.action, entry.outcome) for _, entry in vault.log.entries()]
        assert ("patient.add", "refused") in told
        assert ("message.encrypt", "usage") in told
        vault.log.verify()
