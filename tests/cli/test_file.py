"""encrypt-file and decrypt-file: what is said, what is documented, what is asked before a PIN is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.clinic import (
    PENDING_PATIENT,
    V1_PATIENT,
    V2_PATIENT,
    Clinic,
    Terminal,
    assert_fields_documented,
    section,
)
from tests.support.command_line import CommandLine
from tests.support.softhsm import SoftHsm

NO_PIN = {"MEDCRYPT_PIN_SOURCE": "env:NOT_THERE"}


@pytest.fixture
def scan(clinic: Clinic) -> Path:
    path = clinic.directory / "scan.pdf"
    path.write_bytes(b"%PDF" * 50_000)
    return path


def test_there_and_back(clinic: Clinic, scan: Path) -> None:
    sent = clinic.directory / "scan.mcf"
    done = clinic.run("encrypt-file", V2_PATIENT, scan, sent)
    about = f"── {V2_PATIENT} · 2026-11 · from the doctor (d) · application/pdf · 200,000 bytes"
    assert (done.stdout, done.stderr) == (f"{sent}\n", f"{about}\n")
    here = clinic.run("decrypt-file", sent, cwd=clinic.directory / "home")
    assert (here.stdout, here.stderr) == ("scan.pdf\n", f"{about}\n")
    again = clinic.run("decrypt-file", sent, "--out", clinic.directory)
    assert (again.stdout, again.stderr) == (f"{clinic.directory}/scan (2).pdf\n", f"{about} · seen before\n")
    assert (clinic.directory / "scan (2).pdf").read_bytes() == scan.read_bytes()
    assert clinic.run("--quiet", "decrypt-file", sent).stderr == ""


def test_json_is_documented(clinic: Clinic, scan: Path) -> None:
    sent = clinic.directory / "scan.mcf"
    made = clinic.run("--json", "encrypt-file", V2_PATIENT, scan, sent, at="2026-12-01 08:00:00").json
    assert made.pop("month_opened")["months"] == ["2026-12"]
    told = {
        "schema": 1, "file": str(sent), "patient": V2_PATIENT, "month": "2026-12", "sender": "d", "name": "scan.pdf",
        "media_type": "application/pdf", "bytes": 200_000, "status": "ok",
    }  # fmt: skip
    assert made == told
    read = clinic.run("--json", "decrypt-file", sent, "--out", clinic.directory, at="2026-12-01 08:00:00").json
    assert read == told | {"file": str(clinic.directory / "scan (2).pdf")}
    again = clinic.run("--json", "decrypt-file", sent, at="2026-12-01 08:00:00").json
    assert again["status"] == "seen"
    for command in ("encrypt-file", "decrypt-file"):
        assert_fields_documented(command, made)
    for option in ("--out", "--archive", "--month"):
        assert option in section("decrypt-file")


@pytest.mark.parametrize(
    ("arguments", "code", "name", "asks"),
    [
        (["encrypt-file", V2_PATIENT, "missing", "x"], 2, "usage", False),
        (["encrypt-file", V2_PATIENT, "scan.pdf", "scan.pdf"], 2, "usage", False),
        (["encrypt-file", V2_PATIENT, "scan.pdf", "no/x"], 2, "usage", False),
        (["encrypt-file", V2_PATIENT, "home", "x"], 2, "usage", False),
        (["encrypt-file", V2_PATIENT, "fifo", "x"], 2, "usage", False),
        (["encrypt-file", V2_PATIENT, "scan.pdf"], 2, "usage", False),
        (["decrypt-file", "missing"], 2, "usage", False),
        (["decrypt-file", "fifo"], 2, "usage", False),
        (["decrypt-file", "scan.pdf"], 5, "malformed", False),
        (["decrypt-file", "scan.pdf", "--out", "no"], 2, "usage", False),
        (["decrypt-file", "scan.pdf", "--month", "2026-13"], 2, "usage", False),
        (["encrypt-file", "EXP-404", "scan.pdf", "x"], 2, "usage", True),
        (["encrypt-file", PENDING_PATIENT, "scan.pdf", "x"], 6, "unconfirmed", True),
        (["encrypt-file", V1_PATIENT, "scan.pdf", "x"], 6, "refused", True),
    ],
)
def test_refusals(clinic: Clinic, scan: Path, arguments: list[str], code: int, name: str, asks: bool) -> None:
    os.mkfifo(clinic.directory / "fifo")
    env = {} if asks else NO_PIN
    done = clinic.run("--json", *arguments, code=code, env=env, cwd=clinic.directory)
    assert (done.error["error"], done.stdout) == (name, "")
    assert done.error["hint"]
    assert not (clinic.directory / "x").exists()


def test_damage_is_an_error_and_leaves_nothing(clinic: Clinic, scan: Path) -> None:
    sent, out = clinic.directory / "x", clinic.directory / "out"
    out.mkdir()
    clinic.run("encrypt-file", V2_PATIENT, scan, sent)
    sent.write_bytes(sent.read_bytes()[: 93 + 65552])
    done = clinic.run("decrypt-file", sent, "--out", out, code=5)
    assert done.stdout == ""
    assert done.stderr == (
        "error: the file is cut off: its end is missing\n"
        "hint: fetch the file again, unchanged; if that does not help, ask its sender for it\n"
    )
    assert list(out.iterdir()) == []


def test_the_name_is_hostile(clinic: Clinic) -> None:
    source = clinic.directory / "\x1b[2J\u202egnp.exe"
    source.write_bytes(b"x")
    clinic.run("encrypt-file", V2_PATIENT, source, clinic.directory / "x")
    done = clinic.run("decrypt-file", clinic.directory / "x")
    assert done.stdout == "_[2J_gnp.exe\n"
    assert "\x1b" not in done.stderr + done.stdout


def test_progress_at_a_terminal_and_gone_afterwards(medcrypt: CommandLine, softhsm: SoftHsm) -> None:
    """With the real clock, and a file of holes that takes more than a second to write."""
    vault, large, sent = (medcrypt.home / name for name in ("vault/vault.db", "large", "sent"))
    medcrypt("--vault", vault, "vault", "create", "--token", f"doctor={softhsm.make_token()}")
    medcrypt("--vault", vault, "patient", "add", V2_PATIENT, "--unconfirmed")
    with large.open("wb") as file:
        file.truncate(20 << 30)
    command = medcrypt.command("--vault", vault, "encrypt-file", V2_PATIENT, large, sent)
    terminal = Terminal(command, medcrypt.environment(), medcrypt.home, 100, None)
    terminal.expect("encrypting … ")
    terminal.expect(" %\r\x1b[Kencrypting … ")
    terminal.type("\x03")  # Ctrl-C
    assert terminal.finish() == 130
    assert re.search(r"%\r\x1b\[K.*\ninterrupted\r\n$", terminal.seen, re.DOTALL)
    assert sorted(path.name for path in medcrypt.home.iterdir()) == ["large", "vault"]


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
def test_a_sent_file_cannot_be_taken_for_a_part_of_the_vault(clinic: Clinic, ending: str) -> None:
    """SQLite rolls a journal that it finds back into the database that it is named after."""
    vault = Path(clinic.run.env["MEDCRYPT_VAULT"])
    source, sent = clinic.directory / (vault.name + ending), clinic.directory / "x"
    source.write_bytes(b"whatever a patient sends")
    clinic.run("encrypt-file", V2_PATIENT, source, sent)
    done = clinic.run("decrypt-file", sent, "--out", vault.parent)
    assert done.stdout == f"{vault}_{ending[1:]}\n"
    clinic.run("status")


def test_nothing_is_put_beside_the_vault_unasked(clinic: Clinic, scan: Path) -> None:
    vault, sent = Path(clinic.run.env["MEDCRYPT_VAULT"]), clinic.directory / "x"
    clinic.run("encrypt-file", V2_PATIENT, scan, sent)
    refused = clinic.run("decrypt-file", sent, cwd=vault.parent, code=2, env=NO_PIN)
    assert refused.stderr == (
        "error: this is the vault's own directory: nothing is put beside it unasked\n"
        "hint: name another directory with --out DIR\n"
    )
    clinic.run("decrypt-file", sent, "--out", ".", cwd=vault.parent)
    assert (vault.parent / scan.name).read_bytes() == scan.read_bytes()
