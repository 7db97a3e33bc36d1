"""The patient's program (scripts/standalone/patient.py) and the practice's, each a process with a clock of its own.

They share no code: where both agree here, the specification is what they agree on. Version 1 is held against the
reference program's messages, and its key schedule is derived once more in this file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.checkout import VECTOR_DIRECTORY
from tests.support.command_line import CommandLine, Finished
from tests.support.phone import Device

ID = "EXP-00417"
START = "2026-11-20 09:00:00"
VECTORS: dict[str, Any] = json.loads((VECTOR_DIRECTORY / "medcrypt-v1.json").read_text("utf-8"))


@dataclass
class Clinic:
    """A practice at the command line, and phones that it pairs with."""

    medcrypt: CommandLine
    token: str
    directory: Path

    def __call__(self, *args: str | Path, at: str, stdin: str = "", code: int = 0) -> Finished:
        return self.medcrypt(*args, at=at, stdin=stdin, code=code)

    def create(self, at: str = START) -> Clinic:
        self("vault", "create", "--token", f"doctor={self.token}", at=at)
        return self

    def phone(self, name: str = "phone") -> Device:
        return Device(self.directory / name)

    def pair(self, at: str = START) -> Device:
        phone = self.phone()
        code = phone.pair(at, self("patient", "add", ID, at=at).stdout)
        self("patient", "confirm", ID, code, at=at)
        return phone

    def write(self, at: str, text: str) -> str:
        return self("encrypt", ID, at=at, stdin=text).stdout

    def read(self, at: str, chat: str, *options: str) -> str:
        return self("decrypt", *options, at=at, stdin=chat).stdout

    def refusal(self, *args: str, at: str, code: int, stdin: str = "") -> str:
        """The error's name."""
        return str(self("--json", *args, at=at, stdin=stdin, code=code).error["error"])


@pytest.fixture
def bare(medcrypt: CommandLine, token_uri: str, tmp_path: Path) -> Clinic:
    medcrypt.env["MEDCRYPT_VAULT"] = str(tmp_path / "practice" / "vault.db")
    return Clinic(medcrypt, token_uri, tmp_path)


@pytest.fixture
def clinic(bare: Clinic) -> Clinic:
    return bare.create()


def test_both_ways_over_months_and_the_year(clinic: Clinic) -> None:
    phone, ours, theirs = clinic.pair(), {}, {}
    for day in ("2026-11-20 10:00:00", "2026-12-31 23:59:00", "2027-01-03 08:00:00", "2027-02-28 12:00:00"):
        said, answered = f"Control en seis semanas. Día: {day} 🩺", f"Gracias, doctora\n\tpregunto otra cosa el {day}\n"
        ours[day], theirs[day] = clinic.write(day, said), phone.write(day, answered)
        assert f":{day[:7]}:d:1.1:" in ours[day]
        assert f":{day[:7]}:p:1.1:" in theirs[day]
        assert phone.read(day, f"[20:14] Dra. García: {ours[day]}") == said
        assert clinic.read(day, f"[20:15] Ana: {theirs[day]}") == answered

    november, december = "2026-11-20 10:00:00", "2026-12-31 23:59:00"
    last = "2027-02-28 13:00:00"
    for old in (november, december):
        assert clinic.refusal("decrypt", at=last, stdin=theirs[old], code=6) == "month-stale"
        phone("read", last, stdin=ours[old], code=6)
        assert clinic.read(last, theirs[old], "--archive").startswith("Gracias, doctora")
        assert clinic.read(last, theirs[old], "--month", old[:7]).endswith(f"{old}\n")
        assert phone.read(last, ours[old], "--archive").endswith(f"{old} 🩺")
    # One's own messages, too: a pasted chat holds both sides.
    assert phone.read(last, theirs["2027-02-28 12:00:00"]).startswith("Gracias")
    assert clinic.read(last, ours["2027-02-28 12:00:00"]).startswith("Control")
    assert "verified" in clinic("audit", "verify", at=last).stdout


