"""Reading and writing messages with a real vault: docs/spec/messages.md, "A reader's rules", case by case."""

from __future__ import annotations

import json
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.errors import Incomplete, Malformed, NonceReused, NotAuthentic, UsageError
from medcrypt_hsm.messages import decrypt, wire
from medcrypt_hsm.messages.wire import v1
from medcrypt_hsm.month import Month
from tests.support.checkout import VECTOR_DIRECTORY
from tests.support.practice import Practice, forge, read, statuses

VECTORS = json.loads((VECTOR_DIRECTORY / "medcrypt-v1.json").read_text())["messages"]
SECRET = "clinic-7-pairing-secret-2026"

BOTH_PROFILES = True


class TestConversation:
    def test_over_three_months_both_ways(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            for day in ("2026-11-30", "2026-12-31", "2027-01-01"):
                practice.clock.set(day)
                assert phone.read(*vault.encrypt("EXP-1", f"dosis del {day}")) == [f"dosis del {day}"]
                assert read(vault, *phone.write(f"gracias, {day}")) == [f"gracias, {day}"]
            vault.log.verify()

    def test_ones_own_messages_can_be_read_and_say_so(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            pasted = "\n".join(["Dra.:", *vault.encrypt("EXP-1", "hola"), "yo:", *phone.write("bien")])
            assert [(m.sender, m.text) for m in vault.decrypt(pasted)] == [("d", "hola"), ("p", "bien")]

    @pytest.mark.parametrize("text", ["", "ñ", "\x1b[31m\u202etxt.exe\x00", "x" * 20_000, "🩺" * 3000, "\n\n"])
    def test_any_text_arrives_as_it_was(self, practice: Practice, text: str) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            assert phone.read(*vault.encrypt("EXP-1", text)) == [text]
            assert read(vault, *phone.write(text)) == [text]

    def test_half_a_character_is_refused_and_not_repeated(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            with pytest.raises(UsageError) as caught:
                vault.encrypt("EXP-1", "secreto \ud800")
        assert "secreto" not in str(caught.value)

    def test_content_that_is_not_text_is_not_shown(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            key = phone.state.message_keys[phone.state.month]
            part, nonce = wire.Part(1, 1, None), os.urandom(12)
            aad = wire.v2.header(phone.state.pairing, Month.parse("2026-11"), "p", part)
            sealed = AESGCM(key).encrypt(nonce, b"\xff\xfe", aad)
            text = wire.v2.encode(phone.state.pairing, Month.parse("2026-11"), "p", part, nonce, sealed)
            (opened,) = vault.decrypt(text)
        assert (opened.status, opened.text) == ("malformed", None)

    def test_a_text_without_a_message(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(Malformed, match="no MedCrypt message"):
            vault.decrypt("hola")


class TestOneNonceTwoTexts:
    """Whoever sees a genuine text can forge another with its nonce: that must not keep the genuine one from being read.
    Only a holder of the key can make two texts under one nonce that are both authentic: then the second is refused."""

    def test_forged_then_genuine(self, practice: Practice) -> None:
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")
            assert statuses(vault.decrypt(forge(text))) == ["not-authentic"]
            assert statuses(vault.decrypt(text)) == ["ok"]
            assert statuses(vault.decrypt(forge(text))) == ["not-authentic"]
            assert statuses(vault.decrypt(text)) == ["seen"]
            vault.log.verify()

    def test_both_orders_in_one_paste(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            (first,), (second,) = phone.write("uno"), phone.write("dos")
            pasted = f"{forge(first)} {first} {second} {forge(second)}"
            assert statuses(vault.decrypt(pasted)) == ["not-authentic", "ok", "ok", "not-authentic"]
            vault.log.verify()

    def test_a_reading_killed_between_the_intent_and_the_failure(
        self, practice: Practice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The forged text's row stayed. Reading the chat again, forged text and all, puts it right."""
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")

            def killed(*arguments: object) -> None:
                raise KeyboardInterrupt

            monkeypatch.setattr(decrypt, "record_failures", killed)
            with pytest.raises(KeyboardInterrupt):
                vault.decrypt(f"{forge(text)} {text}")
            monkeypatch.undo()
            vault.log.verify()
            assert statuses(vault.decrypt(f"{text} {forge(text)}"))[1] == "not-authentic"
            assert statuses(vault.decrypt(text)) == ["ok"]
            vault.log.verify()

    def test_forged_from_ones_own_text(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            (text,) = vault.encrypt("EXP-1", "hola")
            assert statuses(vault.decrypt(f"{forge(text)} {text}")) == ["not-authentic", "ok"]
            vault.log.verify()

    @pytest.mark.parametrize("one_paste", [True, False])
    def test_a_key_holder_reuses_a_nonce(self, practice: Practice, one_paste: bool) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            first, second = phone.seal("uno", nonce=b"0" * 12), phone.seal("dos", nonce=b"0" * 12)
            if one_paste:
                opened = vault.decrypt(f"{first} {second}")
            else:
                opened = [*vault.decrypt(first), *vault.decrypt(second)]
            assert [(m.status, m.text) for m in opened] == [("ok", "uno"), ("nonce-reused", None)]
            assert isinstance(opened[1].error, NonceReused)
            vault.log.verify()

    def test_a_key_holder_reuses_a_nonce_that_was_written_here(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            (ours,) = vault.encrypt("EXP-1", "tome una")
            nonce = wire.parse(ours).nonce
            assert statuses(vault.decrypt(phone.seal("tome dos", nonce=nonce, sender="d"))) == ["nonce-reused"]

    def test_a_forged_text_before_both_does_not_hide_a_reuse(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            first, second = phone.seal("uno", nonce=b"0" * 12), phone.seal("dos", nonce=b"0" * 12)
            opened = vault.decrypt(f"{forge(first)} {first} {second}")
            assert statuses(opened) == ["not-authentic", "ok", "nonce-reused"]
            vault.log.verify()

    def test_a_genuine_text_shown_behind_a_forged_one_is_known_from_then_on(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            first, second = phone.seal("uno", nonce=b"0" * 12), phone.seal("dos", nonce=b"0" * 12)
            vault.decrypt(f"{forge(first)} {first}")
            assert statuses(vault.decrypt(second)) == ["nonce-reused"]
            assert statuses(vault.decrypt(first)) == ["seen"]
            vault.log.verify()


class TestParts:
    LONG = "áé😀 página " * 1500

    def test_in_any_order_among_other_messages(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            first, *others = phone.write(self.LONG)
            (short,) = phone.write("corto")
            pasted = "\n".join([*reversed(others), short, first, others[0]])
            assert [m.text for m in vault.decrypt(pasted)] == [self.LONG, "corto"]

    def test_one_missing(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            first, _, *others = phone.write(self.LONG)
            (opened,) = vault.decrypt("\n".join([first, *others]))
            assert isinstance(opened.error, Incomplete)
            assert "part 2 of" in opened.error.message
            assert opened.text is None

    def test_one_altered_is_named_and_the_rest_is_not_shown(self, practice: Practice) -> None:
        with practice.open() as vault:
            first, second, *others = practice.pair(vault, "EXP-1").write(self.LONG)
            opened = vault.decrypt("\n".join([first, forge(second), *others]))
            assert statuses(opened) == ["incomplete", "not-authentic"]
            assert all(m.text is None for m in opened)
            assert read(vault, first, second, *others) == [self.LONG]

    def test_a_part_moved_to_another_message(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            one, two = phone.write(self.LONG), phone.write(self.LONG[::-1])
            assert statuses(vault.decrypt("\n".join([one[0], *two[1:]]))) == ["incomplete", "incomplete"]

    @pytest.mark.parametrize("field", ["2026-12", ":d:", "1.2."])
    def test_month_direction_and_position_are_authenticated(self, practice: Practice, field: str) -> None:
        old = {"2026-12": "2026-11", ":d:": ":p:", "1.2.": "2.2."}[field]
        with practice.open() as vault:
            text = practice.pair(vault, "EXP-1").write("x" * 4000)[1]
            practice.clock.set("2026-12-01")
            assert statuses(vault.decrypt(text.replace(old, field))) == ["not-authentic"]

    def test_parts_on_either_side_of_a_batch(self, practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
        """An entry lists so many messages at most; a message of several parts may lie across two."""
        monkeypatch.setattr(decrypt, "BATCH", 2)
        with practice.open() as vault:
            texts = practice.pair(vault, "EXP-1").write(self.LONG)
            assert len(texts) > 2
            assert read(vault, *texts) == [self.LONG]
            vault.log.verify()


class TestVersion1:
    """The reference program's messages through a real vault, and ours through the reference's derivation."""

    @pytest.mark.parametrize("secret", sorted({vector["secret"] for vector in VECTORS}))
    def test_the_reference_programs_messages(self, practice: Practice, secret: str) -> None:
        vectors = [vector for vector in VECTORS if vector["secret"] == secret]
        patient_id = vectors[0]["patient_id"]
        with practice.open() as vault:
            vault.patients.add(patient_id, protocol="v1", secret=secret)
            for month in sorted({vector["month"] for vector in vectors}):
                mine = [vector for vector in vectors if vector["month"] == month]
                shown = read(vault, *(vector["wire"] for vector in mine), month=month)
                assert shown == [vector["plaintext"] for vector in mine]
            vault.log.verify()

    def test_ours_for_the_reference_program(self, practice: Practice) -> None:
        vector = next(v for v in VECTORS if (v["patient_id"], v["month"]) == ("EXP-00417", "2026-11"))
        with practice.open() as vault:
            vault.patients.add("EXP-00417", protocol="v1", secret=vector["secret"])
            (text,) = vault.encrypt("EXP-00417", "Evolución — ñ 🩺")
        message = v1.parse(text)
        key = AESGCM(bytes.fromhex(vector["message_key_hex"]))
        assert key.decrypt(message.nonce, message.sealed, b"EXP-00417").decode() == "Evolución — ñ 🩺"

    def test_a_month_ahead_of_the_clock_is_not_derived(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-V1", protocol="v1", secret=SECRET)
            (text,) = vault.encrypt("EXP-V1", "hola")
            assert statuses(vault.decrypt(text, month=Month.parse("2026-12"))) == ["month-future"]

    def test_a_months_key_is_derived_once(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-V1", protocol="v1", secret=SECRET)
            for _ in range(3):
                vault.encrypt("EXP-V1", "hola")
            assert [e.action for _, e in vault.log.entries()].count("month.derive") == 1

    def test_a_repaired_pairings_older_messages_are_archive_reading(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-V1", protocol="v1", secret=SECRET)
            (old,) = vault.encrypt("EXP-V1", "antes")
            practice.clock.forward(minutes=1)
            vault.patients.repair("EXP-V1")
            (new,) = vault.encrypt("EXP-V1", "después")
            assert statuses(vault.decrypt(f"{old} {new}")) == ["not-authentic", "ok"]
            assert read(vault, old, new, archive=True) == ["antes", "después"]
            vault.log.verify()


def test_errors_in_the_middle_keep_their_place(practice: Practice) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        (one,), (two,) = phone.write("uno"), phone.write("dos")
        opened = vault.decrypt(f"a {one} b [MEDCRYPT:v2:garbage] c {forge(one)} d {two} e [MEDCRYPT:v1:")
        assert [m.number for m in opened] == [1, 2, 3, 4, 5]
        assert statuses(opened) == ["ok", "malformed", "not-authentic", "ok", "malformed"]
        assert isinstance(opened[2].error, NotAuthentic)
