"""What the log and the seen rows tell of messages: before their plaintext, and when they come back."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import Refused
from tests.support.practice import Practice, forge, statuses, unlocked
from tests.support.store import rows

SECRET = "clinic-7-pairing-secret-2026"

BOTH_PROFILES = True


class TestSeenBefore:
    def test_the_same_text_again(self, practice: Practice) -> None:
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")
            assert statuses(vault.decrypt(text)) == ["ok"]
            assert statuses(vault.decrypt(f"{text} {text}")) == ["seen", "seen"]
        with practice.open() as vault:
            assert [(m.status, m.text) for m in vault.decrypt(text)] == [("seen", "hola")]
            vault.log.verify()

    def test_twice_in_one_paste(self, practice: Practice) -> None:
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")
            assert statuses(vault.decrypt(f"{text} {text}")) == ["ok", "seen"]
            vault.log.verify()

    def test_a_message_written_here_is_new_when_it_is_first_read(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            (text,) = vault.encrypt("EXP-1", "hola")
            assert statuses([*vault.decrypt(text), *vault.decrypt(text)]) == ["ok", "seen"]
            vault.log.verify()

    def test_v1(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-V1", protocol="v1", secret=SECRET)
            (text,) = vault.encrypt("EXP-V1", "hola")
            assert statuses([*vault.decrypt(text), *vault.decrypt(text)]) == ["ok", "seen"]
            vault.log.verify()


class TestTheRecord:
    def test_no_record_no_plaintext(self, practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")

            def full(row: object) -> None:
                raise OSError("disk full")

            monkeypatch.setattr(unlocked(vault).file, "append", full)
            with pytest.raises(OSError, match="disk full"):
                vault.decrypt(text)
            with pytest.raises(OSError, match="disk full"):
                vault.encrypt("EXP-1", "x")
            monkeypatch.undo()
            assert statuses(vault.decrypt(text)) == ["ok"]  # and nothing of the first try stayed
            vault.log.verify()

    def test_what_failed_is_a_second_entry(self, practice: Practice) -> None:
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")
            vault.decrypt(forge(text))
            *_, intent, failed, _ = [entry for _, entry in vault.log.entries()]
            assert (intent.action, intent.outcome) == ("message.decrypt", "intended")
            assert (failed.action, failed.outcome) == ("message.failed", "not-authentic")
            assert failed.detail["messages"][0]["errors"] == ["not-authentic"]

    def test_no_entry_holds_a_text(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            vault.encrypt("EXP-1", "marcador uno")
            vault.decrypt(phone.write("marcador dos")[0])
            assert "marcador" not in repr(vault.log.entries())

    def test_a_refused_encryption_leaves_an_entry_and_no_row(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-1")
            before = rows(practice.path, "seen")
            with pytest.raises(Refused):
                vault.encrypt("EXP-1", "x")
            assert rows(practice.path, "seen") == before
            vault.log.verify()
