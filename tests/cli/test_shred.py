"""shred, hold, patient erase, vault sync: what a person sees, whose PIN is asked for, what the exit code says."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.support.clinic import V1_PATIENT, V2_PATIENT, Clinic, assert_fields_documented
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import softhsm_module

LATER = "2027-01-10 12:00:00"
SPARE_PIN = "otro-pin-0815"
BOTH = f"env:{PIN_VARIABLE} spare=env:SPARE_PIN"


@pytest.fixture
def old(clinic: Clinic) -> Clinic:
    """The clinic in January; November and December are archived, and a message of November is in november.txt."""
    (clinic.run.home / "november.txt").write_text(clinic.encrypt("en noviembre"))
    clinic.run.now = LATER
    clinic.run("rotate", "--to", "2027-01")
    return clinic


@pytest.fixture
def two(old: Clinic) -> Clinic:
    """The same with a spare of profile aes-kw, whose PIN is another."""
    old.run.softhsm.make_token("spare", pin=SPARE_PIN)
    old.run.env |= {"SPARE_PIN": SPARE_PIN, "MEDCRYPT_PIN_SOURCE": BOTH}
    old.run("vault", "add-token", f"spare=pkcs11:token=spare?module-path={softhsm_module()}")
    return old


def take_away(clinic: Clinic, label: str) -> None:
    """Pull the SoftHSM2 token called ``label`` out, to ``put_back`` later."""
    tokens, away = clinic.directory / "softhsm" / "tokens", clinic.directory / "away"
    away.mkdir(exist_ok=True)
    for token in tokens.iterdir():
        if label.encode() in (token / "token.object").read_bytes():
            shutil.move(token, away)


def put_back(clinic: Clinic) -> None:
    for token in (clinic.directory / "away").iterdir():
        shutil.move(token, clinic.directory / "softhsm" / "tokens")


def months(clinic: Clinic) -> dict[str, str]:
    return {month["month"]: month["state"] for month in clinic.run("--json", "status").json["months"]}


class TestShred:
    def test_a_month_and_its_certificate(self, old: Clinic) -> None:
        clinic = old
        done = clinic.run("--json", "--yes", "shred", "2026-11", "--certificate", "november")
        assert_fields_documented("shred", done.json)
        assert done.json["months"] == ["2026-11"]
        document = clinic.run.home / "november.json"
        assert json.loads(document.read_bytes()) == done.json["certificate"]
        assert hashlib.sha256(document.read_bytes()).hexdigest() in (clinic.run.home / "november.md").read_text()
        assert months(clinic) == {"2026-11": "shredded", "2026-12": "archived", "2027-01": "active"}
        error = clinic.run("--json", "decrypt", "--archive", "november.txt", code=6).json["messages"][0]
        assert error["status"] == "shredded"
        assert clinic.run("--json", "--yes", "shred", "2026-11", code=6).error["error"] == "shredded"

    def test_what_is_due(self, old: Clinic) -> None:
        clinic = old
        assert clinic.run("--yes", "shred", "--due").stdout == "no month is due\n"
        clinic.run("vault", "policy", "--retain-months", "1")
        assert any("past retention: 2026-11 (1 month)" in p for p in clinic.run("--json", "status").json["problems"])
        clinic.run("hold", "add", "--month", "2026-11", "--reason", "inspección")
        assert clinic.run("--yes", "shred", "--due").stdout == (
            "every month that is due is on hold\nkept: 2026-11, month 2026-11 is on hold\n"
        )
        clinic.run("hold", "remove", "--month", "2026-11", "--reason", "terminó")
        assert clinic.run("--json", "--yes", "shred", "--due").json["months"] == ["2026-11"]

    @pytest.mark.parametrize(
        ("given", "code", "name"),
        [
            ((), 2, "usage"),
            (("2026-11", "--due"), 2, "usage"),
            (("2026-13",), 2, "usage"),
            (("2020-01",), 2, "usage"),
            (("2027-01",), 6, "refused"),
            (("2026-11", "--without", "nobody"), 2, "usage"),
            (("2026-11", "--without", "doctor"), 2, "usage"),
            (("2026-11", "--certificate", "november.txt/x"), 2, "usage"),
        ],
    )
    def test_what_is_refused_changes_nothing(self, old: Clinic, given: tuple[str, ...], code: int, name: str) -> None:
        assert old.run("--json", "--yes", "shred", *given, code=code).error["error"] == name
        assert "shredded" not in months(old).values()

    def test_it_is_typed_to_confirm(self, old: Clinic) -> None:
        assert "consent" in old.run("--json", "shred", "2026-11", code=2).error["message"]
        terminal = old.terminal("shred", "2026-11", "2026-12")
        terminal.expect("Type shred 2 months to go on: ")
        terminal.type("shred 2 months\n")
        assert terminal.finish() == 0
        assert list(months(old).values()) == ["shredded", "shredded", "active"]


class TestSeveralTokens:
    def test_a_source_without_a_name_serves_the_token_in_use_alone(self, two: Clinic) -> None:
        one = {"MEDCRYPT_PIN_SOURCE": f"env:{PIN_VARIABLE}"}
        refused = two.run("--json", "--yes", "--token", "doctor", "shred", "2026-11", env=one, code=4).error
        assert refused["error"] == "pin-needed"
        assert "--without" in refused["hint"]
        done = two.run("--json", "--yes", "--token", "doctor", "shred", "2026-11").json["certificate"]
        assert [(token["name"], token["destroyed"]) for token in done["tokens"]] == [("doctor", True), ("spare", True)]

    def test_one_that_is_away_is_named_left_and_synced(self, two: Clinic) -> None:
        take_away(two, "spare")
        assert two.run("--json", "--yes", "shred", "2026-11", code=3).error["error"] == "token-absent"
        done = two.run("--yes", "shred", "2026-11", "--without", "spare")
        assert "token doctor: old root key 1 destroyed\ntoken spare: old root key 1 LEFT" in done.stdout
        assert len(two.run("--json", "status").json["problems"]) == 2
        assert two.run("vault", "sync").stdout == "token spare: old root key 1 LEFT, the token was not used\n"
        put_back(two)
        assert "vault sync" in two.run("--token", "spare", "status", code=3).stderr
        synced = two.run("--json", "--token", "doctor", "vault", "sync").json
        assert_fields_documented("vault sync", synced)
        nothing: dict[str, list[str]] = {"left": [], "shares_destroyed": [], "shares_left": []}
        assert synced == {"schema": 1, "renewed": ["spare"], "destroyed": ["1:spare"], **nothing}
        assert two.run("--token", "doctor", "vault", "sync").stdout == "every token is up to date\n"
        assert two.run("--json", "--token", "spare", "status").json["problems"] == []


class TestHold:
    def test_added_listed_removed(self, clinic: Clinic) -> None:
        added = clinic.run("--json", "hold", "add", "--patient", V2_PATIENT, "--reason", "queja 4711").json
        assert_fields_documented("hold add", added)
        clinic.run("hold", "add", "--patient", V2_PATIENT, "--reason", "demanda")
        clinic.run("hold", "add", "--month", "2026-11", "--reason", "inspección")
        listed = clinic.run("--json", "hold", "list").json
        assert_fields_documented("hold list", listed)
        # By age, and where the second is the same by name.
        assert sorted([(hold["patient"], hold["month"], hold["reasons"]) for hold in listed["holds"]], key=str) == [
            (V2_PATIENT, None, ["queja 4711", "demanda"]),
            (None, "2026-11", ["inspección"]),
        ]
        removed = clinic.run("hold", "remove", "--patient", V2_PATIENT, "--reason", "cerrada")
        assert removed.stdout == f"the hold on patient {V2_PATIENT} is lifted; it was: queja 4711; demanda\n"
        removed = clinic.run("--json", "hold", "remove", "--month", "2026-11", "--reason", "terminó")
        assert_fields_documented("hold remove", removed.json)
        assert "nothing is on hold" in clinic.run("hold", "list").stderr

    @pytest.mark.parametrize(
        "subject",
        [
            ("--reason", "r"),
            ("--reason", "r", "--patient", V2_PATIENT, "--month", "2026-11"),
            ("--reason", " ", "--patient", V2_PATIENT),
            ("--reason", "r", "--month", "2020-01"),
            ("--patient", V2_PATIENT),
        ],
    )
    def test_one_subject_and_a_reason(self, clinic: Clinic, subject: tuple[str, ...]) -> None:
        assert clinic.run("--json", "hold", "add", *subject, code=2).error["error"] == "usage"

    @pytest.mark.parametrize("subject", [("--patient", V2_PATIENT), ("--month", "2026-11")])
    def test_it_keeps_month_and_patient(self, old: Clinic, subject: tuple[str, str]) -> None:
        old.run("hold", "add", *subject, "--reason", "queja 4711")
        for command in (("shred", "2026-11"), ("patient", "erase", V2_PATIENT)):
            refused = old.run("--json", "--yes", *command, code=6).error
            assert refused["error"] == "on-hold"
            assert "queja 4711" in refused["message"]


class TestErase:
    def test_a_patient(self, clinic: Clinic) -> None:
        wire = clinic.encrypt("un texto")
        done = clinic.run("--json", "--yes", "patient", "erase", V2_PATIENT)
        assert_fields_documented("patient erase", done.json)
        assert [Path(file).name for file in done.json["certificate_files"]] == [
            "vault.db-certificate-2.json",
            "vault.db-certificate-2.md",
        ]
        assert clinic.run("--json", "decrypt", stdin=wire, code=5).json["messages"][0]["status"] == "unknown-pairing"
        assert V2_PATIENT not in clinic.run("patient", "list").stdout
        assert V1_PATIENT in clinic.run("patient", "list").stdout
        assert V2_PATIENT in clinic.run("audit", "show").stdout, "the log still tells of it"
        assert clinic.run("audit", "verify").returncode == 0

    def test_it_is_typed_to_confirm(self, clinic: Clinic) -> None:
        terminal = clinic.terminal("patient", "erase", V2_PATIENT)
        terminal.expect(f"Type {V2_PATIENT} to go on: ")
        terminal.type("EXP-1\n")
        assert terminal.finish() == 1
        assert V2_PATIENT in clinic.run("patient", "list").stdout

    def test_an_unknown_one(self, clinic: Clinic) -> None:
        assert clinic.run("--json", "--yes", "patient", "erase", "EXP-77777", code=2).error["error"] == "usage"


def test_a_reason_from_elsewhere_than_the_arguments(clinic: Clinic) -> None:
    added = clinic.run(
        "--json", "hold", "add", "--patient", V2_PATIENT, "--reason-source", "env:WHY", env={"WHY": "queja 4711"}
    )
    assert added.json["reasons"] == ["queja 4711"]
    refused = clinic.run("hold", "remove", "--patient", V2_PATIENT, code=2, env={"MEDCRYPT_PIN_SOURCE": "env:NOT"})
    assert refused.stderr == "error: a reason is needed\nhint: give it with --reason TEXT, or --reason-source prompt\n"
