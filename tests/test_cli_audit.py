"""audit show, verify, anchor, checkpoint, public-key."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import CommandLine, SoftHsm
from tests.support_cli import V2_PATIENT, Clinic, assert_fields_documented


def test_show(clinic: Clinic) -> None:
    done = clinic.run("--json", "audit", "show")
    assert_fields_documented("audit show", done.json)
    entries = done.json["entries"]
    assert [entry["sequence"] for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry["action"] for entry in entries[:3]] == ["token.introduce", "vault.create", "patient.add"]
    table = clinic.run("audit", "show").stdout.splitlines()
    assert table[0].split() == ["ENTRY", "TIME", "ACTOR", "TOKEN", "ACTION", "SUBJECT", "OUTCOME"]
    assert table[3].split()[3:] == ["doctor", "patient.add", V2_PATIENT, "done"]


def test_verify_with_the_token(clinic: Clinic) -> None:
    done = clinic.run("--json", "audit", "verify")
    assert_fields_documented("audit verify", done.json)
    assert (done.json["with_token"], done.json["tokens"]) == (True, ["doctor"])
    assert done.json["rows"] > 3


def test_verify_with_public_keys_needs_no_token(clinic: Clinic, tmp_path: Path) -> None:
    keys = clinic.run("--json", "audit", "public-key")
    assert_fields_documented("audit public-key", keys.json)
    file = tmp_path / "practice.pem"
    text = clinic.run("audit", "public-key")
    file.write_text(text.stdout)
    assert text.stdout == keys.json["keys"][0]["pem"]
    assert keys.json["keys"][0]["fingerprint"] in text.stderr
    done = clinic.run(
        "--json", "audit", "verify", "--public-key", file, file, env={"MEDCRYPT_PIN_SOURCE": "env:NOT_THERE"}
    )
    assert (done.json["with_token"], done.json["rows"]) == (False, None)
    assert "public keys alone" in clinic.run("audit", "verify", "--public-key", file).stdout


def test_verify_finds_a_changed_entry(clinic: Clinic) -> None:
    with closing(sqlite3.connect(clinic.vault)) as db, db:
        db.execute("UPDATE entries SET stored = CAST(stored || x'00' AS BLOB) WHERE sequence = 3")
    error = clinic.run("--json", "audit", "verify", code=7).error
    assert (error["error"], error["at"]) == ("audit-broken", 3)


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_files_that_are_no_keys(clinic: Clinic, tmp_path: Path, content: str) -> None:
    file = tmp_path / "key.pem"
    file.write_text(content)
    clinic.run("audit", "verify", "--public-key", file, code=2)


def test_a_strangers_key_does_not_verify(clinic: Clinic, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    file = tmp_path / "key.pem"
    file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    error = clinic.run("--json", "audit", "verify", "--public-key", file, code=7).error
    assert error["error"] == "audit-broken"


def test_key_files_stand_behind_their_option(clinic: Clinic) -> None:
    assert "--public-key" in clinic.run("audit", "verify", "practice.pem", code=2).stderr


def test_anchor(clinic: Clinic) -> None:
    done = clinic.run("--json", "audit", "anchor")
    assert_fields_documented("audit anchor", done.json)
    assert clinic.run("--json", "status", "--token", "doctor").json["anchor"] == done.json["anchor"]


def test_checkpoint(clinic: Clinic, tmp_path: Path) -> None:
    done = clinic.run("--json", "audit", "checkpoint")
    assert_fields_documented("audit checkpoint", done.json)
    lines = done.json["checkpoint"].splitlines()
    assert lines[0].startswith("medcrypt/")
    assert lines[6].startswith("— medcrypt/")
    file = tmp_path / "checkpoint.txt"
    clinic.run("audit", "checkpoint", file)
    assert file.read_text().splitlines()[:5] == lines[:5]
    clinic.run("audit", "checkpoint", file, code=2)


def test_without_a_vault(medcrypt: CommandLine, softhsm: SoftHsm) -> None:
    for command in ("show", "verify", "anchor", "checkpoint", "public-key"):
        assert medcrypt("--json", "audit", command, code=7).error["error"] == "vault-missing"