def test_the_seventh_day_is_the_last_of_grace(clinic: Clinic) -> None:
    phone = clinic.pair()
    ours, theirs = clinic.write("2026-11-30 23:00:00", "de la doctora"), phone.write("2026-11-30 23:00:00", "de Ana")
    assert clinic.read("2026-12-07 23:59:00", theirs) == "de Ana"
    assert phone.read("2026-12-07 23:59:00", ours) == "de la doctora"
    assert clinic.refusal("decrypt", at="2026-12-08 00:00:01", stdin=theirs, code=6) == "month-stale"
    phone("read", "2026-12-08 00:00:01", stdin=ours, code=6)


def test_a_long_text_whose_parts_come_in_any_order(clinic: Clinic) -> None:
    phone, chance = clinic.pair(), random.Random(417)
    long = "".join(chance.choice("aé€🩺\n ") for _ in range(6_000)) + "."
    for parts, read, sender in (
        (clinic.write(START, long).splitlines(), phone.read, "d"),
        (phone.write(START, long).splitlines(), clinic.read, "p"),
    ):
        assert len(parts) > 3
        assert all(len(part) <= 4000 and f":{sender}:{i}.{len(parts)}." in part for i, part in enumerate(parts, 1))
        chance.shuffle(parts)
        assert read(START, " y \n".join([*parts, parts[0]])) == long
    some = "\n".join(parts[1:])
    assert clinic.refusal("decrypt", at=START, stdin=some, code=6) == "incomplete"
    missing = phone("read", START, stdin=some, code=6)
    assert (missing.stdout, "incomplete" in missing.stderr) == ("", True)


def test_a_clock_that_is_a_day_ahead(clinic: Clinic) -> None:
    phone = clinic.pair()
    early, behind, ahead = "2026-11-29 20:00:00", "2026-11-30 12:00:00", "2026-12-01 09:00:00"
    far = phone.write(ahead, "más de un día")
    assert clinic.refusal("decrypt", at=early, stdin=far, code=6) == "month-future"
    tomorrow = phone.write(ahead, "escrito mañana")
    assert ":2026-12:p:" in tomorrow
    assert clinic.read(behind, tomorrow) == "escrito mañana"
    status = clinic("--json", "status", at=behind).json
    assert "2026-12" not in json.dumps(status), "a clock that is ahead must not open the month"

    other = clinic.phone("other")
    code = other.pair(behind, clinic("patient", "repair", ID, at=behind).stdout)
    clinic("patient", "confirm", ID, code, at=behind)
    reply = clinic.write(ahead, "respondido mañana")
    assert ":2026-12:d:" in reply
    assert other.read(behind, reply) == "respondido mañana"
    assert ":2026-11:p:" in other.write(behind, "todavía noviembre")
    other("read", early, stdin=reply, code=6)


def test_a_wrong_check_code(clinic: Clinic) -> None:
    phone = clinic.phone()
    code = phone.pair(START, clinic("patient", "add", ID, at=START).stdout)
    assert phone("code", START).stdout == f"check code: {code}\n"
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    assert clinic.refusal("encrypt", ID, at=START, stdin="x", code=6) == "unconfirmed"
    assert clinic.refusal("decrypt", at=START, stdin=phone.write(START, "hola"), code=6) == "unconfirmed"
    assert clinic.refusal("patient", "confirm", ID, wrong, at=START, code=5) == "not-authentic"
    clinic("patient", "confirm", ID, f"{code[:3]} {code[3:]}", at=START)
    assert clinic.refusal("patient", "confirm", ID, code, at=START, code=6) == "refused"
    assert clinic.read(START, phone.write(START, "hola")) == "hola"

    second = clinic.phone("second")
    right = second.pair(START, clinic("patient", "repair", ID, at=START).stdout)
    wrong = f"{(int(right) + 1) % 1_000_000:06}"
    for _ in range(3):
        clinic("patient", "confirm", ID, wrong, at=START, code=5)
    assert clinic.refusal("patient", "confirm", ID, right, at=START, code=6) == "refused"
    assert clinic.refusal("decrypt", at=START, stdin=second.write(START, "hola"), code=6) == "month-stale"


