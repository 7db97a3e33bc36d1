"""Several tokens in one vault, of mixed profiles: each works alone, and each remembers for itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import TokenAbsent, TokenHeld, UsageError, VaultRolledBack
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import find_token, open_token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name
from medcrypt_hsm.tokens.yubikey import discovery
from medcrypt_hsm.vault.anchoring import parse_anchor
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.choosing import choose_token, peek
from medcrypt_hsm.vault.inspection import status_of_file, verify_file
from tests.support.audited_practice import run as verify_audit
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.ready_yubikey import OtherProgram
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module
from tests.support.store import open_at, rows
from tests.support.yubikey import VirtualYubiKey

AES, P256 = "aes-kw", "p256-hpke"
NAMES = ("doctor", "spare", "third")
NOWHERE = "pkcs11:token=nowhere"


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    """Tokens for this module's vaults."""
    return {name: softhsm.make_token() for name in NAMES}


@pytest.fixture
def two(tmp_path: Path, uris: dict[str, str]) -> Practice:
    """A vault with doctor (aes-kw) and spare (p256-hpke), and a patient."""
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    with made.create() as vault:
        made.pair(vault, "EXP-1")
    made.add("spare", uris["spare"], using="doctor", options=TokenOptions(P256))
    return made


class TestAlone:
    @pytest.mark.parametrize(("first", "second"), [(AES, AES), (AES, P256), (P256, AES), (P256, P256)])
    def test_each_reads_and_writes_what_the_other_did(
        self, tmp_path: Path, uris: dict[str, str], first: str, second: str
    ) -> None:
        practice = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
        with practice.create(options=TokenOptions(first)) as vault:
            phone = practice.pair(vault, "EXP-1")
            (before,) = vault.encrypt("EXP-1", "antes")
        practice.add("spare", uris["spare"], options=TokenOptions(second))
        with practice.open(token="spare") as vault:
            assert vault.token_name == "spare"
            assert [message.text for message in vault.decrypt(before)] == ["antes"]
            (written,) = vault.encrypt("EXP-1", "con la segunda")
            assert vault.log.verify().keys == ("doctor", "spare")
        assert phone.read(written) == ["con la segunda"]
        with practice.open(token="doctor") as vault:
            assert [message.text for message in vault.decrypt(written)] == ["con la segunda"]
            vault.log.verify()
            on_record = {token.name: token for token in vault.status().tokens}
        assert [on_record[name].profile for name in ("doctor", "spare")] == [first, second]
        assert [bool(on_record[name].kek) for name in ("doctor", "spare")] == [first == P256, second == P256]

    def test_a_month_that_one_opened_is_open_with_all(self, two: Practice) -> None:
        two.clock.set("2026-12-02")
        with two.open(token="spare") as vault:
            (december,) = vault.encrypt("EXP-1", "diciembre")
            assert len(two.months_opened) == 1
        with two.open(token="doctor") as vault:
            assert vault.months.open() is None
            assert statuses(vault.decrypt(december)) == ["ok"]
            two.clock.set("2027-01-02")
            (january,) = vault.encrypt("EXP-1", "enero")
            assert len(two.months_opened) == 2
        with two.open(token="spare") as vault:
            assert statuses(vault.decrypt(f"{december}\n{january}")) == ["seen", "ok"]
            vault.log.verify()

    def test_a_third_that_the_second_introduces(self, two: Practice, uris: dict[str, str]) -> None:
        two.add("third", uris["third"], using="spare")
        for name in NAMES:
            with two.open(token=name) as vault:
                vault.encrypt("EXP-1", name)
                assert vault.log.verify().keys == NAMES
                assert vault.status().in_use == name

    def test_backup_and_restore_with_either(self, two: Practice) -> None:
        saved = two.path.with_name("saved.db")
        with two.open(token="spare") as vault:
            vault.backup(saved)
        for name in ("doctor", "spare"):
            with two.open(token=name) as vault:
                vault.encrypt("EXP-1", "se pierde")
            with two.restore(saved, token=name) as vault:
                assert vault.log.verify().keys == ("doctor", "spare")

    def test_public_keys_of_each_verify_the_log_alone(self, two: Practice, tmp_path: Path) -> None:
        with two.open(token="spare") as vault:
            keys = vault.log.public_keys()
            vault.encrypt("EXP-1", "x")
        assert set(keys) == {"doctor", "spare"}
        for name, pem in keys.items():
            assert verify_file(two.path, [public_key_der(pem)]).keys == ("doctor", "spare")
            (tmp_path / f"{name}.pem").write_text(pem)
            code, said = verify_audit(str(two.path), "--public-key", str(tmp_path / f"{name}.pem"), "--json")
            assert code == 0, said
            assert [token["name"] for token in json.loads(said)["tokens"]] == ["doctor", "spare"]

    def test_a_session_that_is_open_while_another_token_is_added(self, two: Practice, uris: dict[str, str]) -> None:
        with two.open(token="doctor") as vault:
            two.elsewhere(f"vault.tokens.add('third', {uris['third']!r}, pin=lambda info: {USER_PIN!r})")
            vault.encrypt("EXP-1", "x")
            assert vault.log.verify().keys == NAMES
            assert set(vault.log.public_keys()) == set(NAMES)


