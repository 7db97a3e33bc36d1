"""patient add, confirm, list, show, qr, repair, remove; the codes are read back by a reader that is not ours."""

from __future__ import annotations

import re
import stat
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from medcrypt_hsm.cli.qr import matrix
from scripts.standalone import patient as phone
from tests.support.clinic import PENDING_PATIENT, V1_PATIENT, V1_SECRET, V2_PATIENT, Clinic, assert_fields_documented

PAYLOAD = re.compile(r"MEDCRYPT:P2:[A-Z2-7]{76}")


def scan(picture: Path) -> str:
    """What a camera would read."""
    done = subprocess.run(["zbarimg", "--nodbus", "--quiet", "--raw", picture], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def picture_of(rows: list[list[bool]], path: Path) -> Path:
    """As a plain PGM, drawn here and not by the program."""
    pixels = [["0" if dark else "255" for dark in row for _ in range(6)] for row in rows for _ in range(6)]
    path.write_text(f"P2\n{len(pixels[0])} {len(pixels)}\n255\n" + "\n".join(" ".join(row) for row in pixels) + "\n")
    return path


def test_add_into_a_pipe_is_the_payload_alone(clinic: Clinic) -> None:
    done = clinic.run("patient", "add", "EXP-00999", "--label", "Paciente Ejemplo")
    assert PAYLOAD.fullmatch(done.stdout.removesuffix("\n"))
    assert "before 2026-11-22T12:15:00Z" in done.stderr
    assert "medcrypt patient confirm EXP-00999 CODE" in done.stderr


def test_the_check_code_of_the_patients_program_confirms(clinic: Clinic) -> None:
    done = clinic.run("--json", "patient", "add", "EXP-00999", "--label", "Paciente Ejemplo")
    assert_fields_documented("patient add", done.json)
    assert (done.json["state"], done.json["protocol"], done.json["qr"]) == ("pending", "v2", None)
    code = phone.PatientState.pair(phone.parse_payload(done.json["payload"])).check_code
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    refused = clinic.run("--json", "patient", "confirm", "EXP-00999", wrong, code=5).error
    assert "2 of 3 tries left" in refused["message"]
    confirmed = clinic.run("--json", "patient", "confirm", "EXP-00999", f"{code[:3]} {code[3:]}")
    assert_fields_documented("patient confirm", confirmed.json)
    assert (confirmed.json["state"], confirmed.json["confirmed"]) == ("active", True)
    assert clinic.run("--json", "patient", "confirm", "EXP-00999", code, code=6).error["error"] == "refused"


@pytest.mark.parametrize("suffix", ["png", "svg", "PNG"])
def test_a_picture_is_private_and_a_reader_reads_it(clinic: Clinic, tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / f"code.{suffix}"
    done = clinic.run("--json", "patient", "add", "EXP-00999", "--qr", picture)
    assert done.json["qr"] == str(picture)
    assert stat.S_IMODE(picture.stat().st_mode) == 0o600
    assert "delete it after the scan" in done.stderr
    if suffix == "svg":
        root = ET.fromstring(picture.read_text())  # noqa: S314  # our own file
        size = int(root.attrib["viewBox"].split()[2])
        rows = [[False] * size for _ in range(size)]
        (path,) = root.findall("{http://www.w3.org/2000/svg}path")
        for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", path.attrib["d"]):
            rows[int(y)][int(x)] = True
        picture = picture_of(rows, tmp_path / "drawn.pgm")
    assert scan(picture) == done.json["payload"]


def test_the_code_is_version_4(clinic: Clinic) -> None:
    payload = clinic.run("patient", "add", "EXP-00999").stdout.strip()
    assert len(matrix(payload)) == 33 + 2 * 4


def test_the_terminal_shows_a_code_that_a_reader_reads(clinic: Clinic, tmp_path: Path) -> None:
    terminal = clinic.terminal("patient", "add", "EXP-00999")
    assert terminal.finish() == 0
    drawn = [line for line in terminal.lines if line.startswith("\x1b[38;5;16;48;5;231m")]
    cells = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in drawn]
    assert {len(line) for line in cells} == {41}
    rows = [[c in half for c in line] for line in cells for half in ("▀█", "▄█")]
    payload = next(line for line in terminal.lines if PAYLOAD.fullmatch(line))
    assert scan(picture_of(rows, tmp_path / "screen.pgm")) == payload


@pytest.mark.parametrize("name", ["code.jpg", "code", "no/such/code.png", "there.png"])
def test_pictures_that_cannot_be_drawn_change_nothing(clinic: Clinic, tmp_path: Path, name: str) -> None:
    (tmp_path / "there.png").write_text("an older picture")
    clinic.run("patient", "add", "EXP-00999", "--qr", tmp_path / name, code=2)
    clinic.run("patient", "show", "EXP-00999", code=2)
    assert (tmp_path / "there.png").read_text() == "an older picture"


def test_a_refused_pairing_leaves_no_picture(clinic: Clinic, tmp_path: Path) -> None:
    clinic.run("patient", "add", V2_PATIENT, "--qr", tmp_path / "code.png", code=6)
    assert not (tmp_path / "code.png").exists()


def test_qr_shows_the_same_code_until_it_expires(clinic: Clinic, tmp_path: Path) -> None:
    first = clinic.run("--json", "patient", "add", "EXP-00999").json
    again = clinic.run("--json", "patient", "qr", "EXP-00999", "--qr", tmp_path / "code.png").json
    assert_fields_documented("patient qr", again)
    assert (again["payload"], again["expires"]) == (first["payload"], first["expires"])
    assert scan(tmp_path / "code.png") == first["payload"]
    clinic.run("patient", "qr", "EXP-00999", at="2026-11-22 12:16:00", code=6)


def test_a_version_1_secret_goes_into_a_pipe_as_it_is(clinic: Clinic) -> None:
    secret = "clave\u00a0de\u200bprueba \\ \x1b[31m ñ 4711"
    done = clinic.run(
        "patient", "add", "EXP-1", "--protocol", "v1", "--secret-source", "env:GIVEN", env={"GIVEN": secret}
    )
    assert done.stdout == f"{secret}\n"
    assert clinic.run("patient", "qr", "EXP-1").stdout == f"{secret}\n"


def test_a_version_1_secret_that_is_given(clinic: Clinic) -> None:
    done = clinic.run("--json", "patient", "qr", V1_PATIENT)
    assert done.json["payload"] == V1_SECRET
    weak = clinic.run(
        "--json", "patient", "add", "EXP-1", "--protocol", "v1", "--secret-source", "env:WEAK", env={"WEAK": "hola"}
    )
    assert weak.json["weak"]
    assert "can be guessed" in weak.stderr
    assert clinic.run("--json", "patient", "add", "EXP-2", "--protocol", "v1").json["weak"] is False


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["add", V2_PATIENT], 6),
        (["add", ""], 2),
        (["add", "EXP\n1"], 2),
        (["add", "EXP-1", "--protocol", "v3"], 2),
        (["add", "EXP-1", "--secret-source", "env:V1_SECRET"], 2),
        (["add", "EXP-1", "--protocol", "v1", "--secret-source", "env:NOT_THERE"], 4),
        (["confirm", PENDING_PATIENT, "12345"], 2),
        (["confirm", "EXP-404", "123456"], 2),
        (["show", "EXP-404"], 2),
        (["qr", "EXP-404"], 2),
        (["repair", "EXP-404"], 2),
        (["remove", "EXP-404", "--yes"], 2),
        (["remove", V2_PATIENT, "--non-interactive"], 2),
    ],
)
def test_refusals(clinic: Clinic, arguments: list[str], code: int) -> None:
    done = clinic.run("--json", "patient", *arguments, code=code)
    assert done.error["hint"]
    assert done.stdout == ""