def test_a_code_that_has_expired(clinic: Clinic) -> None:
    payload, late = clinic("patient", "add", ID, at=START).stdout, "2026-11-20 09:16:00"
    phone, other = clinic.phone(), clinic.phone("other")
    refused = phone("pair", late, stdin=payload, code=6)
    assert "expired" in refused.stderr
    assert not phone.state.exists()
    code = other.pair("2026-11-20 09:14:00", payload)
    assert clinic.refusal("patient", "confirm", ID, code, at=late, code=6) == "refused"
    assert clinic.refusal("patient", "qr", ID, at=late, code=6) == "refused"


def test_a_new_phone(clinic: Clinic) -> None:
    old, new = clinic.pair(), clinic.phone("new")
    before = old.write(START, "desde el teléfono viejo")
    later = "2026-12-04 10:00:00"
    code = new.pair(later, clinic("patient", "repair", ID, at=later).stdout)
    assert old.read(later, clinic.write(later, "todavía el viejo")) == "todavía el viejo"  # until the new is confirmed
    clinic("patient", "confirm", ID, code, at=later)

    reply = clinic.write(later, "al teléfono nuevo")
    assert new.read(later, reply) == "al teléfono nuevo"
    assert "another pairing" in old("read", later, stdin=reply, code=6).stderr
    assert clinic.read(later, new.write(later, "soy yo")) == "soy yo"
    assert clinic.refusal("decrypt", at=later, stdin=old.write(later, "¿yo?"), code=6) == "month-stale"
    assert clinic.refusal("decrypt", at=later, stdin=before, code=6) == "month-stale"
    assert clinic.read(later, before, "--archive") == "desde el teléfono viejo"


def test_a_pairing_that_nobody_here_knows(clinic: Clinic, tmp_path: Path) -> None:
    phone = clinic.pair()
    clinic.medcrypt.env["MEDCRYPT_VAULT"] = str(tmp_path / "elsewhere" / "vault.db")
    elsewhere = Clinic(clinic.medcrypt, clinic.token, tmp_path / "home").create()
    assert elsewhere.refusal("decrypt", at=START, stdin=phone.write(START, "hola"), code=5) == "unknown-pairing"
    elsewhere.pair()
    assert "another pairing" in phone("read", START, stdin=elsewhere.write(START, "hola"), code=6).stderr


@pytest.mark.parametrize("protocol", ["v2", "v1"])
def test_a_real_qr_reader_reads_the_picture(clinic: Clinic, protocol: str) -> None:
    picture = clinic.directory / "code.png"
    added = clinic("--json", "patient", "add", ID, "--protocol", protocol, "--qr", picture, at=START)
    assert picture.stat().st_mode & 0o777 == 0o600
    scan = subprocess.run(["zbarimg", "--quiet", "--raw", picture], capture_output=True, text=True, check=True)
    assert scan.stdout == added.json["payload"] + "\n"
    if protocol == "v2":
        phone = clinic.phone()
        clinic("patient", "confirm", ID, phone.pair(START, scan.stdout), at=START)
        assert phone.read(START, clinic.write(START, "leído de la pantalla")) == "leído de la pantalla"


# Version 1


def v1_open(wire: str, secret: str, month: str) -> tuple[str, str]:
    """The patient id and plaintext of a v1 message, by MedCrypt v1's description alone."""
    patient_id, nonce, ciphertext, tag = (base64.b64decode(field, validate=True) for field in wire[1:-1].split(":")[2:])
    salt = hmac.digest(secret.encode(), month.encode(), "sha256")[:16]
    key = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 600_000, 32)
    return patient_id.decode(), AESGCM(key).decrypt(nonce, ciphertext + tag, patient_id).decode()