class TestWhichToken:
    def test_by_name_by_uri_or_the_first_that_is_there(self, two: Practice, uris: dict[str, str]) -> None:
        for token, name in (("spare", "spare"), (uris["spare"], "spare"), ("doctor", "doctor"), (None, "doctor")):
            with two.open(token=token) as vault:
                assert vault.token_name == name

    def test_the_one_that_is_there(self, two: Practice) -> None:
        """Without --token, where the first on record is not plugged in."""
        state = state_of(two)
        away = state.tokens["doctor"]._replace(uri=NOWHERE)
        assert choose_token(replace(state, tokens={**state.tokens, "doctor": away}), None).name == "spare"
        with pytest.raises(TokenAbsent, match="none of this vault's tokens is present: doctor, spare"):
            choose_token(replace(state, tokens={"doctor": away, "spare": away._replace(name="spare")}), None)

    @pytest.mark.parametrize("second", ["there", "away"])
    def test_the_first_is_held_by_another_program(
        self, two: Practice, yubikey: Callable[..., VirtualYubiKey], monkeypatch: pytest.MonkeyPatch, second: str
    ) -> None:
        """Another one that is there is used; if there is none, it is said who has the first."""
        monkeypatch.setattr(discovery, "PATIENCE", 0.0)
        key, state = yubikey(), state_of(two)
        spare = state.tokens["spare"] if second == "there" else state.tokens["spare"]._replace(uri=NOWHERE)
        state = replace(state, tokens={"doctor": state.tokens["doctor"]._replace(uri=key.uri), "spare": spare})
        with OtherProgram(key) as other:
            if second == "there":
                assert choose_token(state, None) == spare
            else:
                with pytest.raises(TokenHeld, match=rf"python\S* {other.id}\b.*whether it is YubiKey {key.serial}"):
                    choose_token(state, None)

    def test_modules_of_the_config_file_are_looked_into(self, two: Practice, tmp_path: Path) -> None:
        state = state_of(two)
        named = {
            name: token._replace(uri=f"pkcs11:token={find_token(token.uri).label}")
            for name, token in state.tokens.items()
        }
        state = replace(state, tokens=named)
        assert choose_token(state, None, [str(softhsm_module())]).name == "doctor"
        with pytest.raises(TokenAbsent):  # and into no others
            choose_token(state, None, [str(tmp_path / "gone.so")])

    def test_the_pin_is_asked_for_of_the_token_that_is_meant(self, two: Practice, uris: dict[str, str]) -> None:
        asked: list[str] = []

        def ask(info: TokenInfo) -> str:
            asked.append(info.label)
            return USER_PIN

        with Vault.open(two.path, pin=ask, token="spare", clock=two.clock) as vault:
            vault.tokens.add("third", uris["third"], pin=ask)
        assert asked == [find_token(uris[name]).label for name in ("spare", "third")]


