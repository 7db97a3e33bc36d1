"""The certificate is true, both ways: what it calls gone opens by no copy, and what it says may still open does.

A thief with a copy, a token and its PIN (tests/support/thief.py) tries every way there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.enroll import PROFILES, TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from tests.support.practice import Practice, pin
from tests.support.softhsm import SoftHsm
from tests.support.thief import DoesNotOpen, read

BOTH_PROFILES = True
NAMES = ("2026-07", "2026-08", "2026-09", "2026-10", "2026-11")
AWAY = OtherTokens(pin, without=("spare",))
V1 = "clinic-7-pairing-secret-2026"


@dataclass
class Year:
    """Five months, a copy of the vault and a backup at the end of each, and one text of every patient and month."""

    practice: Practice
    directory: Path
    texts: dict[tuple[str, str], str] = field(default_factory=dict)

    def live(self, patients: tuple[str, ...], wish: TokenOptions, during: dict[str, Callable[[Vault], object]]) -> Year:
        self.practice.clock.set(f"{NAMES[0]}-20")
        with self.practice.create(options=wish) as vault:
            for patient in patients:
                if patient.startswith("OLD"):
                    vault.patients.add(patient, protocol="v1", secret=f"{V1}-{patient}")
                else:
                    self.practice.pair(vault, patient)
        for month in NAMES:
            self.practice.clock.set(f"{month}-20")
            with self.practice.open(token="doctor") as vault:
                vault.months.open()
                for patient in patients:
                    if any(p.state == "active" for p in vault.patients.show(patient)):
                        (self.texts[patient, month],) = vault.encrypt(patient, f"{patient} {month}")
                during.get(month, lambda vault: None)(vault)
                vault.backup(self.directory / f"{month}.db")
        return self

    @property
    def backups(self) -> list[Path]:
        return sorted(self.directory.glob("2026-*.db"))

    def read(self, copy: Path, patient: str, month: str, name: str = "doctor", uri: str = "") -> str | None:
        return read(copy, uri or self.practice.uri, name, self.texts[patient, month])

    def gone_everywhere(self, patient: str, month: str) -> bool:
        """By the doctor's token, from every copy there is: the backups, the vault itself, and the fresh backup."""
        for backup in self.backups:
            with pytest.raises(DoesNotOpen):
                self.read(backup, patient, month)
        newest = [self.practice.path, *self.practice.path.parent.glob("vault.db-backup-*")]
        assert len(newest) == 2
        return all(self.read(copy, patient, month) is None for copy in newest)

    def still_read(self) -> set[tuple[str, str]]:
        return {key for key in self.texts if self.read(self.practice.path, *key) == " ".join(key)}


@pytest.fixture
def year(tmp_path: Path, token_uri: str) -> Year:
    return Year(Practice(tmp_path / "practice" / "vault.db", token_uri), tmp_path)


def shred(year: Year, *months: str, company: OtherTokens = AWAY) -> Certificate:
    with year.practice.open(token="doctor") as vault:
        known = {token.name for token in vault.status().tokens}
        return vault.months.shred(
            [Month.parse(month) for month in months], company if "spare" in known else OtherTokens(pin)
        )


def test_before_it_is_shredded_everything_opens(year: Year, profile: str) -> None:
    """So that the thief of these tests is one who can: by a later backup's keys, and by an earlier one's chain."""
    year.live(("EXP-1", "OLD-1"), TokenOptions(profile), {})
    assert year.still_read() == set(year.texts)
    assert year.read(year.backups[0], "EXP-1", "2026-11") == "EXP-1 2026-11"
    assert year.read(year.backups[0], "OLD-1", "2026-11") == "OLD-1 2026-11"


def test_a_month_while_an_earlier_one_is_held(year: Year, profile: str) -> None:
    year.live(("EXP-1", "EXP-2"), TokenOptions(profile), {})
    with year.practice.open() as vault:
        vault.holds.add("case 4711", month=Month.parse("2026-07"))
    shred(year, "2026-09")
    assert year.gone_everywhere("EXP-1", "2026-09")
    assert year.gone_everywhere("EXP-2", "2026-09")
    assert year.still_read() == {key for key in year.texts if key[1] != "2026-09"}


def test_months_out_of_order(year: Year, profile: str) -> None:
    year.live(("EXP-1",), TokenOptions(profile), {})
    shred(year, "2026-09")
    shred(year, "2026-07", "2026-10")
    for month in ("2026-07", "2026-09", "2026-10"):
        assert year.gone_everywhere("EXP-1", month)
    assert year.still_read() == {("EXP-1", "2026-08"), ("EXP-1", "2026-11")}


def test_an_erased_patient(year: Year, profile: str) -> None:
    year.live(("EXP-1", "EXP-2", "OLD-1"), TokenOptions(profile), {})
    with year.practice.open() as vault:
        vault.patients.erase("EXP-1")
        vault.patients.erase("OLD-1")
    for patient in ("EXP-1", "OLD-1"):
        for month in NAMES:
            assert year.gone_everywhere(patient, month)
    assert year.still_read() == {("EXP-2", month) for month in NAMES}


