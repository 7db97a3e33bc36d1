"""Opening months, and the clock that is not believed blindly."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import ClockBehind, MonthsBehind, Refused
from medcrypt_hsm.month import Month
from tests.support.practice import Practice, statuses, unlocked
from tests.support.store import rows

BOTH_PROFILES = True


def record_months(practice: Practice, purpose: str) -> list[str]:
    return sorted(row[2] for row in rows(practice.path, "records") if row[0] == purpose)


def sequence(practice: Practice) -> int:
    return max(row[0] for row in rows(practice.path, "entries"))


class TestTheNextMonth:
    def test_it_opens_by_itself_and_says_so(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            practice.pair(vault, "EXP-2")
            practice.clock.set("2026-12-01 00:00")
            vault.encrypt("EXP-1", "hola")
            (opened,) = practice.months_opened
            assert (opened.months, opened.pairings) == ((Month.parse("2026-12"),), 2)
            assert opened.checkpoint.startswith(f"medcrypt/{vault.status().vault_id}\n")
            vault.encrypt("EXP-1", "otra")
            assert practice.months_opened == [opened]
            vault.log.verify()

    def test_the_old_chain_key_is_gone_and_the_old_message_key_stays(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            assert (record_months(practice, "chain"), record_months(practice, "message")) == (["2026-11"], ["2026-11"])
            practice.clock.set("2026-12-01 00:00")
            vault.months.open()
            assert record_months(practice, "chain") == ["2026-12"]
            assert record_months(practice, "message") == ["2026-11", "2026-12"]

    def test_its_anchor_is_written(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.clock.set("2026-12-01 00:00")
            vault.months.open()
            assert vault.status().anchor == sequence(practice)

    def test_nothing_is_due_within_the_month(self, practice: Practice) -> None:
        with practice.open() as vault:
            before = sequence(practice)
            practice.clock.set("2026-11-30 23:59")
            assert vault.months.open() is None
            assert vault.months.open(to=Month.parse("2026-11")) is None
            assert sequence(practice) == before

    def test_two_processes_open_it_once(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            practice.clock.set("2026-12-01 00:00")
            practice.elsewhere("vault.months.open()")
            assert vault.months.open() is None
            assert record_months(practice, "chain") == ["2026-12"]
            vault.log.verify()

    def test_over_new_year(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            practice.clock.set("2026-12-31 23:59")
            vault.months.open()
            practice.clock.set("2027-01-01 00:00")
            assert phone.read(*vault.encrypt("EXP-1", "feliz año")) == ["feliz año"]


class TestSeveralMonths:
    def test_a_person_names_the_clocks_month(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            practice.clock.set("2027-02-03")
            with pytest.raises(MonthsBehind, match="2026-11"):
                vault.months.open()
            opened = vault.months.open(to=Month.parse("2027-02"))
            assert opened is not None
            assert [str(month) for month in opened.months] == ["2026-12", "2027-01", "2027-02"]
            assert record_months(practice, "message") == ["2026-11", "2026-12", "2027-01", "2027-02"]
            assert record_months(practice, "chain") == ["2027-02"]
            assert phone.read(*vault.encrypt("EXP-1", "hola")) == ["hola"]
            vault.log.verify()

    def test_months_between_can_be_read(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            practice.clock.set("2026-12-20")
            (december,) = phone.write("de diciembre")
            practice.clock.set("2027-02-03")
            vault.months.open(to=Month.parse("2027-02"))
            assert vault.decrypt(december, archive=True)[0].text == "de diciembre"

    @pytest.mark.parametrize("named", ["2026-12", "2027-01", "2027-03", "2026-11", "2026-10"])
    def test_any_other_month_is_refused(self, practice: Practice, named: str) -> None:
        practice.clock.set("2027-02-03")
        with practice.open() as vault, pytest.raises(Refused, match="2027-02"):
            vault.months.open(to=Month.parse(named))

    @pytest.mark.parametrize("command", [
        lambda vault: vault.encrypt("EXP-1", "x"),
        lambda vault: vault.patients.add("EXP-2"),
        lambda vault: vault.patients.repair("EXP-1"),
        lambda vault: vault.months.open(),
    ])  # fmt: skip
    def test_refused_for_the_clock_writes_no_entry(self, practice: Practice, command: object) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            practice.clock.set("2027-02-03")
            before = sequence(practice)
            with pytest.raises(MonthsBehind):
                command(vault)  # type: ignore[operator]
            assert sequence(practice) == before


class TestAClockThatIsBehind:
    @pytest.mark.parametrize("command", [
        lambda vault: vault.encrypt("EXP-1", "x"),
        lambda vault: vault.decrypt("[MEDCRYPT:v2:x]"),
        lambda vault: vault.patients.add("EXP-2"),
        lambda vault: vault.patients.list(),
        lambda vault: vault.log.entries(),
        lambda vault: vault.log.anchor(),
        lambda vault: vault.months.open(),
    ])  # fmt: skip
    def test_by_more_than_a_day_is_refused_and_writes_no_entry(self, practice: Practice, command: object) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
        before = rows(practice.path, "entries")
        practice.clock.forward(days=-1, seconds=-1)
        with practice.open() as vault, pytest.raises(ClockBehind):
            command(vault)  # type: ignore[operator]
        assert rows(practice.path, "entries") == before

    def test_by_a_day_is_accepted_and_times_never_decrease(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            practice.clock.forward(days=-1)
            vault.encrypt("EXP-1", "x")
            practice.clock.forward(hours=12)
            vault.encrypt("EXP-1", "y")
            times = [entry.time for _, entry in vault.log.entries()]
            assert times == sorted(times)
            vault.log.verify()

    def test_by_a_day_across_a_months_start_stays_in_the_month_that_was_opened(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            practice.clock.set("2026-12-01 01:00")
            vault.encrypt("EXP-1", "x")
            practice.clock.set("2026-11-30 23:00")
            (text,) = vault.encrypt("EXP-1", "y")
            assert ":2026-12:" in text
            assert statuses(vault.decrypt(text)) == ["ok"]
            assert phone.read(text) == ["y"]


class TestTheAnchorsAge:
    def test_it_is_written_again_after_a_day_of_use(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            first = vault.status().anchor
            practice.clock.forward(hours=23)
            vault.encrypt("EXP-1", "x")
            assert vault.status().anchor == first
            practice.clock.forward(hours=1)
            vault.encrypt("EXP-1", "y")
            assert vault.status().anchor == sequence(practice)

    def test_it_names_the_newest_entry_when_asked_for(self, practice: Practice) -> None:
        with practice.open() as vault:
            assert vault.log.anchor() == sequence(practice)
            assert unlocked(vault).log.sequence == sequence(practice)


def test_a_checkpoint_is_verified_by_the_script_alone(practice: Practice) -> None:
    from scripts.standalone import verify_audit

    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        note, pem = practice.path.with_name("note"), practice.path.with_name("key.pem")
        note.write_text(vault.log.checkpoint())
        pem.write_text(vault.log.public_keys()["doctor"])
        vault.encrypt("EXP-1", "hola")
    assert verify_audit.main([str(practice.path), "--public-key", str(pem), "--checkpoint", str(note)]) == 0
