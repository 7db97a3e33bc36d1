"""PIN sources: each kind, which token it is for, what happens when there is none. Never an argument, never twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from medcrypt_hsm.cli.pins import Source, choose, parse_source, split_sources
from medcrypt_hsm.errors import UsageError
from tests.support.clinic import PIN_LINE, Clinic
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import USER_PIN, WRONG_PIN

NO_SOURCE = {"MEDCRYPT_PIN_SOURCE": ""}
VERIFY = ("audit", "verify")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("prompt", Source("", "prompt")),
        ("env:PIN", Source("", "env", "PIN")),
        ("file:/a=b:c", Source("", "file", "/a=b:c")),
        ("doctor=fd:3", Source("doctor", "fd", "3")),
        ("Dra. Ejemplo=file:x", Source("Dra. Ejemplo", "file", "x")),
    ],
)
def test_sources_are_read(text: str, source: Source) -> None:
    assert parse_source(text, "--pin-source") == source


@pytest.mark.parametrize(
    "text", ["123456", "", "env:", "file:", "fd:", "fd:x", "fd:-1", "PROMPT", "=env:A", "a=123456"]
)
def test_what_is_no_source_is_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_source(text, "--pin-source")
    assert "123456" not in f"{raised.value.message} {raised.value.hint}"


def test_the_source_that_names_the_token_wins() -> None:
    texts = ["env:ANY", "doctor=env:DOCTOR", "nurse=env:NURSE"]
    chosen = [choose(texts, "--pin-source", names) for names in ({"doctor"}, {"nurse", "x"}, {"x"})]
    assert [source.where for source in chosen if source is not None] == ["DOCTOR", "NURSE", "ANY"]
    assert choose(texts[1:], "--pin-source", {"x"}) is None


def test_a_pin_given_as_a_source_is_not_printed(clinic: Clinic) -> None:
    done = clinic.run("--pin-source", USER_PIN, *VERIFY, code=2)
    assert USER_PIN not in done.stderr
    assert USER_PIN not in clinic.run(*VERIFY, code=2, env={"MEDCRYPT_PIN_SOURCE": USER_PIN}).stderr


@pytest.mark.parametrize("content", [USER_PIN, USER_PIN + "\n", USER_PIN + "\r\n"])
def test_a_file_loses_one_line_end(clinic: Clinic, tmp_path: Path, content: str) -> None:
    file = tmp_path / "pin"
    file.write_bytes(content.encode())
    file.chmod(0o600)
    done = clinic.run("--pin-source", f"file:{file}", *VERIFY)
    assert done.stderr == ""


def test_a_file_that_others_can_read_is_warned_of(clinic: Clinic, tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text(PIN_LINE)
    file.chmod(0o640)
    done = clinic.run("--quiet", "--pin-source", f"file:{file}", *VERIFY)
    assert done.stderr.startswith("warning: ")
    assert f"chmod 600 {file}" in done.stderr


@pytest.mark.parametrize(
    ("content", "code", "name"),
    [
        (b"", 4, "pin-needed"),
        (b"\n", 4, "pin-needed"),
        (b"a\nb\n", 2, "usage"),
        (b"\xff", 2, "usage"),
        (b"x" * 5000, 2, "usage"),
    ],
)
def test_a_file_that_holds_no_pin(clinic: Clinic, tmp_path: Path, content: bytes, code: int, name: str) -> None:
    file = tmp_path / "pin"
    file.write_bytes(content)
    file.chmod(0o600)
    assert clinic.run("--json", "--pin-source", f"file:{file}", *VERIFY, code=code).error["error"] == name


def test_a_file_descriptor_gives_a_line(clinic: Clinic) -> None:
    reader, writer = os.pipe()
    os.write(writer, PIN_LINE.encode() + b"the next secret\n")
    done = subprocess.run(
        clinic.run.command("--pin-source", f"fd:{reader}", *VERIFY),
        env=clinic.run.environment(),
        capture_output=True,
        text=True,
        pass_fds=[reader],
    )
    assert done.returncode == 0, done.stderr
    assert os.read(reader, 100) == b"the next secret\n", "the writer need not close, and the rest is left alone"
    os.close(reader)
    os.close(writer)


def test_stdin_can_give_the_pin(clinic: Clinic) -> None:
    assert clinic.run("--pin-source", "fd:0", *VERIFY, stdin=PIN_LINE).returncode == 0


def test_the_short_name_picks_the_source(clinic: Clinic) -> None:
    sources = ("--pin-source", "other=env:NOT_THERE", "--pin-source", f"doctor=env:{PIN_VARIABLE}")
    assert clinic.run(*sources, *VERIFY).returncode == 0
    several = {"MEDCRYPT_PIN_SOURCE": f"other=env:NOT_THERE doctor=env:{PIN_VARIABLE}"}
    assert clinic.run(*VERIFY, env=several).returncode == 0


@pytest.mark.parametrize("source", ["env:NOT_THERE", "file:/nowhere", "fd:77"])
def test_a_source_that_is_not_there(clinic: Clinic, source: str) -> None:
    error = clinic.run("--json", "--pin-source", source, *VERIFY, code=4).error
    assert error["error"] == "pin-needed"
    assert error["hint"]


def test_nobody_is_asked_where_nobody_is(clinic: Clinic) -> None:
    done = clinic.detached("--json", *VERIFY, env=NO_SOURCE)
    assert done.returncode == 4
    assert '"error": "pin-needed"' in done.stderr


def test_non_interactive_asks_nobody_even_at_a_terminal(clinic: Clinic) -> None:
    terminal = clinic.terminal("--non-interactive", *VERIFY, env=NO_SOURCE)
    assert terminal.finish() == 4
    assert "PIN of token doctor" in terminal.seen
    assert "--pin-source" in terminal.seen


def test_a_wrong_pin_is_tried_once(clinic: Clinic) -> None:
    before = clinic.run("--json", "token", "list").json["tokens"][0]["pin_flags"]
    error = clinic.run("--json", *VERIFY, code=4, env={PIN_VARIABLE: WRONG_PIN}).error
    assert error["error"] == "pin-wrong"
    assert WRONG_PIN not in str(error)
    after = clinic.run("--json", "token", "list").json["tokens"][0]["pin_flags"]
    assert (before, after) == ([], ["count-low"])
    entries = clinic.run("--json", "audit", "show").json["entries"]
    notes = [entry for entry in entries if entry["action"] == "notes"]
    assert len(notes) == 1, "the failure is entered at the next unlock"


def test_a_person_is_asked_without_echo(clinic: Clinic) -> None:
    terminal = clinic.terminal(*VERIFY, env=NO_SOURCE)
    terminal.expect("PIN of token doctor (SoftHSM v2,")
    terminal.expect("): ")
    terminal.type(PIN_LINE)
    assert terminal.finish() == 0
    assert USER_PIN not in terminal.seen
    assert "verified with the token" in terminal.seen


def test_a_person_is_asked_while_stdin_carries_the_text(clinic: Clinic) -> None:
    wire = clinic.encrypt("Hola")
    terminal = clinic.terminal("decrypt", env=NO_SOURCE, stdin=wire.encode())
    terminal.expect("PIN of token doctor")
    terminal.type(PIN_LINE)
    assert terminal.finish() == 0
    assert "│ Hola" in terminal.lines


def test_a_token_with_few_tries_is_warned_of(clinic: Clinic) -> None:
    clinic.run(*VERIFY, code=4, env={PIN_VARIABLE: WRONG_PIN})
    done = clinic.run(*VERIFY)
    assert "warning: a wrong PIN was entered before" in done.stderr


def test_no_answer_is_no_pin(clinic: Clinic) -> None:
    terminal = clinic.terminal(*VERIFY, env=NO_SOURCE)
    terminal.expect("): ")
    terminal.type("\n")
    assert terminal.finish() == 4
    assert "was not given" in terminal.seen


def test_ctrl_c_at_the_question(clinic: Clinic) -> None:
    terminal = clinic.terminal(*VERIFY, env=NO_SOURCE)
    terminal.expect("): ")
    terminal.type("\x03")
    assert terminal.finish() == 130
    assert terminal.lines[-2:] == ["interrupted", ""]


def test_verbose_names_the_source_and_not_the_pin(clinic: Clinic) -> None:
    done = clinic.run("--verbose", *VERIFY)
    assert f"from env:{PIN_VARIABLE}" in done.stderr
    assert USER_PIN not in done.stderr + done.stdout


def test_several_sources_in_one_text() -> None:
    assert split_sources("a=env:A b=fd:3 env:C") == ["a=env:A", "b=fd:3", "env:C"]
    assert split_sources("file:/a directory/pin") == ["file:/a directory/pin"]
