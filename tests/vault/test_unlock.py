"""Several tokens in one vault, of mixed profiles: each works alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.inspection import verify_file
from tests.support.audited_practice import run as verify_audit
from tests.support.practice import Practice, statuses
from tests.support.softhsm import USER_PIN

AES, P256 = "aes-kw", "p256-hpke"
NAMES = ("doctor", "spare", "third")


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