def test_list_and_show(clinic: Clinic) -> None:
    done = clinic.run("--json", "patient", "list")
    assert_fields_documented("patient list", done.json)
    listed = {pairing["patient"]: pairing for pairing in done.json["patients"]}
    assert {name: (p["protocol"], p["state"], p["confirmed"]) for name, p in listed.items()} == {
        V2_PATIENT: ("v2", "active", False),
        V1_PATIENT: ("v1", "active", True),
        PENDING_PATIENT: ("v2", "pending", False),
    }
    assert listed[V2_PATIENT]["label"] == "Paciente Ejemplo"
    table = clinic.run("patient", "list").stdout.splitlines()
    assert table[0].split("  ")[0] == "ID"
    assert len(table) == 4
    shown = clinic.run("--json", "patient", "show", V2_PATIENT).json
    assert_fields_documented("patient show", shown)
    assert shown["pairings"] == [listed[V2_PATIENT]]
    assert "Paciente Ejemplo" in clinic.run("patient", "show", V2_PATIENT).stdout


def test_a_hostile_label_is_escaped(clinic: Clinic) -> None:
    clinic.run("patient", "add", "EXP-00999", "--label", "a\x1b[2Jb\n\u202ec")
    table = clinic.run("patient", "list").stdout
    assert r"a\x1b[2Jb\n\u202ec" in table
    assert len(table.splitlines()) == 5


