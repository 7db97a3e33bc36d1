"""Which key a message needs, and may it be read: docs/spec/messages.md, "A reader's rules"."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import MonthsBehind, NotAuthentic
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.wire import v1
from medcrypt_hsm.month import Month
from scripts.standalone import patient
from tests.support.practice import Practice, read, statuses
from tests.support.store import rows

SECRET = "clinic-7-pairing-secret-2026"

BOTH_PROFILES = True


class TestMonthOfAMessage:
    """Written on 22 November 2026, read later."""

    @pytest.mark.parametrize(("now", "status", "archived"), [
        ("2026-11-30 23:59", "ok", "ok"),
        ("2026-12-01 00:00", "ok", "ok"),
        ("2026-12-07 23:59", "ok", "ok"),
        ("2026-12-08 00:00", "month-stale", "ok"),
        ("2026-12-31 23:59", "month-stale", "ok"),
    ])  # fmt: skip
    def test_v2(self, practice: Practice, now: str, status: str, archived: str) -> None:
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")
            practice.clock.set(now)
            assert statuses(vault.decrypt(text)) == [status]
            assert vault.decrypt(text, archive=True)[0].text == "hola"
            assert vault.decrypt(text, month=Month.parse("2026-11"))[0].text == "hola"

    @pytest.mark.parametrize(("now", "status"), [
        ("2026-12-07 23:59", "ok"), ("2026-12-08 00:00", "not-authentic"),
    ])  # fmt: skip
    def test_v1_which_says_nothing_of_its_month(self, practice: Practice, now: str, status: str) -> None:
        with practice.open() as vault:
            vault.patients.add("EXP-V1", protocol="v1", secret=SECRET)
            (text,) = vault.encrypt("EXP-V1", "hola")
            practice.clock.set(now)
            assert statuses(vault.decrypt(text)) == [status]
            assert read(vault, text, archive=True) == ["hola"]
            assert vault.decrypt(text, month=Month.parse("2026-11"))[0].month == "2026-11"
            assert statuses(vault.decrypt(text, month=Month.parse("2026-10"))) == ["not-authentic"]
            vault.log.verify()

    def test_two_months_ago_is_archive_reading(self, practice: Practice) -> None:
        with practice.open() as vault:
            (text,) = practice.pair(vault, "EXP-1").write("hola")
            practice.clock.set("2027-01-03")
            vault.months.open(to=Month.parse("2027-01"))
            assert statuses(vault.decrypt(text)) == ["month-stale"]
            assert read(vault, text, archive=True) == ["hola"]
            assert read(vault, text, month="2026-11") == ["hola"]
            assert statuses(vault.decrypt(text, month=Month.parse("2026-12"))) == ["month-stale"]

    def test_v2_from_before_the_pairing_has_no_key(self, practice: Practice) -> None:
        with practice.open() as vault:
            pairing, october = practice.pair(vault, "EXP-1").state.pairing, patient.Month.parse("2026-10")
            text = patient.seal(bytes(32), pairing, october, "p", "1.1", b"x", bytes(12))
            (opened,) = vault.decrypt(text, archive=True)
            assert isinstance(opened.error, NotAuthentic)
            assert "the pairing was not in use then" in opened.error.message

    @pytest.mark.parametrize(("now", "status"), [
        ("2026-11-30 00:00", "ok"), ("2026-11-29 23:59", "month-future"), ("2026-10-31 12:00", "month-future"),
    ])  # fmt: skip
    def test_the_next_month_within_a_day_of_skew(self, practice: Practice, now: str, status: str) -> None:
        practice.clock.set("2026-10-20")
        practice.path = practice.path.with_name("october.db")
        with practice.create() as vault:
            phone = practice.pair(vault, "EXP-1")
            practice.clock.set(now)
            vault.months.open()
            ours, practice.clock.now = practice.clock.now, practice.clock.now.replace(month=12, day=1)
            (text,) = phone.write("adelantado")
            practice.clock.now = ours
            before = rows(practice.path, "records"), rows(practice.path, "trust")
            assert statuses(vault.decrypt(text)) == [status]
            after = rows(practice.path, "records"), rows(practice.path, "trust")
            assert after == before
            vault.log.verify()

    def test_the_month_after_the_next_is_refused_also_with_archive(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            practice.clock.set("2027-01-01")
            (text,) = phone.write("futuro")
            practice.clock.set("2026-11-30 23:00")
            assert statuses(vault.decrypt(text, archive=True)) == ["month-future"]
            assert statuses(vault.decrypt(text, month=Month.parse("2027-01"))) == ["month-future"]

    def test_seen_within_skew_is_seen_once_the_month_is_open(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            practice.clock.set("2026-12-01 00:05")
            (text,) = phone.write("pronto")
            practice.clock.set("2026-11-30 23:55")
            assert statuses(vault.decrypt(text)) == ["ok"]
            practice.clock.set("2026-12-01 00:10")
            assert statuses(vault.decrypt(text)) == ["seen"]

    def test_several_months_behind_nothing_is_read_before_a_person_names_the_month(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            (old,) = phone.write("de noviembre")
            practice.clock.set("2027-02-03")
            (new,) = phone.write("de febrero")
            for archive in (False, True):
                with pytest.raises(MonthsBehind, match="2027-02"):
                    vault.decrypt(f"{old} {new}", archive=archive)
            vault.months.open(to=Month.parse("2027-02"))
            assert read(vault, old, new, archive=True) == ["de noviembre", "de febrero"]


class TestWhose:
    def test_another_patients_key_does_not_open_it(self, practice: Practice) -> None:
        with practice.open() as vault:
            one, two = practice.pair(vault, "EXP-1"), practice.pair(vault, "EXP-2")
            one.state.pairing = two.state.pairing  # sealed under the first's key, said to be the second's
            assert statuses(vault.decrypt(one.write("x")[0])) == ["not-authentic"]

    def test_of_no_pairing_here(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            phone.state.pairing = bytes(8)
            assert statuses(vault.decrypt(phone.write("x")[0])) == ["unknown-pairing"]
            stranger = v1.encode("EXP-9", bytes(12), bytes(16))
            assert statuses(vault.decrypt(stranger)) == ["unknown-pairing"]

    def test_v1_that_names_a_v2_patient_and_the_other_way_round(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            assert statuses(vault.decrypt(v1.encode("EXP-1", bytes(12), bytes(16)))) == ["unknown-pairing"]
            new = vault.patients.add("EXP-V1", protocol="v1")
            header = wire.v2.encode(
                new.pairing.pairing, Month.parse("2026-11"), "p", wire.Part(1, 1, None), bytes(12), bytes(16)
            )
            assert statuses(vault.decrypt(header)) == ["unknown-pairing"]
