"""A spare token in use: what is said after a restore, which PIN goes to which token, what a missing finger leaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm import TokenOptions, Vault
from medcrypt_hsm.errors import NotTouched
from tests.support.checkout import ROOT
from tests.support.clinic import Clinic
from tests.support.command_line import PIN_VARIABLE, CommandLine
from tests.support.pcscd import Pcscd
from tests.support.ready_yubikey import PIN, pin, ready
from tests.support.softhsm import SoftHsm, softhsm_module
from tests.support.yubikey import VirtualYubiKey

SPARE_PIN = "otro-pin-0815"


@pytest.fixture
def pair(clinic: Clinic) -> Clinic:
    """A clinic with two tokens. The spare's label is not its short name, and its PIN is another."""
    clinic.run.softhsm.make_token("reserva", pin=SPARE_PIN)
    sources = f"doctor=env:{PIN_VARIABLE} spare=env:SPARE_PIN reserva=env:SPARE_PIN"
    clinic.run.env |= {"SPARE_PIN": SPARE_PIN, "MEDCRYPT_PIN_SOURCE": sources}
    clinic.run("vault", "add-token", f"spare=pkcs11:token=reserva?module-path={softhsm_module()}")
    clinic.run.env["MEDCRYPT_PIN_SOURCE"] = f"doctor=env:{PIN_VARIABLE} spare=env:SPARE_PIN"
    return clinic


def test_a_pin_source_for_a_short_name_is_for_every_command(pair: Clinic, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    pair.run("vault", "backup", backup, "--token", "spare")
    pair.run("vault", "restore", backup, "--yes", "--token", "spare")
    pair.vault.unlink()  # what restoring is for
    pair.run("vault", "restore", backup, "--yes", "--token", "spare")
    assert pair.run("--json", "status", "--token", "spare").json["in_use"] == "spare"


def test_the_officers_key_file_verifies_the_log(pair: Clinic, tmp_path: Path) -> None:
    """As the officer's guide has it: one file with the keys of all tokens, and a verifier that is not the program."""
    keys = tmp_path / "practice.pem"
    keys.write_text(pair.run("audit", "public-key", "--token", "spare").stdout)
    assert keys.read_text().count("BEGIN PUBLIC KEY") == 2
    command = [
        sys.executable,
        str(ROOT / "scripts" / "standalone" / "verify_audit.py"),
        str(pair.vault),
        "--public-key",
        str(keys),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 tokens introduced" in done.stdout
    pair.run("audit", "verify", "--public-key", keys)


class TestAfterARestore:
    @pytest.fixture
    def restored(self, pair: Clinic, tmp_path: Path) -> Clinic:
        """The spare has seen more than the backup that the doctor put back, with work done since."""
        backup = tmp_path / "backup.db"
        pair.run("vault", "backup", backup, "--token", "doctor")
        for _ in range(3):
            pair.run("audit", "anchor", "--token", "spare")
        pair.run("vault", "restore", backup, "--yes", "--token", "doctor")
        pair.run("patient", "add", "EXP-00777", "--token", "doctor")
        return pair

    def test_the_other_token_says_how_to_go_on_and_nothing_is_lost(self, restored: Clinic) -> None:
        error = restored.run("--json", "patient", "list", "--token", "spare", code=7).error
        assert error["error"] == "vault-rolled-back"
        assert "put back on purpose with token 'doctor', have this token accept it too" in error["hint"]
        assert f"'medcrypt vault restore {restored.vault}'" in error["hint"]
        done = restored.run("vault", "restore", restored.vault, "--yes", "--token", "spare")
        assert "nothing would be lost" not in done.stderr
        for name in ("spare", "doctor"):
            assert "EXP-00777" in restored.run("patient", "list", "--token", name).stdout

    def test_entries_that_no_file_has_any_more_are_named(self, restored: Clinic) -> None:
        for _ in range(9):  # more than the file has, on some other copy
            restored.run("audit", "anchor", "--token", "doctor")
        older = restored.vault.read_bytes()
        restored.run("audit", "anchor", "--token", "doctor")
        seen = restored.run("--json", "status", "--token", "doctor").json["anchor"]
        for file in restored.vault.parent.glob("vault.db*"):
            file.unlink()
        restored.vault.write_bytes(older)
        done = restored.run("vault", "restore", restored.vault, "--yes", "--token", "doctor")
        assert f"entries {seen} to {seen}, which the token has seen, are in neither file" in done.stderr


@pytest.fixture
def mixed(yubikey: Callable[..., VirtualYubiKey], medcrypt: CommandLine, tmp_path: Path) -> VirtualYubiKey:
    """A vault with a YubiKey that wants a finger, and a spare token."""
    key = ready(yubikey())
    path = tmp_path / "vault.db"
    with Vault.create(path, token="doctor", uri=key.uri, pin=pin, options=TokenOptions(touch="always")) as vault:
        vault.tokens.add("spare", medcrypt.softhsm.make_token(pin=SPARE_PIN), pin=lambda _: SPARE_PIN)
    medcrypt.env |= {"MEDCRYPT_VAULT": str(path), "PIN": PIN, "MEDCRYPT_PIN_SOURCE": "env:PIN"}
    return key


def test_a_finger_that_never_came_is_in_the_log(mixed: VirtualYubiKey, medcrypt: CommandLine) -> None:
    mixed.finger(None)
    error = medcrypt("--json", "patient", "list", "--token", "doctor", code=3).error
    assert error["error"] == NotTouched.name
    mixed.finger(0)
    entries = medcrypt("--json", "audit", "show", "--token", "doctor").json["entries"]
    (note,) = [entry for entry in entries if entry["action"] == "notes"]
    assert NotTouched.name in str(note["detail"])


def test_a_stopped_service_is_the_reason_that_is_given(
    mixed: VirtualYubiKey, medcrypt: CommandLine, pcscd: Pcscd, own_softhsm: SoftHsm
) -> None:
    pcscd.stop()
    error = medcrypt("--json", "patient", "list", code=3, env=own_softhsm.env).error  # where the spare is not either
    assert "none of this vault's tokens is present: doctor, spare (" in error["message"]
    assert "the smart card service (pcscd) is not running" in error["message"]
