"""scripts/standalone/patient.py: its key schedule against frozen vectors, and its commands as a patient runs them,
in processes of their own whose clock faketime sets. The doctor here is made of the script's own functions."""

from __future__ import annotations

import ast
import base64
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from scripts.standalone import patient
from scripts.standalone.patient import Message, Month, PatientState, Plaintext, Problem
from tests.support.checkout import VECTOR_DIRECTORY
from tests.support.clock import clock_at

SCRIPT = Path(patient.__file__)
CHAIN: dict[str, Any] = json.loads((VECTOR_DIRECTORY / "chain-v2.json").read_text("utf-8"))
WIRE: list[dict[str, Any]] = json.loads((VECTOR_DIRECTORY / "wire-v2.json").read_text("utf-8"))["messages"]
FAULTS: list[dict[str, Any]] = json.loads((VECTOR_DIRECTORY / "wire-faults.json").read_text("utf-8"))["faults"]
PAIRING, SECRET = bytes.fromhex(CHAIN["pairing_hex"]), bytes.fromhex(CHAIN["secret_hex"])
PASSPHRASE = "correct horse battery"
PAIRED = "2026-11-22 18:40:00"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def doctor_key(month: str) -> bytes:
    """The doctor's own walk along the chain, from the pairing secret."""
    here, chain = Month.parse("2026-11"), SECRET
    while str(here) != month:
        here = here.next()
        chain = patient.next_chain(chain, PAIRING, here)
    return patient.message_key(chain, PAIRING, here)


def doctor(month: str, text: str | bytes, part: str = "1.1", nonce: bytes | None = None) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return patient.seal(doctor_key(month), PAIRING, Month.parse(month), "d", part, raw, nonce or os.urandom(12))


def doctor_parts(month: str, *texts: str) -> list[str]:
    return [doctor(month, text, f"{i}.{len(texts)}.3q2+7w") for i, text in enumerate(texts, 1)]


def doctor_reads(wire: str) -> str:
    """Joins the patient's wire texts."""
    messages = [m for m in patient.find_messages(wire) if isinstance(m, Message)]
    assert {m.sender for m in messages} == {"p"}
    assert [m.index for m in messages] == list(range(1, messages[0].count + 1))
    return b"".join(patient.open_(doctor_key(str(m.month)), m) for m in messages).decode()


def paired() -> PatientState:
    return PatientState.pair(patient.parse_payload(CHAIN["payload"]))


def plaintext(result: Plaintext | Problem) -> Plaintext:
    assert isinstance(result, Plaintext), str(result)
    return result


def problem(result: Plaintext | Problem) -> Problem:
    assert isinstance(result, Problem)
    return result