def test_version_1_is_the_reference_programs(bare: Clinic) -> None:
    messages = VECTORS["messages"]
    months = sorted({message["month"] for message in messages})
    secrets = {message["patient_id"]: message["secret"] for message in messages}
    clinic = bare.create(f"{months[0]}-05 10:00:00")
    for patient_id, secret in secrets.items():
        clinic.medcrypt.env["SHARED"] = secret
        add = ("patient", "add", patient_id, "--protocol", "v1", "--secret-source", "env:SHARED")
        assert clinic(*add, at=f"{months[0]}-05 10:00:00").stdout == f"{secret}\n"

    opened = None
    for month in months:
        day = f"{month}-15 10:00:00"
        if opened is not None:
            clinic("rotate", "--to", month, at=day)
        opened = month
        sent = [message for message in messages if message["month"] == month]
        chat = "\n".join(f"Ana: {message['wire']}" for message in sent)
        read = clinic("--json", "decrypt", at=day, stdin=chat).json["messages"]
        assert [(m["text"], m["patient"], m["month"], m["status"], m["sender"]) for m in read] == [
            (message["plaintext"], message["patient_id"], month, "ok", "unknown") for message in sent
        ]
        for patient_id, secret in secrets.items():
            text = f"Plan de {month}: prednisona 5 mg 🩺"
            wire = clinic("encrypt", patient_id, at=day, stdin=text).stdout.removesuffix("\n")
            assert v1_open(wire, secret, month) == (patient_id, text)


# Files


def test_files_both_ways(clinic: Clinic) -> None:
    phone, directory = clinic.pair(), clinic.directory / "files"
    directory.mkdir()
    scan = directory / "Análisis.pdf"
    scan.write_bytes(random.Random(417).randbytes(200_000))
    sent, answered, there, here = (directory / name for name in ("sent", "answered", "there", "here"))
    for place in (there, here):
        place.mkdir()
    clinic("encrypt-file", ID, scan, sent, at=START)
    read = phone("read-file", START, str(sent), "--out", str(there))
    assert (read.stdout, read.stderr) == (
        f"{there}/Análisis.pdf\n", "from the doctor, 2026-11, application/pdf, 200000 bytes\n"
    )  # fmt: skip
    assert (there / "Análisis.pdf").read_bytes() == scan.read_bytes()
    again = phone("read-file", START, str(sent), "--out", str(there))
    assert (again.stdout, "seen before" in again.stderr) == (f"{there}/Análisis (2).pdf\n", True)
    assert phone("write-file", START, str(there / "Análisis (2).pdf"), str(answered)).stdout == f"{answered}\n"
    done = clinic("--json", "decrypt-file", answered, "--out", here, at=START).json
    assert (done["sender"], done["name"], done["status"]) == ("p", "Análisis (2).pdf", "ok")
    assert Path(done["file"]).read_bytes() == scan.read_bytes()

    later = "2026-12-08 09:00:00"
    assert clinic.refusal("decrypt-file", str(answered), at=later, code=6) == "month-stale"
    phone("read-file", later, str(sent), "--out", str(there), code=6)
    phone("read-file", later, str(sent), "--out", str(there), "--archive")
    clinic("audit", "verify", at=later)


def test_what_the_patients_program_refuses_of_files(clinic: Clinic) -> None:
    phone, directory = clinic.pair(), clinic.directory / "files"
    directory.mkdir()
    (scan := directory / "a").write_bytes(bytes(100_000))
    clinic("encrypt-file", ID, scan, directory / "sent", at=START)
    whole = (directory / "sent").read_bytes()
    (out := directory / "out").mkdir()
    left = out / "medcrypt-not-whole-01234567.partial"
    left.write_bytes(b"of a killed run")
    for damage in (
        whole[:-1],
        whole[: 93 + 65552],
        whole + b"x",
        whole[:93],
        whole[:50],
        b"",
        whole[:14] + b"\1" + whole[15:],
    ):
        (bad := directory / "bad").write_bytes(damage)
        assert phone("read-file", START, str(bad), "--out", str(out), code=5).stdout == ""
        assert list(out.iterdir()) == []
    for arguments in (["read-file"], ["write", "--out", "x"], ["write-file", str(scan), str(directory / "sent")]):
        assert phone(arguments[0], START, *arguments[1:], code=2).stdout == ""
    assert (directory / "sent").read_bytes() == whole
    assert list(out.iterdir()) == []
    phone("read-file", START, str(directory / "sent"), "--out", str(out))
    assert [path.name for path in out.iterdir()] == ["a"]