def test_version_1_patients_who_were_removed_before(year: Year, profile: str) -> None:
    """Their secret was in the earlier backups; it went with the keys that opened them."""
    year.live(("EXP-1", "OLD-1"), TokenOptions(profile), {"2026-09": lambda vault: vault.patients.remove("OLD-1")})
    made = shred(year, "2026-07")
    assert made.value["v1_secrets"] == 0
    assert year.gone_everywhere("OLD-1", "2026-07")
    assert year.still_read() == {key for key in year.texts if key[1] != "2026-07"}


def test_a_version_1_secret_that_is_kept_derives_the_month_as_the_certificate_says(year: Year, profile: str) -> None:
    year.live(("OLD-1",), TokenOptions(profile), {})
    made = shred(year, "2026-07")
    assert made.value["v1_secrets"] == 1
    assert "derives every month's key" in made.text
    assert year.read(year.practice.path, "OLD-1", "2026-07") == "OLD-1 2026-07"  # by the thief, not by the program
    with year.practice.open() as vault:
        opened = vault.decrypt(year.texts["OLD-1", "2026-07"], archive=True, month=Month.parse("2026-07"))
    assert [message.status for message in opened] == ["shredded"]


def test_a_pairing_code_is_not_kept_past_its_time(year: Year, profile: str) -> None:
    """It derives every month from its own on."""
    year.live(("EXP-1",), TokenOptions(profile), {})
    with year.practice.open() as vault:
        vault.patients.add("EXP-9", unconfirmed=True)
        (year.texts["EXP-9", "2026-11"],) = vault.encrypt("EXP-9", "EXP-9 2026-11")
    year.practice.clock.set("2027-01-20")
    with year.practice.open() as vault:
        vault.months.open(Month.parse("2027-01"))
    shred(year, "2026-11")
    assert year.gone_everywhere("EXP-9", "2026-11")


@pytest.mark.parametrize("spare", PROFILES)
def test_what_a_token_that_was_away_opens_is_what_the_certificate_says(
    year: Year, profile: str, softhsm: SoftHsm, spare: str
) -> None:
    uri = softhsm.make_token()
    add = {"2026-08": lambda vault: vault.tokens.add("spare", uri, pin=pin, options=TokenOptions(spare))}
    year.live(("EXP-1",), TokenOptions(profile), add)
    made = [shred(year, "2026-07")]
    with year.practice.open(token="doctor") as vault:
        vault.backup(year.directory / "2026-12.db")  # between the two
    made.append(shred(year, "2026-08"))
    for certificate, month in zip(made, ("2026-07", "2026-08"), strict=True):
        told = {
            backup["name"]: backup["opened_by"]
            for backup in certificate.value["backups"]
            if backup["name"].startswith("2026-")
        }
        for backup in year.backups:
            if backup.name not in told:
                continue
            try:
                opens = year.read(backup, "EXP-1", month, "spare", uri) is not None
            except DoesNotOpen:
                opens = False
            # The month that went with the first is not in the backup from between the two.
            assert opens == (told[backup.name] == ["spare"]), (month, backup.name, told)
    with year.practice.open(token="doctor") as vault:
        vault.tokens.sync(OtherTokens(pin))
    for backup in year.backups:
        with pytest.raises(DoesNotOpen):
            year.read(backup, "EXP-1", "2026-08", "spare", uri)


def test_a_removed_token_that_is_found_again(year: Year, profile: str, softhsm: SoftHsm) -> None:
    uri = softhsm.make_token()
    year.live(("EXP-1",), TokenOptions(profile), {"2026-08": lambda vault: vault.tokens.add("spare", uri, pin=pin)})
    with year.practice.open(token="doctor") as vault:
        made = vault.tokens.remove("spare", AWAY)
    assert made is not None
    told = {backup["name"]: backup["opened_by"] for backup in made.value["backups"]}
    assert told == {f"{month}.db": [] if month == "2026-07" else ["spare"] for month in NAMES}
    assert year.read(year.backups[-1], "EXP-1", "2026-07", "spare", uri) == "EXP-1 2026-07"
    with pytest.raises(DoesNotOpen):
        year.read(year.practice.path, "EXP-1", "2026-11", "spare", uri)
    with year.practice.open(token="doctor") as vault:
        vault.tokens.sync(OtherTokens(pin))
    with pytest.raises(DoesNotOpen):
        year.read(year.backups[-1], "EXP-1", "2026-07", "spare", uri)


def test_five_months_away_and_everything_that_should_be_readable_is(year: Year, profile: str) -> None:
    """The doctor comes back, runs what ``status`` names, and reads what the patient wrote all the while."""
    practice = year.practice
    practice.clock.set("2026-06-20")
    with practice.create(options=TokenOptions(profile)) as vault:
        phone = practice.pair(vault, "EXP-1")
    written = []
    for month in NAMES:
        practice.clock.set(f"{month}-15")
        written += phone.write(f"desde {month}")
    with practice.open() as vault:
        (named,) = [problem for problem in vault.status().problems if "rotate" in problem]
        assert "run 'medcrypt rotate --to 2026-11'" in named
        vault.months.open(Month.parse("2026-11"))
        assert dict(vault.status().months) == {
            "2026-06": "archived", "2026-07": "archived", "2026-08": "archived", "2026-09": "archived",
            "2026-10": "archived", "2026-11": "active",
        }  # fmt: skip
        read_back = [message.text for message in vault.decrypt("\n".join(written), archive=True)]
        assert read_back == [f"desde {month}" for month in NAMES]
        assert phone.read(*vault.encrypt("EXP-1", "ya volví")) == ["ya volví"]
