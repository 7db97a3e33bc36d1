"""The whole first path through the command line, on every kind of token: from a blank one to a restored practice.

Each kind of token is a fixture; the path is one and the same. The patient is scripts/standalone/patient.py, the pairing
code is read back from its picture by a reader that is not ours, and the log is verified without the program at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.clinic import V1_SECRET
from tests.support.command_line import PIN_VARIABLE, SO_PIN_VARIABLE, CommandLine
from tests.support.softhsm import SoftHsm, softhsm_module
from tests.support.yubikey import SOME, VirtualYubiKey

NOVEMBER, DECEMBER = "2026-11-20 10:00:00", "2026-12-03 10:00:00"
FROM_DOCTOR, FROM_PATIENT = "Tome 5 mg cada mañana. Dra. Ejemplo", "Gracias, doctora. ¿También el domingo?"


@dataclass
class Ground:
    """A blank token, and the command line of a person who has it."""

    medcrypt: CommandLine
    init: list[str]  # ``token init`` with these
    uri: str  # of the token once it is initialised
    profile: str

    @property
    def directory(self) -> Path:
        return self.medcrypt.home

    def script(self, name: str, *args: str | Path, stdin: str = "", at: str = NOVEMBER) -> str:
        """One of the scripts that share no code with the program."""
        command = [sys.executable, str(ROOT / "scripts" / "standalone" / name), *map(str, args)]
        env = self.medcrypt.environment(at) | {"PASSPHRASE": "una frase de ejemplo"}
        done = subprocess.run(command, input=stdin, env=env, cwd=self.directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


def softhsm_ground(tmp_path: Path, profile: str) -> Ground:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    medcrypt = CommandLine(home, SoftHsm(tmp_path / "softhsm").prepare(), now=NOVEMBER)
    module = softhsm_module()
    init = [f"pkcs11:?module-path={module}", "--label", "doctor", "--so-pin-source", f"env:{SO_PIN_VARIABLE}"]
    return Ground(medcrypt, init, f"pkcs11:token=doctor?module-path={module}", profile)


@pytest.fixture
def softhsm_aes_kw(tmp_path: Path) -> Ground:
    return softhsm_ground(tmp_path, "aes-kw")


@pytest.fixture
def softhsm_p256(tmp_path: Path) -> Ground:
    return softhsm_ground(tmp_path, "p256-hpke")


@pytest.fixture
def a_yubikey(tmp_path: Path, yubikey: Callable[..., VirtualYubiKey], request: pytest.FixtureRequest) -> Ground:
    key = yubikey(request.param)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    env = {PIN_VARIABLE: "481516", "PUK": "23423108"}
    medcrypt = CommandLine(home, SoftHsm(tmp_path / "softhsm").prepare(), env=env, now=NOVEMBER)
    return Ground(medcrypt, [key.uri, "--puk-source", "env:PUK"], key.uri, "p256-hpke")


def test_softhsm2_with_aes_kw(softhsm_aes_kw: Ground) -> None:
    walk(softhsm_aes_kw)


def test_softhsm2_with_p256_hpke(softhsm_p256: Ground) -> None:
    walk(softhsm_p256)


@pytest.mark.parametrize("a_yubikey", SOME, indirect=True)
def test_a_yubikey(a_yubikey: Ground) -> None:
    walk(a_yubikey)


def walk(ground: Ground) -> None:
    """From a blank token to a restored practice."""
    medcrypt, here = ground.medcrypt, ground.directory
    medcrypt.env |= {"MEDCRYPT_VAULT": str(here / "vault" / "vault.db"), "V1_SECRET": V1_SECRET}

    # The officer makes token and vault.
    medcrypt("token", "init", *ground.init)
    assert "proven\n" in medcrypt("token", "check", ground.uri).stdout
    made = medcrypt("--json", "vault", "create", "--token", f"doctor={ground.uri}", "--profile", ground.profile).json
    assert made["token"]["profile"] == ground.profile
    (here / "practice.pem").write_text(medcrypt("audit", "public-key").stdout)
    checked = medcrypt("--json", "token", "check", "doctor").json
    assert [key["problems"] for key in checked["keys"]] == [[], []]

    # A patient with a phone, one with a MedCrypt v1 program.
    medcrypt("patient", "add", "EXP-00417", "--label", "Paciente Ejemplo", "--qr", here / "code.png")
    scanned = subprocess.run(
        ["zbarimg", "--nodbus", "--quiet", "--raw", here / "code.png"], capture_output=True, text=True, check=True
    ).stdout
    phone = ("phone.state", "--passphrase-env", "PASSPHRASE")
    said = ground.script("patient.py", "pair", *phone, stdin=scanned)
    medcrypt("patient", "confirm", "EXP-00417", said.split()[-1])
    medcrypt("patient", "add", "EXP-00112", "--protocol", "v1", "--secret-source", "env:V1_SECRET")

    # A day's messages, both ways.
    to_patient = medcrypt("encrypt", "EXP-00417", stdin=FROM_DOCTOR).stdout
    assert FROM_DOCTOR in ground.script("patient.py", "read", *phone, stdin=to_patient)
    from_patient = ground.script("patient.py", "write", *phone, stdin=FROM_PATIENT)
    assert FROM_PATIENT in medcrypt("decrypt", stdin=from_patient).stdout
    v1 = medcrypt("encrypt", "EXP-00112", stdin=FROM_DOCTOR).stdout
    altered = from_patient.replace(":p:1.1:", ":d:1.1:")
    chat = medcrypt("--json", "decrypt", stdin=to_patient + from_patient + v1 + altered, code=5).json["messages"]
    assert [message["status"] for message in chat] == ["ok", "seen", "ok", "not-authentic"]

    # The next month opens by itself; what was written before is read in its days of grace.
    backup = here / "backup.db"
    medcrypt("vault", "backup", backup)
    december = medcrypt("--json", "encrypt", "EXP-00417", stdin="diciembre", at=DECEMBER).json
    assert december["month_opened"]["months"] == ["2026-12"]
    texts = "".join(text + "\n" for text in december["messages"])
    assert "diciembre" in ground.script("patient.py", "read", *phone, stdin=texts, at=DECEMBER)
    assert FROM_PATIENT in medcrypt("decrypt", stdin=from_patient, at=DECEMBER).stdout

    # A backup is put back, and says what that loses.
    lost = medcrypt("--json", "vault", "restore", backup, "--yes", at=DECEMBER).json["loss"]
    assert lost["entries_lost"] == 3
    again = medcrypt("decrypt", stdin=texts, at=DECEMBER).stdout
    assert "diciembre" in again

    # The log, for the auditor: with the token, and by a stranger who has the public key.
    medcrypt("audit", "checkpoint", here / "checkpoint.txt", at=DECEMBER)
    assert "all" in medcrypt("audit", "verify", at=DECEMBER).stdout
    vault = medcrypt.env["MEDCRYPT_VAULT"]
    arguments = (vault, "--public-key", "practice.pem", "--checkpoint", "checkpoint.txt")
    assert "checkpoints that the log continues: " in ground.script("verify_audit.py", *arguments)
    status = medcrypt("--json", "status", "--token", "doctor", at=DECEMBER).json
    assert (status["verified"], status["problems"], status["orphans"]) == (True, [], [])
    assert [token["profile"] for token in status["tokens"]] == [ground.profile]

    # The PIN is changed.
    new = {"NEW_PIN": "nuevo-11"}
    medcrypt("token", "pin", ground.uri, "--new-pin-source", "env:NEW_PIN", env=new)
    medcrypt("patient", "list", code=4, at=DECEMBER)
    medcrypt("patient", "list", "--pin-source", "env:NEW_PIN", env=new, at=DECEMBER)
    assert not [name for name in os.listdir(here) if name.endswith((".partial", "-restoring"))]