class Phone:
    """One patient's device: a state file, and the script run on it at a time of our choosing."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"

    def command(self, *arguments: str) -> list[str]:
        name, *rest = arguments
        return [sys.executable, str(SCRIPT), name, str(self.state), "--passphrase-env", "PATIENT_PASS", *rest]

    def run(
        self, when: str, *arguments: str, stdin: str | bytes = "", passphrase: str | None = PASSPHRASE
    ) -> subprocess.CompletedProcess[str]:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        command = self.command(*arguments)
        done = subprocess.run(command, input=raw, capture_output=True, env=self.env(when, passphrase), timeout=60)
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err
        assert PASSPHRASE not in out + err
        if done.returncode:
            lines = err.splitlines()
            assert [line.split(":")[0] for line in lines[-2:]] == ["error", "hint"]
        return subprocess.CompletedProcess(command, done.returncode, out, err)

    @staticmethod
    def env(when: str, passphrase: str | None) -> dict[str, str]:
        env = {**os.environ, **clock_at(when)}
        return env if passphrase is None else {**env, "PATIENT_PASS": passphrase}


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    device = Phone(tmp_path)
    done = device.run(PAIRED, "pair", stdin=CHAIN["payload"] + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"check code: {CHAIN['check_code']}\n", "")
    return device


def test_hkdf_expand_is_rfc_5869() -> None:
    case = CHAIN["rfc5869"]
    okm = patient.hkdf_expand(bytes.fromhex(case["prk_hex"]), bytes.fromhex(case["info_hex"]), case["length"])
    assert okm.hex() == case["okm_hex"]


@pytest.mark.parametrize("length", [1, 8, 32, 33, 64, 8160])
def test_hkdf_expand_is_that_of_cryptography(length: int) -> None:
    key, info = bytes(range(32)), b"info"
    assert patient.hkdf_expand(key, info, length) == HKDFExpand(hashes.SHA256(), length, info).derive(key)


def test_chain_vectors() -> None:
    state = paired()
    assert state.check_code == CHAIN["check_code"]
    assert [entry["month"] for entry in CHAIN["months"]] == ["2026-11", "2026-12", "2027-01", "2027-02"]
    for entry in CHAIN["months"]:
        state.step_to(Month.parse(entry["month"]))
        assert state.chain_key.hex() == entry["chain_key_hex"]
        assert state.message_keys[state.month].hex() == entry["message_key_hex"]


def test_payload_vector() -> None:
    payload = patient.parse_payload(CHAIN["payload"])
    assert len(CHAIN["payload"]) == 88
    assert (payload.pairing, str(payload.month), payload.secret) == (PAIRING, "2026-11", SECRET)
    assert payload.expires == datetime.fromisoformat(CHAIN["payload_expires"])


def test_message_vector() -> None:
    case = CHAIN["message"]
    key = doctor_key(case["month"])
    month, nonce, raw = Month.parse(case["month"]), bytes.fromhex(case["nonce_hex"]), case["plaintext"].encode()
    assert patient.seal(key, PAIRING, month, case["sender"], case["part"], raw, nonce) == case["wire"]
    [message] = patient.find_messages(case["wire"])
    assert isinstance(message, Message)
    assert message.aad.decode() == case["aad"]
    assert patient.open_(key, message) == raw


@pytest.mark.parametrize("case", WIRE, ids=lambda case: case["name"])
def test_wire_vectors(case: dict[str, Any]) -> None:
    [message] = patient.find_messages(case["wire"])
    assert isinstance(message, Message)
    key = bytes.fromhex(case["key_hex"])
    assert patient.open_(key, message).hex() == case["plaintext_hex"]
    part = case["aad"].rsplit(":", 1)[1]
    sealed = patient.seal(
        key, message.pairing, message.month, message.sender, part, patient.open_(key, message), message.nonce
    )
    assert sealed == case["wire"]


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: f"{case['format']} {case['fault']}")
def test_wire_faults(case: dict[str, Any]) -> None:
    if case["format"] == "payload":
        with pytest.raises(Problem) as caught:
            patient.parse_payload(case["text"])
        assert caught.value.code == patient.NOT_AUTHENTIC
        return
    found = list(patient.find_messages(case["text"]))
    assert any(isinstance(one, Problem) for one in found) or len(found) != 1


def test_it_shares_no_code_with_the_package() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported - sys.stdlib_module_names == {"cryptography"}


def test_two_devices_of_one_pairing_understand_each_other() -> None:
    one, two = paired(), paired()
    wire = one.write("Czy mogę pić kawę? ☕", at("2027-01-15"))
    [result] = patient.read(two, "chat: " + "\n".join(wire) + " bye", at("2027-01-16"))
    assert plaintext(result) == Plaintext("Czy mogę pić kawę? ☕", "p", Month.parse("2027-01"), "")


@pytest.mark.parametrize("size", [1, 2926, 2927, 2928, 2929, 2930, 9 * 2919, 9 * 2920, 9 * 2921, 40_000])
@pytest.mark.parametrize("character", ["a", "ż", "€", "🩺"])
def test_split_loses_nothing_and_fits(size: int, character: str) -> None:
    text = "x" + character * (size // len(character.encode()))
    state = paired()
    wire = state.write(text, at("2026-11-23"))
    assert max(map(len, wire)) <= 4000
    # As long as fits: no part but the last has room for one more character.
    assert all(len(one) + len(base64.b64encode(character.encode())) + 1 > 4000 for one in wire[:-1])
    for one in wire:
        [message] = patient.find_messages(one)
        assert isinstance(message, Message)
        patient.open_(state.message_keys[state.month], message).decode()
    [result] = patient.read(paired(), "".join(reversed(wire)), at("2026-11-23"))
    assert plaintext(result).text == text


def test_more_than_999_parts_are_refused() -> None:
    frame = len("[MEDCRYPT:v2:wP/uASNFZ4k:2026-11:p:1.999.3q2+7w:AQEBAQEBAQEBAQH+::/wryqZ6LW3unXxSLymhb4A]")
    full = sum((4000 - frame + 1 - len(str(i))) * 3 // 4 for i in range(1, 1000))
    assert len(patient.split("a" * full)) == 999
    with pytest.raises(Problem) as caught:
        patient.split("a" * (full + 1))
    assert caught.value.code == patient.REFUSED


MONTH_RULES = [
    # now, month, archive, read?
    ("2027-01-07 23:59:59", "2026-12", False, True),
    ("2027-01-08 00:00:00", "2026-12", False, False),
    ("2027-01-08 00:00:00", "2026-12", True, True),
    ("2027-01-01 00:00:00", "2026-11", False, False),
    ("2027-01-01 00:00:00", "2026-11", True, True),
    ("2026-12-30 23:59:59", "2027-01", False, False),
    ("2026-12-31 00:00:00", "2027-01", False, True),
    ("2026-12-31 00:00:00", "2027-02", True, False),
]


@pytest.mark.parametrize(("now", "month", "archive", "readable"), MONTH_RULES)
def test_month_rules(now: str, month: str, archive: bool, readable: bool) -> None:
    state = paired()
    [result] = patient.read(state, doctor(month, "hello"), at(now), archive)
    if readable:
        assert plaintext(result).text == "hello"
    else:
        assert problem(result).code == patient.REFUSED
    assert state.month == Month.of(at(now))
    assert max(state.message_keys) == Month.of(at(now)), "a month to come is stored"
    assert max(state.seen, default=state.month) <= state.month


def test_month_before_the_pairing_has_no_key() -> None:
    wire = patient.seal(SECRET, PAIRING, Month.parse("2026-10"), "d", "1.1", b"x", bytes(12))
    [result] = patient.read(paired(), wire, at("2026-11-03"), archive=True)
    assert problem(result).code == patient.REFUSED


def test_seen_before_and_nonce_reuse() -> None:
    state, nonce = paired(), bytes(range(12))
    first, second = doctor("2026-11", "2 mg", nonce=nonce), doctor("2026-11", "9 mg", nonce=nonce)
    now = at("2026-11-25")
    assert plaintext(patient.read(state, first, now)[0]).notes == ""
    assert plaintext(patient.read(state, first, now)[0]).notes == ", seen before"
    reused = problem(patient.read(state, second, now)[0])
    assert (reused.code, "nonce" in reused.what) == (patient.REFUSED, True)
    forged = problem(patient.read(state, second[:-2] + ("A]" if second[-2] != "A" else "Q]"), now)[0])
    assert forged.code == patient.NOT_AUTHENTIC
    both = patient.read(paired(), first + second, now)
    assert [type(one) for one in both] == [Plaintext, Problem]


def test_every_flipped_character_is_caught() -> None:
    wire = doctor("2026-11", "take one")
    for position, character in enumerate(wire):
        changed = wire[:position] + ("A" if character != "A" else "B") + wire[position + 1 :]
        try:
            results = patient.read(paired(), changed, at("2026-11-25"))
        except Problem:
            continue  # nothing that looks like a message is left
        assert [type(one) for one in results] == [Problem], position


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0), (0, 2, 0, 1, 2)])
def test_parts_in_any_order(order: tuple[int, ...]) -> None:
    parts = doctor_parts("2026-11", "one, ", "two, ", "three")
    text = " chat ".join(parts[i] for i in order)
    [result] = patient.read(paired(), text, at("2026-11-25"))
    assert plaintext(result).text == "one, two, three"


def test_a_character_may_lie_across_parts() -> None:
    raw = "€".encode()
    text = doctor("2026-11", raw[:1], "1.2.3q2+7w") + doctor("2026-11", raw[1:], "2.2.3q2+7w")
    assert plaintext(patient.read(paired(), text, at("2026-11-25"))[0]).text == "€"


def test_a_part_twice_with_other_bytes_is_malformed() -> None:
    parts = doctor_parts("2026-11", "take ", "two")
    text = "".join(parts) + doctor("2026-11", "nine", "2.2.3q2+7w")
    [result] = patient.read(paired(), text, at("2026-11-25"))
    assert problem(result).code == patient.NOT_AUTHENTIC


def test_payload_life() -> None:
    payload = patient.parse_payload(CHAIN["payload"])
    payload.check_fresh(payload.expires - timedelta(seconds=1))
    for moment in (payload.expires, payload.expires - timedelta(days=1, minutes=16)):
        with pytest.raises(Problem) as caught:
            payload.check_fresh(moment)
        assert caught.value.code == patient.REFUSED


def test_secrets_have_no_repr() -> None:
    state = paired()
    shown = repr(state) + repr(patient.parse_payload(CHAIN["payload"]))
    assert repr(SECRET)[2:10] not in shown
    assert state.check_code not in shown


# --- The commands ---


def test_conversation(phone: Phone) -> None:
    wire = phone.run("2026-11-23 10:00:00", "write", stdin="Boli mnie głowa.")
    assert (wire.returncode, wire.stderr) == (0, "")
    assert wire.stdout.startswith("[MEDCRYPT:v2:wP/uASNFZ4k:2026-11:p:1.1:")
    assert doctor_reads(wire.stdout) == "Boli mnie głowa."
    answer = phone.run("2026-11-23 11:00:00", "read", stdin=f"Doctor, 10:59\n{doctor('2026-11', 'Od kiedy?')}\n")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "Od kiedy?", "from the doctor, 2026-11\n")
    again = phone.run("2026-11-23 11:00:00", "read", "--quiet", stdin=wire.stdout)
    assert (again.returncode, again.stdout, again.stderr) == (0, "Boli mnie głowa.", "")
    assert phone.run("2030-01-01 00:00:00", "code").stdout == f"check code: {CHAIN['check_code']}\n"


def test_several_messages_have_headers(phone: Phone) -> None:
    text = doctor("2026-11", "eins") + "[MEDCRYPT:v2:nonsense]" + doctor("2026-11", "zwei")
    done = phone.run("2026-11-23 10:00:00", "read", stdin=text)
    assert done.returncode == patient.NOT_AUTHENTIC
    assert done.stdout == (
        "== message 1 of 3: from the doctor, 2026-11, 4 bytes ==\neins\n"
        "== message 3 of 3: from the doctor, 2026-11, 4 bytes ==\nzwei\n"
    )
    assert done.stderr.startswith("error: message 2 of 3: malformed")


def test_files_instead_of_stdin(tmp_path: Path) -> None:
    phone, file = Phone(tmp_path), tmp_path / "input"
    file.write_text(CHAIN["payload"])
    assert phone.run(PAIRED, "pair", str(file)).returncode == 0
    file.write_text("hello\n")
    wire = phone.run(PAIRED, "write", str(file)).stdout
    file.write_text(wire)
    assert phone.run(PAIRED, "read", str(file)).stdout == "hello\n"


def test_expired_payload(tmp_path: Path) -> None:
    phone = Phone(tmp_path)
    done = phone.run("2026-11-22 18:45:01", "pair", stdin=CHAIN["payload"])
    assert (done.returncode, done.stdout) == (patient.REFUSED, "")
    assert "expired" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_state_is_not_overwritten(phone: Phone) -> None:
    before = phone.state.read_bytes()
    assert phone.run(PAIRED, "pair", stdin=CHAIN["payload"]).returncode == patient.REFUSED
    assert phone.state.read_bytes() == before


@pytest.mark.parametrize("passphrase", ["wrong horse battery", "", None])
def test_wrong_or_missing_passphrase(phone: Phone, passphrase: str | None) -> None:
    before = phone.state.read_bytes()
    for name in ("code", "write", "read"):
        done = phone.run(PAIRED, name, stdin="hello", passphrase=passphrase)
        assert (done.returncode, done.stdout) == (patient.PASSPHRASE, "")
    assert phone.state.read_bytes() == before


def test_short_passphrase_makes_no_state(tmp_path: Path) -> None:
    phone = Phone(tmp_path)
    done = phone.run(PAIRED, "pair", stdin=CHAIN["payload"], passphrase="1234")
    assert done.returncode == patient.PASSPHRASE
    assert not phone.state.exists()


def test_without_terminal_the_message_is_not_taken_for_the_passphrase(phone: Phone) -> None:
    command = [sys.executable, str(SCRIPT), "write", str(phone.state)]
    done = subprocess.run(command, input=PASSPHRASE, text=True, capture_output=True, start_new_session=True, timeout=60)
    assert done.returncode == patient.PASSPHRASE
    assert PASSPHRASE not in done.stdout + done.stderr


def test_missing_parts_are_said_and_nothing_is_shown(phone: Phone) -> None:
    parts = doctor_parts("2026-11", "take ", "none ", "of ", "them")
    done = phone.run(PAIRED, "read", stdin=parts[3] + parts[0])
    assert (done.returncode, done.stdout) == (patient.REFUSED, "")
    assert "missing of its 4 parts: 2, 3" in done.stderr
    done = phone.run(PAIRED, "read", stdin="".join(reversed(parts)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "take none of them", "from the doctor, 2026-11\n")


def test_months_pass(phone: Phone) -> None:
    """Away over a year's end: every month between can be read back, no old chain key is left, the clock may not
    go back."""
    old = doctor("2026-12", "Wesołych Świąt")
    wire = phone.run("2027-02-10 10:00:00", "write", "--to", "2027-02", stdin="I am back")
    assert ":2027-02:p:1.1:" in wire.stdout
    assert doctor_reads(wire.stdout) == "I am back"
    assert phone.run("2027-02-10 10:00:00", "read", stdin=old).returncode == patient.REFUSED
    archive = phone.run("2027-02-10 10:00:00", "read", "--archive", stdin=old)
    assert (archive.returncode, archive.stdout) == (0, "Wesołych Świąt")
    assert archive.stderr == "from the doctor, 2026-12, archive\n"
    back = phone.run("2027-01-31 20:00:00", "write", stdin="too early")
    assert (back.returncode, back.stdout) == (patient.REFUSED, "")
    _, state = patient.StateFile.load(phone.state, PASSPHRASE)
    assert state.chain_key.hex() == CHAIN["months"][3]["chain_key_hex"]
    assert [key.hex() for key in state.message_keys.values()] == [m["message_key_hex"] for m in CHAIN["months"]]


def test_seen_survives_the_process(phone: Phone) -> None:
    wire = doctor("2026-11", "take one")
    assert phone.run(PAIRED, "read", stdin=wire).stderr == "from the doctor, 2026-11\n"
    assert phone.run(PAIRED, "read", stdin=wire).stderr == "from the doctor, 2026-11, seen before\n"


def test_state_file_is_private_and_sealed(phone: Phone, tmp_path: Path) -> None:
    phone.run(PAIRED, "write", stdin="a secret text")
    phone.run(PAIRED, "read", stdin=doctor("2026-11", "another"))
    raw = phone.state.read_bytes()
    assert phone.state.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state"]
    key = doctor_key("2026-11")
    for secret in (SECRET, key, PAIRING):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:10]):
            assert form not in raw
    for text in (CHAIN["check_code"], "2026-11", "secret text", "another", PASSPHRASE):
        assert text.encode() not in raw


@pytest.mark.parametrize("position", [0, 20, 60, 100, 130, -1])
def test_altered_state_file(phone: Phone, position: int) -> None:
    raw = bytearray(phone.state.read_bytes())
    raw[position] ^= 1
    phone.state.write_bytes(raw)
    done = phone.run(PAIRED, "code")
    assert (done.returncode, done.stdout) in [(patient.PASSPHRASE, ""), (patient.NOT_AUTHENTIC, "")]


HOSTILE = "\x1b[2Jpaid\x07\n== message 2 of 2: from the doctor ==\n\u202egnp.exe\u2066\x9b31m\u2028👩\u200d⚕️"


def test_hostile_plaintext_is_exact_in_a_pipe(phone: Phone) -> None:
    assert phone.run(PAIRED, "read", stdin=doctor("2026-11", HOSTILE)).stdout == HOSTILE


def test_hostile_plaintext_is_harmless_on_a_terminal(phone: Phone) -> None:
    master, slave = pty.openpty()
    try:
        wire = doctor("2026-11", HOSTILE).encode()
        subprocess.run(
            phone.command("read"), input=wire, stdout=slave, env=phone.env(PAIRED, PASSPHRASE), check=True, timeout=60
        )
        shown = os.read(master, 10_000).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert shown.splitlines() == [
        f"== message 1 of 1: from the doctor, 2026-11, {len(HOSTILE.encode())} bytes ==",
        "| \\x1b[2Jpaid\\x07",
        "| == message 2 of 2: from the doctor ==",
        "| \\u202egnp.exe\\u2066\\x9b31m\\u2028👩\u200d⚕️",
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (["write"], "", patient.USAGE),
        (["write"], b"\xff", patient.USAGE),
        (["write", "/nonexistent/file"], "", patient.USAGE),
        (["read"], "no message here", patient.NOT_AUTHENTIC),
        (["read"], CHAIN["message"]["wire"].replace("2027-01:d:", "2026-11:p:"), patient.NOT_AUTHENTIC),
        (["read"], doctor("2026-11", b"\xff\xfe", nonce=bytes(12)), patient.NOT_AUTHENTIC),
        (["read"], "[MEDCRYPT:v1:RVhQLTAwNDE3:XV3UL4Bi9BrIve5n:FfI=:OIkSHxfWszOufH/PSgIs6Q==]", patient.REFUSED),
        (["read"], WIRE[0]["wire"].replace("wP/u", "AAAA"), patient.REFUSED),
        (["read", "--nonsense"], "", patient.USAGE),
        (["write", "--archive"], "x", patient.USAGE),
        (["write", "--to", "2026-13"], "x", patient.USAGE),
        (["code", "--to", "2026-11"], "", patient.USAGE),
        (["pair", "--to", "2026-11"], "", patient.USAGE),
        (["code", "file"], "", patient.USAGE),
        (["shred"], "", patient.USAGE),
    ],
)
def test_exit_codes(phone: Phone, arguments: list[str], stdin: str | bytes, code: int) -> None:
    done = phone.run(PAIRED, *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, "")


def test_no_state(tmp_path: Path) -> None:
    assert Phone(tmp_path).run(PAIRED, "code").returncode == patient.USAGE
    assert Phone(tmp_path / "nowhere").run(PAIRED, "pair", stdin=CHAIN["payload"]).returncode == patient.USAGE
