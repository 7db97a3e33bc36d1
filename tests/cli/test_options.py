"""The command line as a whole: global options, errors, exit codes, config, start-up; and all of it is documented."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from medcrypt_hsm import errors
from medcrypt_hsm.cli.parser import application
from tests.support.clinic import DOCUMENTED, NOW, V2_PATIENT, Clinic, assert_fields_documented, section
from tests.support.clock import clock_at
from tests.support.command_line import CommandLine
from tests.support.softhsm import USER_PIN


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its parameters, as Typer has it; "" is the program itself."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", {})
        if not inner or not path:
            yield path, command
        for name, each in inner.items():
            yield from walk(each, f"{path} {name}".strip())

    return walk(typer.main.get_command(application()), "")


COMMANDS = dict(commands())


def test_there_are_the_commands_that_were_agreed() -> None:
    assert set(COMMANDS) - {""} == {
        "status",
        "chat",
        *(f"token {name}" for name in ("list", "check", "attest", "init", "pin")),
        *(f"vault {name}" for name in ("create", "add-token", "remove-token", "sync", "policy", "backup", "restore")),
        *(f"patient {name}" for name in ("add", "confirm", "list", "show", "qr", "repair", "remove", "erase")),
        *(f"session {name}" for name in ("start", "status", "lock")),
        "shred",
        *(f"hold {name}" for name in ("add", "remove", "list")),
        *(f"breakglass {name}" for name in ("ceremony", "rotate", "replace", "drill")),
        *(f"breakglass {name}" for name in ("request", "approve", "decrypt", "recover")),
        "encrypt",
        "decrypt",
        "encrypt-file",
        "decrypt-file",
        "rotate",
        *(f"import {name}" for name in ("telegram", "whatsapp")),
        *(f"audit {name}" for name in ("show", "export", "verify", "anchor", "checkpoint", "public-key")),
    }


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_and_option_is_documented(path: str) -> None:
    options = DOCUMENTED.read_text().partition("## Global options")[2].partition("\n## ")[0]
    text = section(path) if path else options
    for parameter in COMMANDS[path].params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        if parameter.param_type_name == "argument":
            assert parameter.metavar in text.splitlines()[0], f"{path}: {parameter.metavar}"
        elif parameter.name != "token" or not path:
            assert any(f"`{option}" in text for option in parameter.opts), f"{path}: {parameter.opts}"


def test_the_reference_names_no_command_that_is_not_there() -> None:
    named = re.findall(r"^## `medcrypt ([a-z -]+?)(?: [A-Z\[].*)?`$", DOCUMENTED.read_text(), re.MULTILINE)
    assert set(named) == set(COMMANDS) - {""}


def test_every_error_name_is_documented() -> None:
    text = DOCUMENTED.read_text()
    names = {kind.name for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_help_says_something(path: str, medcrypt: CommandLine) -> None:
    done = medcrypt(*path.split(), "--help")
    assert done.stdout.startswith("Usage: medcrypt")
    assert done.stderr == ""


def test_without_arguments_it_shows_its_help(medcrypt: CommandLine) -> None:
    assert medcrypt().stdout == medcrypt("--help").stdout


def test_version(medcrypt: CommandLine) -> None:
    from medcrypt_hsm import __version__

    assert medcrypt("--version").stdout == f"medcrypt {__version__}\n"
    assert medcrypt("--json", "--version").json == {"schema": 1, "version": __version__}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-command"], "no such command 'no-such-command'"),
        (["token"], "missing command"),
        (["encrypt"], "missing argument 'ID'"),
        (["status", "--nonsense"], "no such option"),
        (["status", "surplus"], "got unexpected extra argument"),
        (["decrypt", "--month"], "option '--month' requires an argument"),
        (["vault", "create", "--token", "x=pkcs11:token=y", "--touch", "often"], "'often' is no touch policy"),
        (["vault", "create", "--token", "x=pkcs11:token=y", "--require-attestation", "x"], "'x' is no grade"),
        (["vault", "add-token", "spare"], "a token and a short name for it are needed"),
        (["vault", "policy", "--grace-days", "x"], "invalid value for '--grace-days'"),
        (["audit", "show", "--since", "22.11.2026"], "'22.11.2026' is not a time"),
        (["audit", "show", "--patient", ""], "there is no entry of ''"),
        (["audit", "export", "log", "--format", "xml"], "'xml' is no format"),
        (["audit", "verify", "--since", "no-such-file"], "no-such-file cannot be read"),
        (["vault", "create", "--token", "x=pkcs11:token=y", "--profile", "rot13"], "'rot13' is not a profile"),
    ],
)
def test_wrong_usage_has_the_form_of_every_error(arguments: list[str], message: str, medcrypt: CommandLine) -> None:
    done = medcrypt(*arguments, code=2)
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")
    as_json = medcrypt("--json", *arguments, code=2)
    assert set(as_json.error) == {"schema", "error", "message", "hint"}
    assert (as_json.error["schema"], as_json.error["error"]) == (1, "usage")
    assert message in as_json.error["message"]


def test_global_options_stand_before_or_behind(clinic: Clinic) -> None:
    before = clinic.run("--json", "--vault", clinic.vault, "status", env={"MEDCRYPT_VAULT": "nowhere"})
    behind = clinic.run("status", "--vault", clinic.vault, "--json", env={"MEDCRYPT_VAULT": "nowhere"})
    assert before.json == behind.json
    assert clinic.run("--vault", "nowhere", "status", "--vault", clinic.vault).returncode == 0


def test_status_without_a_token_says_that_nothing_is_verified(clinic: Clinic) -> None:
    clinic.run.env["MEDCRYPT_PIN_SOURCE"] = "env:NOT_THERE"
    done = clinic.run("status")
    assert "NOT VERIFIED" in done.stdout
    document = clinic.run("--json", "status").json
    assert (document["verified"], document["anchor"], document["pairings"]) == (False, None, 3)
    assert document["months"] == [{"month": "2026-11", "state": "active"}]
    assert_fields_documented("status", document)


@pytest.mark.parametrize("name", ["doctor", "uri"])
def test_status_with_the_token_verifies(clinic: Clinic, name: str) -> None:
    document = clinic.run("--json", "status", "--token", clinic.uri if name == "uri" else name).json
    assert (document["verified"], document["problems"], document["orphans"]) == (True, [], [])
    assert document["anchor"] <= document["entries"]
    assert_fields_documented("status", document)
    assert "NOT VERIFIED" not in clinic.run("status", "--token", name if name == "doctor" else clinic.uri).stdout


def test_status_says_what_is_due(clinic: Clinic) -> None:
    later = clinic.run("--json", "status", at="2027-02-03 08:00:00").json
    assert [month["state"] for month in later["months"]] == ["archived", "due", "due", "due"]
    assert "rotate --to 2027-02" in later["problems"][0]


def test_an_unknown_token_is_wrong_usage(clinic: Clinic) -> None:
    assert "doctor" in clinic.run("--json", "status", "--token", "nurse", code=2).error["hint"]


# The config file


def test_the_config_file_names_vault_pin_and_modules(clinic: Clinic) -> None:
    config = clinic.run.home / ".config" / "medcrypt" / "config.toml"
    config.parent.mkdir(parents=True)
    pin = clinic.directory / "pin"
    pin.write_text(USER_PIN + "\n")
    pin.chmod(0o600)
    config.write_text(f'vault = "../../../vault/vault.db"\npin_source = "file:{pin}"\npkcs11_modules = []\n')
    nothing = {"MEDCRYPT_VAULT": "", "MEDCRYPT_PIN_SOURCE": ""}
    assert clinic.run("--json", "status", "--token", "doctor", env=nothing).json["verified"]
    moved = config.rename(clinic.directory / "other.toml")
    moved.write_text(moved.read_text().replace("../../../", ""))
    assert clinic.run("--json", "status", env={**nothing, "MEDCRYPT_CONFIG": str(moved)}).json["pairings"] == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("valut = 'x'", "'valut'"),
        ("vault = 3", "must be a text"),
        ("pkcs11_modules = 'x'", "must be a list"),
        ("vault", "is not TOML"),
        ("pkcs11_modules = ['relative.so']", "absolute"),
    ],
)
def test_a_faulty_config_file(text: str, words: str, medcrypt: CommandLine, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    done = medcrypt("--json", "token", "list", code=2, env={"MEDCRYPT_CONFIG": str(config)})
    assert words in done.error["message"] + done.error["hint"]


def test_a_config_file_that_is_named_must_be_there(medcrypt: CommandLine) -> None:
    assert "nowhere" in medcrypt("token", "list", code=2, env={"MEDCRYPT_CONFIG": "/nowhere"}).stderr


# Endings


def test_an_unforeseen_error_has_no_traceback(medcrypt: CommandLine, tmp_path: Path) -> None:
    program = (
        "import sys, medcrypt_hsm.cli.texts as m\n"
        "def fail(*a): raise KeyError('secret text')\n"
        "m._read = fail\n"
        "from medcrypt_hsm.cli import enter\n"
        "sys.argv = ['medcrypt', *sys.argv[1:]]\n"
        "enter()"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, env=medcrypt.environment(), capture_output=True, text=True)

    quiet, loud = run("decrypt"), run("decrypt", "--verbose")
    assert (quiet.returncode, quiet.stdout) == (1, "")
    assert quiet.stderr.splitlines()[0] == "error: internal error (KeyError)"
    assert re.search(r"^origin: KeyError at .*\.py:\d+|^origin: KeyError at <string>:\d+", loud.stderr, re.MULTILINE)
    for text in (quiet.stderr, loud.stderr):
        assert "secret text" not in text
        assert "Traceback" not in text


def test_ctrl_c_ends_it_cleanly(clinic: Clinic) -> None:
    process = subprocess.Popen(
        clinic.run.command("encrypt", V2_PATIENT),
        env=clinic.run.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"half a me")
    process.stdin.flush()
    reading = Path(f"/proc/{process.pid}/syscall")
    while not reading.read_text().startswith("0 0x0 "):  # read(0, …): it waits for the rest
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, b"", b"interrupted\n")
    assert clinic.run("--json", "status", "--token", "doctor").json["problems"] == []


def test_a_closed_pipe_is_no_error(clinic: Clinic) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        clinic.run.command("status"), env=clinic.run.environment(), stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_said(clinic: Clinic) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            clinic.run.command("status"), env=clinic.run.environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device\n")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_where_an_error_cannot_be_said_the_exit_code_tells(clinic: Clinic, options: tuple[str, ...]) -> None:
    for words, code in ((("decrypt", "/nowhere"), 2), (("status", "--nonsense"), 2), (("encrypt", "EXP-999"), 2)):
        command, environment = clinic.run.command(*options, *words), clinic.run.environment()
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, env=environment, input=b"Hola", stdout=subprocess.PIPE, stderr=full)
        assert (done.returncode, done.stdout) == (code, b"")


def test_hostile_arguments_are_escaped_on_stderr(clinic: Clinic) -> None:
    hostile = "EXP\x1b[2J\u202e"
    done = clinic.run("patient", "show", hostile, code=2)
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    done = clinic.run("vault", "backup", f"/no\x1b[2J\u202e/{V2_PATIENT}", code=2)
    assert r"\x1b[2J\u202e" in done.stderr


def test_decrypt_loads_nothing_for_looks(clinic: Clinic) -> None:
    wire = clinic.encrypt("Hola")
    command = clinic.run.command("decrypt")
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]],
        env=clinic.run.environment(),
        input=wire,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "Hola"
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pkcs11" in loaded
    assert not loaded & {"rich", "qrcode", "png", "pydantic", "asyncio"}


def test_a_vault_in_an_open_directory_is_warned_of(medcrypt: CommandLine, softhsm: Any, tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o755)
    done = medcrypt("--vault", place / "vault.db", "vault", "create", "--token", f"d={softhsm.make_token()}")
    assert f"warning: others can enter the vault's directory: run 'chmod 700 {place}'" in done.stderr
    assert stat.S_IMODE((place / "vault.db").stat().st_mode) == 0o600


def test_closed_streams_are_no_crash(clinic: Clinic) -> None:
    """As ``medcrypt status >&-`` starts it. Under the true clock: what sets another would take the free numbers."""
    shell = 'exec "$@" >&- 2>&-'
    env = {name: value for name, value in clinic.run.environment().items() if name not in clock_at(NOW)}
    command = ["sh", "-c", shell, "sh", *clinic.run.command("status")]
    done = subprocess.run(command, env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b""), "the result would be lost, and nobody be told"


def test_every_error_has_a_hint(clinic: Clinic) -> None:
    done = clinic.run("--json", "patient", "add", V2_PATIENT, "--protocol", "v1", code=None)
    assert done.returncode in (0, 6)
    clinic.run("--yes", "patient", "remove", V2_PATIENT)
    assert clinic.run("--json", "--yes", "patient", "remove", V2_PATIENT, code=6).error["hint"]
