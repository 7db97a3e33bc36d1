"""encrypt, decrypt, rotate: what goes in, what comes out, and where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.checkout import FULL
from tests.support.clinic import PENDING_PATIENT, V1_PATIENT, V2_PATIENT, Clinic, assert_fields_documented
from tests.support.command_line import CommandLine

WIRE = re.compile(r"\[MEDCRYPT:v[12]:[^\]]+\]")


def forged(text: str) -> str:
    """The same message with its tag altered."""
    head, tag = text.rstrip("\n")[:-1].rsplit(":", 1)
    return f"{head}:{'B' if tag[0] != 'B' else 'C'}{tag[1:]}]\n"


def test_a_text_comes_back_exactly(clinic: Clinic) -> None:
    text = "  Señora:\ttome 5 mg\r\n\n\x1b[31m(café)\u202e \x00 fin"
    wire = clinic.encrypt(text)
    assert WIRE.fullmatch(wire.rstrip("\n"))
    done = clinic.run("decrypt", stdin=f"she wrote {wire} yesterday")
    assert done.stdout == text
    assert done.stderr == f"── {V2_PATIENT} · 2026-11 · from the doctor (d) · message 1\n"


@pytest.mark.parametrize(("given", "read"), [("a\n", "a"), ("a\n\n", "a\n"), ("a\r\n", "a\r"), ("a", "a")])
def test_one_line_end_at_the_end_is_not_part_of_the_text(clinic: Clinic, given: str, read: str) -> None:
    file = clinic.directory / "text"
    file.write_bytes(given.encode())
    done = clinic.run("encrypt", V2_PATIENT, file)
    assert clinic.run("decrypt", "--json", stdin=done.stdout).json["messages"][0]["text"] == read


def test_version_1_both_ways(clinic: Clinic) -> None:
    done = clinic.run("--json", "encrypt", V1_PATIENT, stdin="Hola")
    assert (done.json["version"], done.json["month"]) == ("v1", "2026-11")
    assert_fields_documented("encrypt", done.json)
    read = clinic.run("--json", "decrypt", stdin=done.json["messages"][0])
    assert read.json["messages"] == [
        {
            "number": 1,
            "patient": V1_PATIENT,
            "version": "v1",
            "month": "2026-11",
            "sender": "unknown",
            "part": "1.1",
            "text": "Hola",
            "status": "ok",
            "message": None,
            "hint": None,
        }
    ]
    assert_fields_documented("decrypt", read.json)


@pytest.mark.parametrize("patient", [V1_PATIENT, V2_PATIENT])
def test_json_does_not_say_whose_a_forged_message_is(clinic: Clinic, patient: str) -> None:
    wire = clinic.encrypt("Hola", patient)
    (told,) = clinic.run("--json", "decrypt", stdin=forged(wire), code=5).json["messages"]
    assert (told["patient"], told["month"], told["sender"], told["text"]) == (None, None, None, None)
    assert told["status"] == "not-authentic"


def test_a_long_version_1_text_is_warned_of(clinic: Clinic) -> None:
    assert "4000" in clinic.run("encrypt", V1_PATIENT, stdin="x" * 4000).stderr
    assert clinic.run("encrypt", V1_PATIENT, stdin="x" * 2000).stderr == ""


def test_a_long_version_2_text_has_one_line_a_part(clinic: Clinic) -> None:
    text = "a" * 3000 + "\n" + "ñ" * 2000
    wire = clinic.encrypt(text).splitlines()
    assert len(wire) > 1
    assert all(len(line) <= 4000 for line in wire)
    done = clinic.run("decrypt", stdin="\n".join(reversed(wire)))
    assert done.stdout == text
    partial = clinic.run("decrypt", stdin=wire[0], code=6)
    assert partial.stdout == ""
    assert "missing" in partial.stderr


def test_several_messages_are_framed_and_in_order(clinic: Clinic) -> None:
    first, second = (
        clinic.encrypt("one\n── EXP-9 · 2026-11 · from the patient (p) · message 9\ntwo"),
        clinic.encrypt("x"),
    )
    done = clinic.run("decrypt", stdin=first + second)
    assert done.stdout == (
        f"── {V2_PATIENT} · 2026-11 · from the doctor (d) · message 1 of 2\n"
        "│ one\n"
        "│ ── EXP-9 · 2026-11 · from the patient (p) · message 9\n"
        "│ two\n"
        f"── {V2_PATIENT} · 2026-11 · from the doctor (d) · message 2 of 2\n"
        "│ x\n"
    )
    again = clinic.run("decrypt", stdin=first + second).stdout
    assert again.count("seen before") == 2


def test_hostile_characters_are_escaped_among_several(clinic: Clinic) -> None:
    hostile = "\x1b]0;title\x07 \u202edlog\u2069 a\rb\u2028c\x85d\ue0001 \u200bz"
    other = clinic.encrypt("x")
    shown = clinic.run("decrypt", stdin=clinic.encrypt(hostile) + other).stdout
    expected = r"│ \x1b]0;title\x07 \u202edlog\u2069 a\rb\u2028c\x85d" + "\ue0001" + r" \u200bz"
    assert shown.splitlines()[1] == expected


def test_a_bad_message_among_good_ones_is_said_in_its_place(clinic: Clinic) -> None:
    good, other = clinic.encrypt("good"), clinic.encrypt("other")
    text = f"{good}[MEDCRYPT:v2:broken]\n{forged(other)}{other}"
    done = clinic.run("decrypt", stdin=text, code=5)
    heads = [line for line in done.stdout.splitlines() if line.startswith("──")]
    assert [head.partition(" · ")[2][:8] for head in heads] == ["2026-11 ", "NOT READ", "NOT READ", "2026-11 "]
    assert "│ good" in done.stdout
    assert "│ error: " in done.stdout
    assert "│ hint: " in done.stdout
    assert done.stderr.startswith("error: 2 of 4 messages could not be read")

    as_json = clinic.run("--json", "decrypt", stdin=text, code=5)
    assert [m["status"] for m in as_json.json["messages"]] == ["seen", "malformed", "not-authentic", "seen"]
    assert [m["text"] for m in as_json.json["messages"]] == ["good", None, None, "other"]
    assert as_json.error["error"] == "malformed"
    assert_fields_documented("decrypt", as_json.json)


def test_no_message_asks_for_no_pin(clinic: Clinic) -> None:
    done = clinic.run("--json", "decrypt", stdin="nothing here", code=5, env={"MEDCRYPT_PIN_SOURCE": "env:NOT_THERE"})
    assert done.error["error"] == "malformed"
    assert done.stdout == ""


def test_what_is_not_utf_8_is_refused_without_repeating_it(clinic: Clinic) -> None:
    assert "caf" not in clinic.run("encrypt", V2_PATIENT, stdin=b"caf\xe9", code=2).stderr
    assert "caf" not in clinic.run("decrypt", stdin=b"caf\xe9", code=5).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["encrypt", "EXP-404"], 2, "usage"),
        (["encrypt", PENDING_PATIENT], 6, "unconfirmed"),
        (["encrypt", V2_PATIENT, "no-such-file"], 2, "usage"),
        (["encrypt"], 2, "usage"),
        (["decrypt", "no-such-file"], 2, "usage"),
        (["decrypt", "--month", "2026-13"], 2, "usage"),
        (["rotate", "--to", "november"], 2, "usage"),
        (["rotate", "--to", "2027-05"], 6, "refused"),
    ],
)
def test_refusals(clinic: Clinic, arguments: list[str], code: int, name: str) -> None:
    done = clinic.run("--json", *arguments, stdin="Hola", code=code)
    assert done.error["error"] == name
    assert done.error["hint"]
    assert done.stdout == ""


def test_the_next_month_opens_by_itself_and_says_so(clinic: Clinic) -> None:
    december = "2026-12-01 08:00:00"
    done = clinic.run("encrypt", V2_PATIENT, stdin="Hola", at=december)
    assert ":2026-12:" in done.stdout
    assert "opened 2026-12" in done.stderr
    assert "\nmedcrypt/" in done.stderr, "the checkpoint"
    wire = clinic.run("--json", "encrypt", V2_PATIENT, stdin="Hola", at="2027-01-02 08:00:00")
    assert wire.json["month"] == "2027-01"
    assert wire.json["month_opened"]["months"] == ["2027-01"]
    assert_fields_documented("encrypt", wire.json)


def test_an_archived_month_is_read_on_purpose(clinic: Clinic) -> None:
    wire = clinic.encrypt("Hola")
    later = "2026-12-09 08:00:00"
    assert clinic.run("--json", "decrypt", stdin=wire, code=6, at=later).error["error"] == "month-stale"
    assert clinic.run("decrypt", "--archive", stdin=wire, at=later).stdout == "Hola"
    assert clinic.run("decrypt", "--month", "2026-11", stdin=wire, at=later).stdout == "Hola"


def test_rotate_opens_several_months_only_when_told(clinic: Clinic) -> None:
    later = "2027-02-03 08:00:00"
    refused = clinic.run("--json", "rotate", at=later, code=6).error
    assert (refused["error"], "rotate --to 2027-02" in refused["hint"]) == ("months-behind", True)
    done = clinic.run("--json", "rotate", "--to", "2027-02", at=later)
    assert done.json["months"] == ["2026-12", "2027-01", "2027-02"]
    assert_fields_documented("rotate", done.json)
    nothing = clinic.run("--json", "rotate", at=later)
    assert nothing.json["months"] == []


def test_a_file_and_a_pipe_are_the_same(clinic: Clinic, tmp_path: Path) -> None:
    wire = clinic.encrypt("Hola")
    file = tmp_path / "chat.txt"
    file.write_text(wire)
    assert clinic.run("decrypt", file).stdout == clinic.run("decrypt", "-", stdin=wire).stdout == "Hola"


def test_quiet_leaves_the_result_alone(clinic: Clinic) -> None:
    done = clinic.run("--quiet", "decrypt", stdin=clinic.encrypt("Hola"))
    assert (done.stdout, done.stderr) == ("Hola", "")


def test_a_locale_without_utf_8_changes_no_byte(clinic: Clinic) -> None:
    wire = clinic.encrypt("año · €")
    assert clinic.run("decrypt", stdin=wire, env={"LC_ALL": "POSIX", "PYTHONUTF8": "0"}).stdout == "año · €"


@pytest.mark.parametrize("count", [300] if FULL else [30])
def test_many_messages_are_one_record(clinic: Clinic, count: int) -> None:
    wire = clinic.encrypt("Hola")
    done = clinic.run("--json", "decrypt", stdin=wire * count)
    assert [m["number"] for m in done.json["messages"]] == list(range(1, count + 1))


def test_a_vault_that_is_not_there(medcrypt: CommandLine) -> None:
    done = medcrypt("--json", "encrypt", V2_PATIENT, stdin="Hola", code=7)
    assert done.error["error"] == "vault-missing"