class TestEachRemembers:
    def test_the_first_anchor_is_of_the_head_before_and_without_its_own_key(self, two: Practice) -> None:
        status = status_of_file(two.path)
        ids = {token.name: token for token in status.tokens}
        vault_id = bytes.fromhex(status.vault_id)
        with open_token(ids["spare"].uri, pin) as token:
            (value,) = token.read_objects(anchor_name(vault_id))
            anchor = parse_anchor(value, token.public_key(audit_key_name(vault_id)))
        told = [json.loads(row[1][1:]) if row[1][:1] == b"\0" else None for row in rows(two.path, "entries")]
        (introduced,) = [n for n, entry in enumerate(told, 1) if entry and entry["subject"] == "spare"]
        assert (anchor.sequence, anchor.hash) == (introduced - 1, rows(two.path, "entries")[introduced - 2][2])
        assert anchor.audit_keys == (ids["doctor"].id,)

    def test_it_learns_of_its_own_key_at_its_first_use(self, two: Practice) -> None:
        with two.open(token="spare") as vault:
            before = vault.status().anchor
            vault.encrypt("EXP-1", "x")
            after = unlocked(vault).anchor
        assert before is not None
        assert after is not None
        assert after.sequence > before
        assert len(after.audit_keys) == 2

    def test_a_file_is_as_old_as_the_token_that_looks(self, two: Practice) -> None:
        with two.open(token="spare") as vault:
            vault.encrypt("EXP-1", "la segunda")
        old = two.copy("old.db")
        with two.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "después")
            vault.log.anchor()
        newest = two.copy("newest.db")
        put_back(two, old)
        with two.open(token="spare") as vault:  # it has not seen beyond: the docs say so
            vault.log.verify()
        with pytest.raises(VaultRolledBack, match="older than the token remembers"):
            two.open(token="doctor")
        put_back(two, newest)
        with two.open(token="doctor") as vault:
            vault.log.verify()

    def test_what_departs_is_found_when_the_other_is_next_used(self, two: Practice) -> None:
        old = two.copy("old.db")
        with two.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "a")
            vault.log.anchor()
        put_back(two, old)
        with two.open(token="spare") as vault:  # another history goes on with the token that knows nothing of it
            for _ in range(6):
                vault.encrypt("EXP-1", "b")
        with pytest.raises(VaultRolledBack, match="departs"):
            two.open(token="doctor")

    def test_a_restore_with_one_is_needed_with_the_other_too(self, two: Practice) -> None:
        saved = two.path.with_name("saved.db")
        with two.open(token="doctor") as vault:
            vault.backup(saved)
        with two.open(token="spare") as vault:
            (lost,) = vault.encrypt("EXP-1", "se pierde")
            vault.log.anchor()
        with two.open(token="doctor") as vault:
            vault.log.anchor()
        two.restore(saved, token="doctor").close()
        with two.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "sigue")
        with pytest.raises(VaultRolledBack):
            two.open(token="spare")
        with two.restore(two.path, token="spare") as vault:  # of the vault as it is
            vault.log.verify()
            assert statuses(vault.decrypt(lost)) == ["ok"]  # the key is the same; that it was seen is forgotten
        for name in ("spare", "doctor"):
            with two.open(token=name) as vault:
                vault.log.verify()

    def test_a_backup_from_before_the_token_was_added_does_not_know_it(
        self, two: Practice, uris: dict[str, str]
    ) -> None:
        saved = two.copy("saved.db")
        two.add("third", uris["third"], using="doctor")
        with pytest.raises(UsageError, match="has no token third"):
            two.restore(saved, token="third")
        with two.restore(saved, token="doctor") as vault:
            assert vault.log.verify().keys == ("doctor", "spare")
        with pytest.raises(UsageError, match="has no token third"):
            two.open(token="third")
        with pytest.raises(VaultRolledBack, match="history that this file does not have"):
            two.add("third", uris["third"], using="doctor")

    def test_a_token_without_its_anchor_opens_nothing_though_the_others_do(self, two: Practice) -> None:
        status = status_of_file(two.path)
        (spare,) = [token for token in status.tokens if token.name == "spare"]
        with open_token(spare.uri, pin) as token:
            token.destroy(anchor_name(bytes.fromhex(status.vault_id)))
        with pytest.raises(VaultRolledBack, match="holds no anchor"):
            two.open(token="spare")
        two.open(token="doctor").close()


def state_of(practice: Practice) -> TrustState:
    file = open_at(practice.path)
    try:
        return peek(file)
    finally:
        file.close()


def put_back(practice: Practice, file: Path) -> None:
    for beside in practice.path.parent.glob("vault.db-*"):
        beside.unlink()
    shutil.copy(file, practice.path)
