"""token attest: a vault's token, another token, saved files of real devices; text, JSON and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attestation_vendor import ROOTS, SAMPLES, old_chain
from tests.support.clinic import Clinic, assert_fields_documented
from tests.support.command_line import CommandLine
from tests.support.store import by_hand

FILES = {
    firmware: ("--certificate", SAMPLES / f"{firmware}-key.pem", "--intermediate", SAMPLES / f"{firmware}-f9.pem")
    for firmware in ("4.3.7", "5.4.3", "5.7.4")
}
WITH_ROOTS = ("--roots", ROOTS)


@pytest.mark.parametrize("named", ["by name", "by URI"])
@pytest.mark.parametrize("roots", [(), WITH_ROOTS], ids=["", "with roots"])
def test_a_vaults_token_is_asked_about_the_vaults_keys(
    clinic: Clinic, named: str, roots: tuple[str | Path, ...]
) -> None:
    named = {"by name": "doctor", "by URI": clinic.uri}[named]
    document = clinic.run("--json", "token", "attest", named, *roots).json
    assert_fields_documented("token attest", document)
    assert (document["name"], document["grade"], document["saved"]) == ("doctor", "token-claimed", [])
    assert document["token"]["label"] == "doctor"
    kek, audit = document["keys"]
    assert (kek["name"].split()[1], audit["name"].split()[1]) == ("kek", "audit")
    (fingerprint,) = [token["fingerprint"] for token in clinic.run("--json", "status").json["tokens"]]
    assert audit["public_key"] == fingerprint
    for key in (kek, audit):
        assert (key["grade"], key["serial"], key["root"], key["forged"]) == ("token-claimed", "", "", False)
        assert key["reasons"]


def test_as_text(clinic: Clinic) -> None:
    lines = clinic.run("token", "attest", "doctor").stdout.splitlines()
    assert lines[0].startswith("token doctor, serial ")
    assert lines[0].endswith(": token-claimed")
    assert [line.split()[:3] for line in lines if line.startswith("  token-claimed")] == [
        ["token-claimed", "medcrypt", "kek"],
        ["token-claimed", "medcrypt", "audit"],
    ]
    assert any("public key SHA-256" in line for line in lines)


def test_another_token_is_asked_about_every_key_of_this_program(clinic: Clinic) -> None:
    other = clinic.run.softhsm.make_token("other")
    done = clinic.run("--json", "token", "attest", other, code=3)
    assert (done.json["keys"], done.json["grade"], done.error["error"]) == ([], "not-attested", "token-unfit")
    elsewhere = {"MEDCRYPT_VAULT": str(clinic.directory / "elsewhere" / "vault.db")}
    clinic.run("vault", "create", "--token", f"b={other}", env=elsewhere)
    document = clinic.run("--json", "token", "attest", other).json
    assert document["name"] is None
    assert sorted(key["name"].split()[1] for key in document["keys"]) == ["audit", "kek"], "an anchor is no key"


def test_a_vaults_keys_that_are_gone(clinic: Clinic) -> None:
    from tests.support.command_line import PIN_VARIABLE, SO_PIN_VARIABLE
    from tests.support.softhsm import USER_PIN

    so = ("--so-pin-source", f"env:{SO_PIN_VARIABLE}")
    clinic.run("--yes", *so, "token", "init", clinic.uri, "--label", "doctor", env={PIN_VARIABLE: USER_PIN})
    done = clinic.run("--json", "token", "attest", clinic.uri, code=3)
    assert [key["reasons"] for key in done.json["keys"]] == [["it is not on the token"]] * 2
    assert done.error["error"] == "token-unfit"


def test_an_audit_key_that_is_not_the_one_on_record(clinic: Clinic) -> None:
    """The file names another key for this token: as if the token's had been exchanged."""
    import json

    from medcrypt_hsm.crypto.p256 import fingerprint
    from tests.support.attestation_vendor import key, spki

    other = spki(key("other").public_key())
    with by_hand(clinic.vault) as file:
        ((value,),) = file.execute("SELECT value FROM trust WHERE kind = 'token'").fetchall()
        row = json.loads(value) | {"audit_key": other.hex(), "id": fingerprint(other).hex()}
        file.execute("UPDATE trust SET value = ? WHERE kind = 'token'", [json.dumps(row).encode()])
    done = clinic.run("--json", "token", "attest", "doctor", code=3)
    kek, audit = done.json["keys"]
    assert (kek["grade"], audit["grade"]) == ("token-claimed", "not-attested")
    assert "on record" in audit["reasons"][0]


def test_nothing_can_be_saved_of_a_token_without_certificates(clinic: Clinic, tmp_path: Path) -> None:
    error = clinic.run("--json", "token", "attest", "doctor", "--save", tmp_path / "saved", code=3).error
    assert "certificates" in error["message"]
    assert not (tmp_path / "saved").exists()


