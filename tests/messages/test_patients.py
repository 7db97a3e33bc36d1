"""Pairing at library level: check codes, repair, upgrade from v1, removal."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import MedcryptError, NotAuthentic, Refused, Unconfirmed, UsageError
from medcrypt_hsm.messages.wire.pairing import PairingPayload
from tests.support.practice import Phone, Practice, statuses
from tests.support.store import dump, rows

BOTH_PROFILES = True


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


class TestCheckCode:
    def test_right(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1", confirm=False)
            pairing = vault.patients.confirm("EXP-1", f" {phone.check_code[:3]} {phone.check_code[3:]}\n")
            assert (pairing.state, pairing.confirmed) == ("active", True)
            vault.log.verify()

    def test_nothing_is_read_or_written_before(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1", confirm=False)
            (text,) = phone.write("hola")
            assert statuses(vault.decrypt(text)) == ["unconfirmed"]
            assert statuses(vault.decrypt(text, archive=True)) == ["unconfirmed"]
            with pytest.raises(Unconfirmed):
                vault.encrypt("EXP-1", "x")
            vault.patients.confirm("EXP-1", phone.check_code)
            assert statuses(vault.decrypt(text)) == ["ok"]

    def test_unconfirmed_on_purpose(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = Phone.scan(vault.patients.add("EXP-1", unconfirmed=True).payload, practice.clock)
            assert phone.read(*vault.encrypt("EXP-1", "hola")) == ["hola"]
            assert not vault.patients.show("EXP-1")[0].confirmed
            assert vault.patients.confirm("EXP-1", phone.check_code).confirmed

    def test_wrong_then_right(self, practice: Practice) -> None:
        with practice.open() as vault:
            code = practice.pair(vault, "EXP-1", confirm=False).check_code
            with pytest.raises(NotAuthentic, match="2 of 3 tries left"):
                vault.patients.confirm("EXP-1", wrong(code))
            assert vault.patients.confirm("EXP-1", code).confirmed

    def test_three_wrong_ones_void_it(self, practice: Practice) -> None:
        with practice.open() as vault:
            code = practice.pair(vault, "EXP-1", confirm=False).check_code
            for _ in range(3):
                with pytest.raises(NotAuthentic):
                    vault.patients.confirm("EXP-1", wrong(code))
        with practice.open() as vault:  # also after another start of the program
            with pytest.raises(Refused, match="void after 3 wrong codes"):
                vault.patients.confirm("EXP-1", code)
            vault.log.verify()

    @pytest.mark.parametrize("late", [15 * 60, 24 * 3600])
    def test_expired(self, practice: Practice, late: int) -> None:
        with practice.open() as vault:
            code = practice.pair(vault, "EXP-1", confirm=False).check_code
            practice.clock.forward(seconds=late)
            with pytest.raises(Refused, match="expired"):
                vault.patients.confirm("EXP-1", code)

    def test_in_the_last_minute(self, practice: Practice) -> None:
        with practice.open() as vault:
            code = practice.pair(vault, "EXP-1", confirm=False).check_code
            practice.clock.forward(minutes=14, seconds=59)
            assert vault.patients.confirm("EXP-1", code).confirmed

    def test_accepted_once(self, practice: Practice) -> None:
        with practice.open() as vault:
            code = practice.pair(vault, "EXP-1").check_code
            with pytest.raises(Refused, match="accepted once"):
                vault.patients.confirm("EXP-1", code)

    @pytest.mark.parametrize("code", ["12345", "1234567", "12345a", "", "١٢٣٤٥٦"])
    def test_not_six_digits_costs_no_try(self, practice: Practice, code: str) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1", confirm=False)
            with pytest.raises(UsageError):
                vault.patients.confirm("EXP-1", code)
            assert vault.patients.show("EXP-1")[0].tries == 0

    def test_another_patients(self, practice: Practice) -> None:
        with practice.open() as vault:
            one = practice.pair(vault, "EXP-1", confirm=False)
            two = practice.pair(vault, "EXP-2", confirm=False)
            if one.check_code != two.check_code:
                with pytest.raises(NotAuthentic):
                    vault.patients.confirm("EXP-1", two.check_code)


class TestCode:
    def test_shown_again_until_it_is_confirmed(self, practice: Practice) -> None:
        with practice.open() as vault:
            new = vault.patients.add("EXP-1")
            practice.clock.forward(minutes=14, seconds=59)
            assert vault.patients.qr("EXP-1").payload == new.payload
            vault.patients.confirm("EXP-1", Phone.scan(new.payload, practice.clock).check_code)
            with pytest.raises(Refused):
                vault.patients.qr("EXP-1")

    def test_not_after_it_expired(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-1")
            practice.clock.forward(minutes=15)
            with pytest.raises(Refused):
                vault.patients.qr("EXP-1")

    def test_its_expiry_is_at_most_fifteen_minutes_ahead(self, practice: Practice) -> None:
        practice.clock.forward(seconds=59)
        with practice.open() as vault:
            payload = PairingPayload.parse(vault.patients.add("EXP-1").payload)
        assert 0 < (payload.expiry - practice.clock.now).total_seconds() <= 15 * 60

    def test_v2_takes_no_secret(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(UsageError):
            vault.patients.add("EXP-1", secret="one that somebody chose")

    @pytest.mark.parametrize(("secret", "weak"), [
        ("1234", True), ("aaaaaaaaaaaaaaaaaaaaaaaa", True), ("clinic-7-pairing-secret-2026", False), (None, False),
    ])  # fmt: skip
    def test_a_guessable_v1_secret_is_said_to_be_one(self, practice: Practice, secret: str | None, weak: bool) -> None:
        with practice.open() as vault:
            new = vault.patients.add("EXP-V1", protocol="v1", secret=secret)
        assert new.weak is weak
        assert new.payload == (secret or new.payload)


class TestRepair:
    def test_the_old_pairing_ends_when_the_new_one_is_confirmed(self, practice: Practice) -> None:
        with practice.open() as vault:
            old = practice.pair(vault, "EXP-1")
            new = Phone.scan(vault.patients.repair("EXP-1").payload, practice.clock)
            assert old.read(*vault.encrypt("EXP-1", "todavía al viejo")) == ["todavía al viejo"]
            assert statuses(vault.decrypt(old.write("sigo aquí")[0])) == ["ok"]
            vault.patients.confirm("EXP-1", new.check_code)
            assert new.read(*vault.encrypt("EXP-1", "al nuevo")) == ["al nuevo"]
            (late,) = old.write("tarde")
            assert statuses(vault.decrypt(late)) == ["month-stale"]
            assert vault.decrypt(late, archive=True)[0].text == "tarde"
            assert sorted(p.state for p in vault.patients.show("EXP-1")) == ["active", "ended"]
            vault.log.verify()

    def test_the_old_chain_ends_too(self, practice: Practice) -> None:
        with practice.open() as vault:
            old = practice.pair(vault, "EXP-1")
            new = Phone.scan(vault.patients.repair("EXP-1").payload, practice.clock)
            vault.patients.confirm("EXP-1", new.check_code)
            chains = [row[1] for row in rows(practice.path, "records") if row[0] == "chain"]
            assert chains == [new.state.pairing]
            practice.clock.set("2026-12-01")
            (text,) = old.write("en diciembre")
            assert statuses(vault.decrypt(text, archive=True)) == ["not-authentic"]

    def test_a_code_that_was_never_confirmed_is_void_and_never_read(self, practice: Practice) -> None:
        """Nobody compared its code: it may have been somebody else who scanned it."""
        with practice.open() as vault:
            stranger = practice.pair(vault, "EXP-1", confirm=False)
            (text,) = stranger.write("soy el paciente")
            phone = Phone.scan(vault.patients.repair("EXP-1").payload, practice.clock)
            vault.patients.confirm("EXP-1", phone.check_code)
            for archive in (False, True):
                assert statuses(vault.decrypt(text, archive=archive))[0] in ("month-stale", "not-authentic")
                assert vault.decrypt(text, archive=archive)[0].text is None
            vault.log.verify()

    def test_within_one_second_the_newer_one_counts(self, practice: Practice) -> None:
        for number in range(5):  # pairings are random: an order by chance would not be right five times
            with practice.open() as vault:
                vault.patients.add(f"EXP-{number}")
                vault.patients.repair(f"EXP-{number}")
                with pytest.raises(Unconfirmed):
                    vault.encrypt(f"EXP-{number}", "x")
                assert [p.state for p in vault.patients.show(f"EXP-{number}")] == ["ended", "pending"]

    def test_of_nobody(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(UsageError, match="no patient"):
            vault.patients.repair("EXP-404")


class TestFromVersion1ToVersion2:
    def upgraded(self, practice: Practice) -> tuple[str, Phone]:
        """A v1 message, and the phone of the pairing that followed."""
        with practice.open() as vault:
            vault.patients.add("EXP-1", protocol="v1", secret="clinic-7-pairing-secret-2026")
            (old,) = vault.encrypt("EXP-1", "versión uno")
            practice.clock.forward(minutes=1)
            phone = practice.pair(vault, "EXP-1", confirm=False)
            assert statuses(vault.decrypt(old)) == ["ok"]
            assert vault.encrypt("EXP-1", "aún v1")[0].startswith("[MEDCRYPT:v1:")
            vault.patients.confirm("EXP-1", phone.check_code)
        return old, phone

    def test_v1_is_then_archive_reading_and_none_is_written(self, practice: Practice) -> None:
        old, phone = self.upgraded(practice)
        with practice.open() as vault:
            assert statuses(vault.decrypt(old)) == ["month-stale"]
            assert vault.decrypt(old, archive=True)[0].text == "versión uno"
            (text,) = vault.encrypt("EXP-1", "versión dos")
            assert phone.read(text) == ["versión dos"]
            vault.log.verify()

    def test_there_is_no_way_back(self, practice: Practice) -> None:
        self.upgraded(practice)
        with practice.open() as vault, pytest.raises(Refused, match="no way back"):
            vault.patients.add("EXP-1", protocol="v1")

    def test_nor_by_way_of_removing_the_patient(self, practice: Practice) -> None:
        self.upgraded(practice)
        with practice.open() as vault:
            vault.patients.remove("EXP-1")
            with pytest.raises(Refused, match="no way back"):
                vault.patients.add("EXP-1", protocol="v1")
            vault.patients.add("EXP-1")  # v2 again is fine

    def test_nor_by_way_of_repairing(self, practice: Practice) -> None:
        self.upgraded(practice)
        with practice.open() as vault:
            assert vault.patients.repair("EXP-1").pairing.protocol == "v2"


class TestRemove:
    def test_archive_reading_stays_and_writing_ends(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            (text,) = phone.write("hola")
            vault.patients.remove("EXP-1")
            assert statuses(vault.decrypt(text)) == ["month-stale"]
            assert vault.decrypt(text, archive=True)[0].text == "hola"
            with pytest.raises(Refused):
                vault.encrypt("EXP-1", "x")
            assert {row[0] for row in rows(practice.path, "records")} == {"log", "message", "seen"}
            vault.log.verify()

    def test_a_v1_secret_goes_and_the_months_that_were_opened_stay_readable(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-V1", protocol="v1")
            (text,) = vault.encrypt("EXP-V1", "hola")
            vault.patients.remove("EXP-V1")
            assert "v1-secret" not in {row[0] for row in rows(practice.path, "sealed")}
            assert vault.decrypt(text, archive=True)[0].text == "hola"
            vault.log.verify()

    def test_twice(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            vault.patients.remove("EXP-1")
            with pytest.raises(Refused, match="already"):
                vault.patients.remove("EXP-1")
            with pytest.raises(Refused, match="removed"):
                vault.patients.repair("EXP-1")

    def test_and_added_again(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            vault.patients.remove("EXP-1")
            practice.clock.forward(minutes=1)
            phone = practice.pair(vault, "EXP-1")
            assert phone.read(*vault.encrypt("EXP-1", "otra vez")) == ["otra vez"]


class TestWhoTheyAre:
    def test_the_file_alone_tells_nobody(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-SECRETO", confirm=False)
            secret = "el secreto de siempre, largo"
            vault.patients.add("EXP-V1-SECRETO", protocol="v1", label="Ana Ejemplo", secret=secret)
        told = dump(practice.path).upper()
        content = practice.path.read_bytes()
        for what in ("EXP-SECRETO", "EXP-V1-SECRETO", "Ana Ejemplo", "el secreto de siempre", "MEDCRYPT:P2"):
            assert what.encode() not in content
            assert what.encode().hex().upper() not in told

    def test_the_list_is_in_the_order_of_adding_and_is_recorded(self, practice: Practice) -> None:
        with practice.open() as vault:
            for patient_id in ("EXP-2", "EXP-1", "EXP-3"):
                practice.clock.forward(seconds=1)
                vault.patients.add(patient_id, label=f"etiqueta {patient_id}")
            assert [p.id for p in vault.patients.list()] == ["EXP-2", "EXP-1", "EXP-3"]
            assert vault.log.entries()[-2][1].action == "patient.list"

    @pytest.mark.parametrize("patient_id", ["", "x" * 129, "a\nb", "a\x00", "\ud800"])
    def test_an_id_that_no_message_could_carry(self, practice: Practice, patient_id: str) -> None:
        with practice.open() as vault, pytest.raises(UsageError):
            vault.patients.add(patient_id)

    def test_paired_already(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            with pytest.raises(Refused, match="paired already"):
                vault.patients.add("EXP-1")

    @pytest.mark.parametrize("act", [
        lambda vault: vault.encrypt("EXP-404", "x"), lambda vault: vault.patients.show("EXP-404"),
        lambda vault: vault.patients.qr("EXP-404"), lambda vault: vault.patients.remove("EXP-404"),
        lambda vault: vault.patients.confirm("EXP-404", "123456"),
    ])  # fmt: skip
    def test_nobody_of_that_name(self, practice: Practice, act: object) -> None:
        with practice.open() as vault:
            with pytest.raises(MedcryptError) as caught:
                act(vault)  # type: ignore[operator]
            assert caught.value.exit_code == 2
            vault.log.verify()

    def test_a_new_pairings_repr_shows_no_secret(self, practice: Practice) -> None:
        with practice.open() as vault:
            new = vault.patients.add("EXP-1")
        assert new.payload[20:] not in repr(new)
