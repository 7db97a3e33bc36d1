"""audit show, export, verify, anchor, checkpoint, public-key."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.clinic import V2_PATIENT, Clinic, assert_fields_documented
from tests.support.command_line import CommandLine
from tests.support.softhsm import SoftHsm
from tests.support.store import tamper


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
    tamper(clinic.vault, "UPDATE entries SET stored = CAST(stored || x'00' AS BLOB) WHERE sequence = 3")
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


NO_PIN = {"MEDCRYPT_PIN_SOURCE": "env:NOT_THERE"}


class TestFilters:
    def test_by_patient_and_action(self, clinic: Clinic) -> None:
        clinic.run("decrypt", stdin=clinic.encrypt("hola"))
        done = clinic.run("--json", "audit", "show", "--patient", V2_PATIENT, "--action", "message")
        assert_fields_documented("audit show", done.json)
        assert [entry["action"] for entry in done.json["entries"]] == ["message.encrypt", "message.decrypt"]
        (newest,) = clinic.run("--json", "audit", "show", "--action", "audit.show").json["entries"][-1:]
        assert newest["detail"] == {"filter": {"action": "audit.show"}}
        table = clinic.run("audit", "show", "--action", "vault.create").stdout.splitlines()
        assert len(table) == 2

    def test_by_actor_and_time(self, clinic: Clinic) -> None:
        everything = clinic.run("--json", "audit", "show", "--until", "2026-11-22").json["entries"]
        actor = everything[0]["actor"]
        assert len(clinic.run("--json", "audit", "show", "--actor", actor).json["entries"]) == len(everything) + 1
        assert clinic.run("--json", "audit", "show", "--actor", "x" + actor).json["entries"] == []
        assert clinic.run("--json", "audit", "show", "--since", "2026-11-23").json["entries"] == []
        assert clinic.run("--json", "audit", "show", "--until", "2026-11-22T00:00:00Z").json["entries"] == []

    @pytest.mark.parametrize(
        "options",
        [
            ["--since", "yesterday"],
            ["--until", "2026-11-31"],
            ["--since", "2026-11-22T12:00:00+01:00"],
            ["--since", "2026-11-23", "--until", "2026-11-22"],
            ["--patient", ""],
            [b"--actor", b"\xff"],
        ],
    )
    def test_wrong_usage_before_the_pin(self, clinic: Clinic, tmp_path: Path, options: list[str]) -> None:
        for command in (["audit", "show"], ["audit", "export", str(tmp_path / "log")]):
            error = clinic.run("--json", *command, *map(os.fsdecode, options), env=NO_PIN, code=2).error
            assert error["error"] == "usage"
        assert not (tmp_path / "log").exists()


class TestExport:
    def test_each_format(self, clinic: Clinic, tmp_path: Path) -> None:
        counts = []
        for name in ("jsonl", "csv", "cef"):
            file = tmp_path / f"log.{name}"
            done = clinic.run("--json", "audit", "export", "--format", name, file)
            assert_fields_documented("audit export", done.json)
            assert (done.json["export"], done.json["format"]) == (str(file), name)
            counts.append(done.json["entries"])
            assert file.stat().st_mode & 0o777 == 0o600
        assert counts == [counts[0], counts[0] + 1, counts[0] + 2]
        assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["action"] == "token.introduce"
        assert (tmp_path / "log.csv").read_text().startswith("sequence,")
        assert (tmp_path / "log.cef").read_text().startswith("CEF:0|MedCrypt|medcrypt|")

    def test_in_words_and_narrowed(self, clinic: Clinic, tmp_path: Path) -> None:
        file = tmp_path / "log"
        done = clinic.run("audit", "export", file, "--patient", V2_PATIENT)
        assert done.stdout == f"2 audit entries are in {file}\n"
        assert "names patients" in done.stderr
        assert [json.loads(line)["action"] for line in file.read_text().splitlines()] == ["patient.add", "audit.export"]

    def test_never_over_a_file_nor_in_another_format(self, clinic: Clinic, tmp_path: Path) -> None:
        file = tmp_path / "log"
        assert "'xml' is no format" in clinic.run("audit", "export", "--format", "xml", file, env=NO_PIN, code=2).stderr
        file.write_text("mine")
        assert "exists already" in clinic.run("audit", "export", file, env=NO_PIN, code=2).stderr
        assert file.read_text() == "mine"


class TestSince:
    @pytest.fixture
    def note(self, clinic: Clinic, tmp_path: Path) -> Path:
        file = tmp_path / "checkpoint.txt"
        clinic.run("audit", "checkpoint", file)
        return file

    @pytest.fixture
    def pem(self, clinic: Clinic, tmp_path: Path) -> Path:
        file = tmp_path / "practice.pem"
        file.write_text(clinic.run("audit", "public-key").stdout)
        return file

    def test_with_the_token_and_with_public_keys(self, clinic: Clinic, note: Path, pem: Path) -> None:
        clinic.encrypt("hola")
        sequence = int(note.read_text().splitlines()[1])
        for options in ([], ["--public-key", pem]):
            done = clinic.run("--json", "audit", "verify", "--since", note, *options)
            assert_fields_documented("audit verify", done.json)
            assert done.json["checkpoints"] == [sequence]
            words = clinic.run("audit", "verify", *options, "--since", note, "--since", note).stdout
            assert words.endswith(f"checkpoints that the log continues: {sequence}, {sequence}\n")
        assert clinic.run("--json", "audit", "verify").json["checkpoints"] == []

    def test_a_log_that_was_cut(self, clinic: Clinic, note: Path, pem: Path, tmp_path: Path) -> None:
        older = tmp_path / "older.db"
        clinic.run("vault", "backup", older)
        clinic.encrypt("hola")
        newer = tmp_path / "newer.txt"
        clinic.run("audit", "checkpoint", newer)
        clinic.run("--vault", older, "audit", "verify", "--public-key", pem, "--since", note)
        error = clinic.run("--json", "--vault", older, "audit", "verify", "--public-key", pem, "--since", newer, code=7)
        assert error.error["error"] == "audit-broken"
        assert error.error["at"] == int(newer.read_text().splitlines()[1])
        words = clinic.run("--vault", older, "audit", "verify", "--public-key", pem, "--since", newer, code=7).stderr
        assert [line.split(":")[0] for line in words.splitlines()] == ["error", "hint"]

    def test_what_is_no_checkpoint(self, clinic: Clinic, note: Path, tmp_path: Path) -> None:
        """Found before the PIN is asked for."""
        for content in (b"", b"no checkpoint", note.read_bytes() + b"\n", note.read_bytes().replace(b"\n", b"\r\n")):
            (tmp_path / "bad.txt").write_bytes(content)
            error = clinic.run("--json", "audit", "verify", "--since", tmp_path / "bad.txt", env=NO_PIN, code=5).error
            assert (error["error"], bool(error["hint"])) == ("malformed", True)
        for path in (tmp_path / "none", tmp_path):
            assert "cannot be read" in clinic.run("audit", "verify", "--since", path, env=NO_PIN, code=2).stderr


def test_without_a_vault(medcrypt: CommandLine, softhsm: SoftHsm) -> None:
    for command in ("show", "verify", "anchor", "checkpoint", "public-key"):
        assert medcrypt("--json", "audit", command, code=7).error["error"] == "vault-missing"
    assert medcrypt("--json", "audit", "export", "log", code=7).error["error"] == "vault-missing"