# Saved files: real devices, no token, no PIN, no vault


@pytest.mark.parametrize(
    ("firmware", "grade", "serial", "root"),
    [
        ("5.4.3", "device-attested", "15732500", "Yubico PIV Root CA Serial 263751"),
        ("5.7.4", "device-attested", "36345471", "Yubico Attestation Root 1"),
        ("4.3.7", "token-claimed", "", "Yubico U2F Root CA Serial 457200631"),
    ],
)
def test_saved_files(medcrypt: CommandLine, firmware: str, grade: str, serial: str, root: str) -> None:
    command = ("token", "attest", *FILES[firmware], *WITH_ROOTS)
    document = medcrypt("--json", "--non-interactive", *command, env={"MEDCRYPT_PIN_SOURCE": ""}).json
    assert_fields_documented("token attest", document)
    assert (document["token"], document["name"], document["grade"]) == (None, None, grade)
    (key,) = document["keys"]
    assert (key["serial"], key["root"], key["firmware"], key["forged"]) == (serial, root, firmware, False)
    done = medcrypt(*command)
    assert done.stdout.startswith(f"saved certificates: {grade}\n")
    assert ("compare the serial" in done.stderr) == bool(serial)
    assert list(medcrypt.home.iterdir()) == []


def test_saved_files_prove_nothing_without_the_vendors(medcrypt: CommandLine) -> None:
    done = medcrypt("--json", "token", "attest", *FILES["5.4.3"], code=5)
    assert (done.json["grade"], done.json["keys"][0]["serial"]) == ("not-attested", "15732500")
    assert (done.error["error"], "--roots" in done.error["hint"]) == ("not-authentic", True)


def test_files_of_two_devices(medcrypt: CommandLine) -> None:
    mixed = (*FILES["5.4.3"][:3], SAMPLES / "4.3.7-f9.pem")
    done = medcrypt("--json", "token", "attest", *mixed, *WITH_ROOTS, code=5)
    assert (done.json["keys"][0]["forged"], done.error["error"]) == (True, "not-authentic")
    assert "not signed by the F9" in done.error["message"]
    words = medcrypt("token", "attest", *mixed, *WITH_ROOTS, code=5)
    assert words.stdout.startswith("saved certificates: not-attested\n")


def test_an_rsa_key_and_a_made_up_vendor(medcrypt: CommandLine, tmp_path: Path) -> None:
    rsa = ("--certificate", SAMPLES / "4.3.5-key-rsa.pem", "--intermediate", SAMPLES / "4.3.5-f9.pem")
    assert "P-256" in medcrypt("--json", "token", "attest", *rsa, *WITH_ROOTS, code=5).error["message"]
    made = old_chain()
    for name, der in zip(("82.pem", "F9.pem"), made.shown, strict=True):
        (tmp_path / name).write_bytes(der)
    files = ("--certificate", tmp_path / "82.pem", "--intermediate", tmp_path / "F9.pem")
    medcrypt("token", "attest", *files, *WITH_ROOTS, code=5)
    error = medcrypt("--json", "token", "attest", *files, "--roots", made.write_roots(tmp_path / "own"), code=2).error
    assert "this program knows" in error["message"]


@pytest.mark.parametrize("content", [b"", b"\x1b[31m", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_files_that_are_no_certificates(medcrypt: CommandLine, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_bytes(content)
    for bad in (
        ("--certificate", tmp_path / "bad.pem", "--intermediate", SAMPLES / "5.4.3-f9.pem"),
        ("--certificate", SAMPLES / "5.4.3-key.pem", "--intermediate", tmp_path / "bad.pem"),
    ):
        done = medcrypt("--json", "token", "attest", *bad, *WITH_ROOTS, code=5)
        assert done.error["hint"]
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("doctor", *FILES["5.4.3"]),
        FILES["5.4.3"][:2],
        FILES["5.4.3"][2:],
        (*FILES["5.4.3"], "--save", "somewhere"),
        (*FILES["5.4.3"], "--roots", SAMPLES),
        (*FILES["5.4.3"], "--roots", "nowhere"),
        ("pkcs11:slot-id=0",),
        ("doctor", "--roots", "nowhere"),
    ],
)
def test_wrong_usage(clinic: Clinic, arguments: tuple[str | Path, ...]) -> None:
    done = clinic.run("--json", "token", "attest", *arguments, code=2)
    assert (done.error["error"], bool(done.error["hint"]), done.stdout) == ("usage", True, "")


def test_there_is_no_option_for_other_pins(medcrypt: CommandLine) -> None:
    assert "pin" not in medcrypt("token", "attest", "--help").stdout.lower().replace("pins", "pin").split("options")[1]
    medcrypt("token", "attest", *FILES["5.4.3"], "--pins", "x", code=2)
