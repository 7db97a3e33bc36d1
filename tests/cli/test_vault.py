"""vault create, backup, restore."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from tests.support.clinic import V2_PATIENT, Clinic, assert_fields_documented
from tests.support.command_line import PIN_VARIABLE, CommandLine
from tests.support.softhsm import WRONG_PIN, SoftHsm


def test_create(medcrypt: CommandLine, softhsm: SoftHsm, tmp_path: Path) -> None:
    uri = softhsm.make_token()
    done = medcrypt("--json", "vault", "create", "--token", f"doctor={uri}", at="2026-11-22 12:00:00")
    vault = medcrypt.home / ".local" / "share" / "medcrypt" / "vault.db"
    document = done.json
    assert_fields_documented("vault create", document)
    assert (document["vault"], document["month"]) == (str(vault), "2026-11")
    assert document["token"]["name"] == "doctor"
    assert document["fingerprint"] == document["token"]["fingerprint"]
    assert stat.S_IMODE(vault.stat().st_mode) == 0o600
    assert stat.S_IMODE(vault.parent.stat().st_mode) == 0o700
    assert "medcrypt vault backup" in done.stderr
    again = medcrypt("--json", "vault", "create", "--token", f"doctor={uri}", code=7)
    assert "already" in again.error["message"]


@pytest.mark.parametrize(
    ("token", "code", "name"),
    [
        (None, 2, "usage"),
        ("doctor", 2, "usage"),
        ("pkcs11:token=doctor", 2, "usage"),
        ("dr/garcia=pkcs11:token=x", 2, "usage"),
        ("a b=pkcs11:token=x", 2, "usage"),
        ("doctor=pkcs11:token=nowhere", 3, "token-absent"),
        ("doctor=yubikey:1", 3, "token-absent"),
    ],
)
def test_tokens_that_a_vault_cannot_have(medcrypt: CommandLine, token: str | None, code: int, name: str) -> None:
    named = () if token is None else ("--token", token)
    error = medcrypt("--json", "vault", "create", *named, code=code).error
    assert (error["error"], bool(error["hint"])) == (name, True)
    assert not (medcrypt.home / ".local").exists()


def test_create_with_a_wrong_pin_makes_nothing(medcrypt: CommandLine, softhsm: SoftHsm) -> None:
    token = f"doctor={softhsm.make_token()}"
    medcrypt("vault", "create", "--token", token, code=4, env={PIN_VARIABLE: WRONG_PIN})
    assert not (medcrypt.home / ".local" / "share" / "medcrypt" / "vault.db").exists()


def test_backup_and_restore(clinic: Clinic, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    done = clinic.run("--json", "vault", "backup", backup)
    assert_fields_documented("vault backup", done.json)
    assert done.json["entries"] == done.json["sequence"]
    assert "exists already" in clinic.run("vault", "backup", backup, code=2).stderr
    clinic.run("patient", "add", "EXP-00999")

    before = clinic.run("--json", "status", "--token", "doctor").json
    refused = clinic.run("--non-interactive", "vault", "restore", backup, code=2)
    assert "LOST would be what" in refused.stderr
    assert clinic.run("--json", "status", "--token", "doctor").json == before

    restored = clinic.run("--json", "--yes", "vault", "restore", backup)
    assert_fields_documented("vault restore", restored.json)
    assert restored.json["loss"]["entries_lost"] == before["entries"] - done.json["sequence"]
    clinic.run("patient", "show", "EXP-00999", code=2)
    assert clinic.run("audit", "verify").returncode == 0


def test_an_older_file_is_found_and_only_restore_takes_it(clinic: Clinic, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(clinic.vault, old)
    clinic.run("audit", "anchor")
    for beside in clinic.vault.parent.glob("vault.db-*"):
        beside.unlink()
    shutil.copy(old, clinic.vault)
    for command in (["audit", "verify"], ["status", "--token", "doctor"], ["encrypt", V2_PATIENT]):
        assert clinic.run("--json", *command, code=7).error["error"] == "vault-rolled-back"
    clinic.run("--yes", "vault", "restore", old)
    assert clinic.run("audit", "verify").returncode == 0


@pytest.mark.parametrize(("typed", "code"), [("vault.db\n", 0), ("y\n", 1), ("\n", 1)])
def test_restore_asks_a_person(clinic: Clinic, tmp_path: Path, typed: str, code: int) -> None:
    backup = tmp_path / "backup.db"
    clinic.run("vault", "backup", backup)
    clinic.run("patient", "add", "EXP-00999")
    terminal = clinic.terminal("vault", "restore", backup)
    terminal.expect("LOST would be")
    terminal.expect("Type vault.db to go on: ")
    terminal.type(typed)
    assert terminal.finish() == code
    clinic.run("patient", "show", "EXP-00999", code=2 if code == 0 else 0)


@pytest.mark.parametrize("content", [b"", b"no vault", b"SQLite format 3\0" + bytes(4096)])
def test_files_that_are_no_vault(clinic: Clinic, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert clinic.run("--json", "--vault", file, "status", code=7).error["hint"]
    assert clinic.run("--json", "--yes", "vault", "restore", file, code=7).error["error"].startswith("vault")
    assert file.read_bytes() == content
    assert clinic.run("audit", "verify").returncode == 0


def test_backup_into_a_directory_that_is_not_there(clinic: Clinic, tmp_path: Path) -> None:
    assert clinic.run("--json", "vault", "backup", tmp_path / "no" / "b.db", code=2).error["error"] == "usage"
