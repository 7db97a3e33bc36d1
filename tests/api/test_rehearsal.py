"""breakglass ceremony --dry-run: the whole ceremony on throw-away tokens, and nothing else is touched."""

from __future__ import annotations

import hashlib
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medcrypt_hsm.api import rehearsal
from medcrypt_hsm.errors import Failed, TokenAbsent
from medcrypt_hsm.tokens.access import list_tokens
from tests.support.circle import CUSTODIANS, shares
from tests.support.clinic import Clinic, assert_fields_documented
from tests.support.softhsm import SoftHsm

STEPS = ["ceremony", "drill", "reconstruct", "too-few", "decrypt", "recover", "retired"]


def digest(directory: Path) -> dict[str, str]:
    """Every file of a machine: what it is, and what is in it."""
    return {
        str(path.relative_to(directory)): f"{path.stat().st_mode:o} {path.stat().st_mtime_ns} "
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def temporary(clinic: Clinic, tmp_path: Path) -> Path:
    """Where the command line puts what is temporary. Its PIN source cannot be read: none may be asked for."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    clinic.run.env |= {"TMPDIR": str(directory), "MEDCRYPT_PIN_SOURCE": "file:/nowhere"}
    return directory


def test_nothing_of_the_practice_is_touched_and_nothing_is_left(clinic: Clinic, temporary: Path) -> None:
    before = digest(clinic.directory)
    done = clinic.run("--json", "breakglass", "ceremony", "--dry-run", *shares(*CUSTODIANS))
    assert digest(clinic.directory) == before
    assert list(temporary.iterdir()) == []
    found = done.json
    assert_fields_documented("breakglass ceremony", found)
    assert found["rehearsal"] is True
    assert [step["name"] for step in found["steps"]] == STEPS
    assert [custodian["name"] for custodian in found["custodians"]] == list(CUSTODIANS)
    assert "3 sets of 2 shares" in found["steps"][2]["words"]
    assert found["certificate_files"] == []
    assert "has not been held" not in done.stdout


def test_every_line_of_its_transcript_says_what_it_is(clinic: Clinic, temporary: Path) -> None:
    plan = clinic.run.home / "CEREMONY.toml"
    plan.write_text(
        'threshold = 3\nplace = "Sala 2"\nwitnesses = ["Notaria Ejemplo"]\n'
        + "".join(f'[[custodian]]\nname = "{n}"\nperson = "{n} Ejemplo"\n' for n in (*CUSTODIANS, "dora"))
    )
    done = clinic.run("breakglass", "ceremony", "--dry-run", "--file", plan)
    transcript, _, proven = done.stdout.partition("\n\n")
    assert all(line.startswith("REHEARSAL │") for line in transcript.splitlines())
    assert "ana (ana Ejemplo)" in transcript
    assert "any 3 of 4 open the vault" in transcript
    assert len(proven.splitlines()) == len(STEPS)
    assert all(line.startswith("proven: ") for line in proven.splitlines())
    for words in ("Sala 2", "Notaria Ejemplo", "the ceremony itself has not been held"):
        assert words in done.stderr


def test_ctrl_c_leaves_nothing(clinic: Clinic, temporary: Path) -> None:
    many = [f"c{n}" for n in range(16)]
    command = clinic.run.command("breakglass", "ceremony", "--dry-run", "--threshold", "8", *shares(*many))
    process = subprocess.Popen(command, env=clinic.run.environment(), stdout=-1, stderr=-1, text=True)
    deadline = time.monotonic() + 30
    while not (seen := list(temporary.glob("*/tokens/*"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    assert stat.S_IMODE(seen[0].parents[1].stat().st_mode) == 0o700
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr.splitlines()[-1]) == (130, "", "interrupted")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [["--transcript", "x"], ["--without", "doctor"], ["--roots", "."], ["--threshold", "4"]],
    ids=lambda o: o[0],
)
def test_what_is_of_the_real_one_is_refused(clinic: Clinic, temporary: Path, options: list[str]) -> None:
    found = clinic.run("--json", "breakglass", "ceremony", "--dry-run", *shares(*CUSTODIANS), *options, code=2).error
    assert found["hint"]


def test_without_softhsm_it_says_what_to_install(clinic: Clinic, temporary: Path) -> None:
    program = (
        "import sys, medcrypt_hsm.api.rehearsal as r\n"
        "r.ROOTS = ()\n"
        "from medcrypt_hsm.cli import enter\n"
        "sys.argv = ['medcrypt', *sys.argv[1:]]\n"
        "enter()"
    )
    command = [sys.executable, "-c", program, "breakglass", "ceremony", "--dry-run", *shares(*CUSTODIANS)]
    done = subprocess.run(command, env=clinic.run.environment(), capture_output=True, text=True)
    assert done.returncode == 3
    assert "a rehearsal needs SoftHSM2" in done.stderr
    assert "apt install softhsm2" in done.stderr


class TestTheLibrary:
    def test_a_process_that_has_used_a_token_cannot(self, softhsm: SoftHsm) -> None:
        list_tokens()
        softhsm.make_token()
        with pytest.raises(Failed, match="has used a token"):
            rehearsal.rehearse(CUSTODIANS, 2)

    def test_a_module_that_is_named_goes_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        named = tmp_path / "libsofthsm2.so"
        named.write_bytes(b"")
        assert rehearsal.find_module([str(named)]) == named
        monkeypatch.setenv(rehearsal.MODULE_VARIABLE, "/usr/lib/another.so")
        assert rehearsal.find_module() != Path("/usr/lib/another.so"), "it is no SoftHSM2"
        monkeypatch.setattr(rehearsal, "ROOTS", ())
        with pytest.raises(TokenAbsent):
            rehearsal.find_module()
