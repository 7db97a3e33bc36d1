"""What is on a token when it is added: an interrupted run's leftovers go, nothing of a registered token ever does.

Whoever reaches a token can exchange public objects on it without its PIN, and two programs may have one vault open.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters

from medcrypt_hsm.errors import MonthsBehind, TokenRemoved, TokenUnfit, UsageError, VaultError, VaultRolledBack
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name
from medcrypt_hsm.vault.anchoring import Anchor
from tests.support.added_token import WHOLE, Pulled, WhenAnchored, add, on_token, told, vault_id
from tests.support.practice import Practice, pin
from tests.support.softhsm import USER_PIN, softhsm_module
from tests.support.store import rows
from tests.support.vault_builder import SoftToken
from tests.support.watched_token import WatchedToken
from tests.vault.test_anchoring import put_back


class TestLeftovers:
    def interrupt(self, practice: Practice, uri: str, at: int) -> None:
        with open_token(practice.uri, pin) as token, open_token(uri, pin) as spare, pytest.raises(TokenRemoved):
            add(practice, token, Pulled(spare, at))  # type: ignore[arg-type]

    def interrupt_before_introducing(self, practice: Practice, uri: str) -> None:
        """Its anchor is written, and the entry is not: the present token goes when it is to sign that."""
        with open_token(practice.uri, pin) as token, open_token(uri, pin) as spare:
            new = Pulled(spare)
            present = WhenAnchored(token, new)
            with pytest.raises(TokenRemoved):
                add(practice, present, new)  # type: ignore[arg-type]
        assert on_token(practice, uri) == WHOLE

    def test_are_cleared_by_the_next_run(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        with open_token(spare_uri, pin) as token:
            old = token.public_key(audit_key_name(vault_id(practice)))
        practice.add("spare", spare_uri)
        with open_token(spare_uri, pin) as token:
            assert token.public_key(audit_key_name(vault_id(practice))) != old
        assert on_token(practice, spare_uri) == WHOLE

    def test_under_another_name_too(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        practice.add("reserve", spare_uri)
        assert practice.status().problems == ()

    def test_stay_where_the_file_is_older_than_they_are(self, practice: Practice, spare_uri: str) -> None:
        older = practice.copy("older.db")
        self.interrupt_before_introducing(practice, spare_uri)
        put_back(practice, older)
        with practice.open() as vault, pytest.raises(VaultRolledBack, match="history that this file does not have"):
            vault.tokens.add("spare", spare_uri, pin=pin)
        assert on_token(practice, spare_uri) == WHOLE
        assert ("token.add", "intended") not in told(practice)

    def test_stay_where_the_file_went_another_way_since(self, practice: Practice, spare_uri: str) -> None:
        older = practice.copy("older.db")
        self.interrupt_before_introducing(practice, spare_uri)
        put_back(practice, older)
        with practice.open() as vault:
            for _ in range(4):
                vault.log.entries()  # each makes an entry
            with pytest.raises(VaultRolledBack, match="history that this file does not have"):
                vault.tokens.add("spare", spare_uri, pin=pin)
        assert on_token(practice, spare_uri) == WHOLE

    def test_stay_before_the_intent_is_signed(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        practice.clock.set("2027-03-01")
        with practice.open() as vault, pytest.raises(MonthsBehind):
            vault.tokens.add("spare", spare_uri, pin=pin)
        assert on_token(practice, spare_uri) == WHOLE

    def test_of_a_token_that_died_while_it_made_its_audit_key(self, practice: Practice, spare_uri: str) -> None:
        """What is left of it can be a public key that is none; here one of another curve stands for it."""
        name = audit_key_name(vault_id(practice))
        curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp384r1")}
        self.interrupt(practice, spare_uri, 7)
        with WatchedToken.open(spare_uri) as token:
            token.destroy(name)
            domain = token._session.create_domain_parameters(KeyType.EC, curve, local=True)
            domain.generate_keypair(label=name, store=True)
            with pytest.raises(TokenUnfit):
                token.public_key(name)
        practice.add("spare", spare_uri)
        assert on_token(practice, spare_uri) == WHOLE

    def test_an_anchor_that_no_key_there_signed_is_no_leftover(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        with open_token(spare_uri, pin) as token:
            token.destroy(audit_key_name(vault_id(practice)))
        held = on_token(practice, spare_uri)
        with pytest.raises(VaultError, match="no audit key that could have signed it"):
            practice.add("spare", spare_uri)
        assert on_token(practice, spare_uri) == held == ["anchor", "kek"]

    def test_of_another_vault_stay(self, practice: Practice, spare_uri: str) -> None:
        other = Practice(practice.path.with_name("other.db"), spare_uri, practice.clock)
        other.create().close()
        self.interrupt_before_introducing(practice, spare_uri)
        practice.add("spare", spare_uri)
        assert on_token(other, spare_uri) == WHOLE
        with other.open() as vault:
            vault.log.verify()

    def test_a_name_begun_with_another_token_says_so(self, practice: Practice, spare_uri: str, third_uri: str) -> None:
        self.interrupt(practice, spare_uri, 7)
        with pytest.raises(UsageError, match="was begun with another token") as caught:
            practice.add("spare", third_uri)
        assert "remove-token spare" in caught.value.hint
        with practice.open() as vault:
            vault.tokens.remove("spare")
        practice.add("spare", third_uri)
        assert practice.status().problems == ()


class TestWhatARegisteredTokenHolds:
    """Stays, whatever its public objects say and whenever the vault was opened."""

    @pytest.fixture
    def added(self, practice: Practice, spare_uri: str) -> Practice:
        practice.add("spare", spare_uri)
        return practice

    def refuse(self, practice: Practice, uri: str, words: str) -> None:
        """It is not added once more, nothing is begun, and it works on as the one that it is."""
        with practice.open(token="doctor") as vault, pytest.raises(VaultError, match=words):
            vault.tokens.add("again", uri, pin=pin)
        assert told(practice).count(("token.add", "intended")) == 1
        assert on_token(practice, uri) == WHOLE
        with practice.open(token="spare") as vault:
            vault.log.verify()

    def test_under_an_exchanged_public_key(self, added: Practice, spare_uri: str, tmp_path: Path) -> None:
        exchange_audit_key(added, spare_uri, SoftToken("stranger"), tmp_path)
        self.refuse(added, spare_uri, "no audit key that could have signed it")

    def test_beside_an_anchor_that_the_exchanged_key_signed(
        self, added: Practice, spare_uri: str, tmp_path: Path
    ) -> None:
        """The forged anchor is right in itself and names an entry of this very file; the genuine one is not its own."""
        stranger = SoftToken("stranger")
        exchange_audit_key(added, spare_uri, stranger, tmp_path)
        sequence, _, digest, *_ = rows(added.path, "entries")[0]
        anchor = Anchor(vault_id(added), stranger.id, sequence, digest, "2026-11-22T12:00:00Z", (stranger.id,))
        forged = tmp_path / "anchor"
        forged.write_bytes(anchor.signed(stranger.sign(anchor.to_sign)))
        without_pin(spare_uri, "--write-object", str(forged), "--type", "data", "--label", anchor_name(vault_id(added)))
        self.refuse(added, spare_uri, "no audit key that could have signed it")

    def test_that_another_program_registered_since_the_vault_was_opened(
        self, practice: Practice, spare_uri: str
    ) -> None:
        with practice.open() as vault:
            practice.elsewhere(f"vault.tokens.add('spare', {spare_uri!r}, pin=lambda info: {USER_PIN!r})")
            with pytest.raises(UsageError, match="registered already: it is spare"):
                vault.tokens.add("again", spare_uri, pin=pin)
        assert on_token(practice, spare_uri) == WHOLE
        with practice.open(token="spare") as vault:
            assert vault.log.verify().keys == ("doctor", "spare")


def without_pin(uri: str, *arguments: str) -> None:
    """What anybody can do who reaches the token."""
    label = uri.removeprefix("pkcs11:token=").partition("?")[0]
    command = ["pkcs11-tool", "--module", str(softhsm_module()), "--token-label", label]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


def exchange_audit_key(practice: Practice, uri: str, key: SoftToken, directory: Path) -> None:
    """``key`` instead of the public half of the vault's audit key."""
    label = audit_key_name(vault_id(practice))
    file = directory / "public.der"
    file.write_bytes(key.spki)
    without_pin(uri, "--delete-object", "--type", "pubkey", "--label", label)
    without_pin(uri, "--write-object", str(file), "--type", "pubkey", "--label", label)
