"""Files and texts that would keep a program busy: pipes that nobody writes, and millions of beginnings of a message."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.standalone import patient
from tests.support.checkout import ROOT
from tests.support.clinic import V2_PATIENT, Clinic

MARKS = b"[MEDCRYPT:" * 3_600_000  # 36 MB: took 29 seconds and 2.4 GB
SECONDS = 15  # of processor time; a small part of it is used
MEMORY = 1 << 30
NO_PIN = {"MEDCRYPT_PIN_SOURCE": "env:NOT_THERE"}


def bounded() -> None:
    """In the child: more time or memory than this ends it."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.fixture
def fifo(clinic: Clinic) -> Path:
    path = clinic.directory / "fifo.md"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("decrypt", "FIFO"),
        ("encrypt", V2_PATIENT, "FIFO"),
        ("encrypt-file", V2_PATIENT, "FIFO", "x"),
        ("decrypt-file", "FIFO"),
        ("import", "telegram", "FIFO"),
        ("import", "whatsapp", "FIFO"),
        ("audit", "verify", "--public-key", "FIFO"),
        ("audit", "verify", "--checkpoint", "FIFO"),
        ("breakglass", "show", "FIFO"),
        ("breakglass", "approve", "FIFO", "--token", "pkcs11:token=x", "--out", "x"),
        ("--vault", "FIFO", "status"),
    ],
    ids=" ".join,
)
def test_no_command_waits_for_a_pipe(clinic: Clinic, fifo: Path, command: tuple[str, ...]) -> None:
    arguments = [str(fifo) if word == "FIFO" else word for word in command]
    done = clinic.run("--json", *arguments, code=None, env=NO_PIN, timeout=30)
    assert done.returncode in (2, 7), done
    assert done.error["hint"]


def test_a_pipe_as_config_file(clinic: Clinic, fifo: Path) -> None:
    done = clinic.run("token", "list", code=2, env={"MEDCRYPT_CONFIG": str(fifo)}, timeout=30)
    assert "not a regular file" in done.stderr


@pytest.mark.parametrize("place", ["vault", "--public-key", "--checkpoint", "--certificate"])
def test_the_one_file_verifier_waits_for_no_pipe(clinic: Clinic, fifo: Path, place: str) -> None:
    key = clinic.directory / "key.pem"
    key.write_text(clinic.run("audit", "public-key").stdout)
    vault = fifo if place == "vault" else clinic.vault
    options = ["--public-key", str(key), *([] if place == "vault" else [place, str(fifo)])]
    program = ROOT / "scripts" / "standalone" / "verify_audit.py"
    done = subprocess.run(
        [sys.executable, program, vault, *options], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 5
    assert "is not a regular file" in done.stderr


def test_millions_of_beginnings_are_read_in_bounded_time_and_memory(clinic: Clinic) -> None:
    done = subprocess.run(
        clinic.run.command("--json", "decrypt"),
        input=MARKS,
        env=clinic.run.environment(),
        cwd=clinic.run.home,
        capture_output=True,
        preexec_fn=bounded,
        timeout=120,
    )
    assert done.returncode == 5, done.stderr[-300:]
    assert b"more than 10,000 messages in this text: the rest was not read" in done.stdout


def test_the_patients_program_reads_as_many(tmp_path: Path) -> None:
    found = list(patient.find_messages(MARKS.decode()))
    assert len(found) == 10_001
    assert str(found[-1]) == "there are more than 10,000 messages in this text: the rest was not read"


def test_a_text_that_nobody_pastes_is_refused(clinic: Clinic) -> None:
    file = clinic.directory / "large"
    with file.open("wb") as text:
        text.truncate((64 << 20) + 1)
    done = clinic.run("decrypt", file, code=2, env=NO_PIN)
    assert done.stderr == (
        "error: the text has more than 67,108,864 bytes\nhint: give a whole exported chat to 'medcrypt import'\n"
    )
