"""The tokens of an open vault through the library. What happens on them: tests/lifecycle/."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import TokenAbsent, UsageError, WrongPin
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from tests.support.practice import Practice, unlocked
from tests.support.softhsm import WRONG_PIN, SoftHsm


def never(info: object) -> str:
    raise AssertionError("a PIN was asked for")


def test_what_cannot_be_added_is_said_before_a_pin_is_asked_for(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        before = unlocked(vault).log.sequence
        for name, uri, options, words in (
            ("el segundo", "pkcs11:token=x", TokenOptions(), "'el segundo' is no name for a token"),
            ("spare", "pkcs11:token=x", TokenOptions("rot13"), "'rot13' is not a profile"),
            ("spare", shared_practice.uri, TokenOptions(), "that token is registered already: it is doctor"),
        ):
            with pytest.raises(UsageError, match=words):
                vault.tokens.add(name, uri, pin=never, options=options)
        with pytest.raises(TokenAbsent):
            vault.tokens.add("spare", "pkcs11:token=nowhere", pin=never)
        assert unlocked(vault).log.sequence == before


def test_a_wrong_pin_is_recorded_and_nothing_is_begun(shared_practice: Practice, softhsm: SoftHsm) -> None:
    uri = softhsm.make_token()
    with shared_practice.open() as vault:
        with pytest.raises(WrongPin):
            vault.tokens.add("spare", uri, pin=lambda info: WRONG_PIN)
        assert unlocked(vault).state.adding == {}
        (_, entry) = vault.log.entries()[-2]
        assert (entry.action, entry.subject, entry.outcome) == ("token.add", "spare", "pin-wrong")


def test_what_the_token_claims_of_the_vaults_keys(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        vault_id = unlocked(vault).state.vault_id.hex()
        kek, audit = vault.tokens.evidence()
        assert (kek.name, audit.name) == (f"medcrypt kek {vault_id} 1", f"medcrypt audit {vault_id}")


def test_with_nothing_to_sync_nothing_is_done(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        synced = vault.tokens.sync()
        assert (synced.renewed, synced.destroyed, synced.left) == ((), (), ())