def test_repair_replaces_after_the_confirmation(clinic: Clinic) -> None:
    done = clinic.run("--json", "patient", "repair", V2_PATIENT)
    assert_fields_documented("patient repair", done.json)
    code = phone.PatientState.pair(phone.parse_payload(done.json["payload"])).check_code
    clinic.run("patient", "confirm", V2_PATIENT, code)
    states = [p["state"] for p in clinic.run("--json", "patient", "show", V2_PATIENT).json["pairings"]]
    assert sorted(states) == ["active", "ended"]


def test_remove_keeps_old_months_readable(clinic: Clinic) -> None:
    wire = clinic.encrypt("Hola")
    done = clinic.run("--json", "--yes", "patient", "remove", V2_PATIENT)
    assert_fields_documented("patient remove", done.json)
    assert len(done.json["removed"]) == 1
    clinic.run("encrypt", V2_PATIENT, stdin="x", code=6)
    clinic.run("decrypt", stdin=wire, code=6)
    assert clinic.run("decrypt", "--archive", stdin=wire).stdout == "Hola"


@pytest.mark.parametrize(("typed", "code"), [(V2_PATIENT, 0), ("yes", 1)])
def test_remove_asks_to_type_the_id(clinic: Clinic, typed: str, code: int) -> None:
    terminal = clinic.terminal("patient", "remove", V2_PATIENT)
    terminal.expect(f"Type {V2_PATIENT} to go on: ")
    terminal.type(typed + "\n")
    assert terminal.finish() == code
    state = clinic.run("--json", "patient", "show", V2_PATIENT).json["pairings"][0]["state"]
    assert state == ("removed" if code == 0 else "active")


class TestLabelSource:
    """What stands in an argument can be read by every user of the machine while the command runs."""

    def test_a_file(self, clinic: Clinic) -> None:
        file = clinic.directory / "label"
        file.write_text("Paciente Ejemplo\n")
        file.chmod(0o600)
        clinic.run("patient", "add", "EXP-1", "--label-source", f"file:{file}")
        assert clinic.run("--json", "patient", "show", "EXP-1").json["pairings"][0]["label"] == "Paciente Ejemplo"

    def test_a_person(self, clinic: Clinic) -> None:
        terminal = clinic.terminal("patient", "add", "EXP-1", "--label-source", "prompt")
        terminal.expect("label: ")
        terminal.type("Paciente Ejemplo\n")
        assert terminal.finish() == 0
        assert clinic.run("--json", "patient", "show", "EXP-1").json["pairings"][0]["label"] == "Paciente Ejemplo"

    def test_not_both(self, clinic: Clinic) -> None:
        refused = clinic.run("patient", "add", "EXP-1", "--label", "x", "--label-source", "env:LABEL", code=2)
        assert refused.stderr == "error: --label and --label-source are both given\nhint: leave --label out\n"

    def test_nobody_can_be_asked(self, clinic: Clinic) -> None:
        refused = clinic.run("patient", "add", "EXP-1", "--label-source", "prompt", "--non-interactive", code=2)
        assert "label is needed, and nobody can be asked for it" in refused.stderr
