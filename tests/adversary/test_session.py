"""The agent of a session, spoken to by a program of the same user that means no good.

Frames as they came to the agent before this one, frames of another form, mutations of honest ones, and sequences of
honest ones that want more than they may: whatever comes, the connection ends or an error of the program's own is
answered, nothing is done without its entry, and the session goes on for the doctor.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.session import client, frames, place
from medcrypt_hsm.session.frames import encode
from medcrypt_hsm.session.requests import FORMS
from medcrypt_hsm.version import VERSION
from tests.support.checkout import ROOT
from tests.support.clinic import V2_PATIENT, Clinic
from tests.support.session_desk import NOBODY, Desk, as_user

HELLO = encode(frames.HELLO, {"version": frames.VERSION, "program": VERSION})


@pytest.fixture
def desk(clinic: Clinic) -> Iterator[Desk]:
    made = Desk(clinic.run, clinic.vault)
    made.start()
    yield made
    made.lock()


def said(desk: Desk, data: bytes, *, fds: tuple[int, ...] = ()) -> list[tuple[int, Any]]:
    """Every frame that is answered to these bytes, until the agent hangs up or has no more to say."""
    connection = place.find(str(desk.vault))
    assert connection is not None
    answers: list[tuple[int, Any]] = []
    with connection:
        connection.settimeout(20)
        try:
            if fds:
                data = data[socket.send_fds(connection, [data], list(fds)) :]
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while (frame := frames.receive(connection, frames.ANSWERS)) is not None:
                answers.append(frame[:2])
        except (ConnectionError, frames.ProtocolError):
            pass
    return answers


def after_hello(desk: Desk, data: bytes, **more: Any) -> list[tuple[int, Any]]:
    """The same, greeted first."""
    answers = said(desk, HELLO + data, **more)
    return answers[1:]


def old(op: int, *fields: bytes) -> bytes:
    """A frame as the agent before this one took it: an operation on a token."""
    payload = bytes((op,)) + b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return len(payload).to_bytes(4, "big") + payload


def entries(desk: Desk) -> int:
    return int(json.loads(desk.run("--json", "status").stdout)["entries"])


def test_no_frame_of_the_old_agent_means_anything(desk: Desk) -> None:
    before = entries(desk)
    key = b"medcrypt audit"
    for number in range(1, 99):
        for fields in ((), (b"1",), (key, b"x" * 32), (b"\0\0\0\1", b"n" * 12, b"text", b""), (key, b"k" * 40, b"i")):
            assert after_hello(desk, old(number, *fields)) == []
    assert entries(desk) == before
    assert desk("encrypt", V2_PATIENT, stdin="Hola").returncode == 0


def test_what_has_another_form_is_hung_up_on(desk: Desk) -> None:
    before = entries(desk)
    honest: dict[str, Any] = {"patient": V2_PATIENT, "text": "Hola"}
    wire = {"texts": ["[MEDCRYPT:v2:x]"], "archive": False, "month": None}
    wrong: list[tuple[int, dict[str, Any]]] = [
        (frames.ENCRYPT, {}),
        (frames.ENCRYPT, {**honest, "nonce": "00" * 12}),
        (frames.ENCRYPT, {**honest, "entry": "made up"}),
        (frames.ENCRYPT, {**honest, "actor": "dr.garcia"}),
        (frames.ENCRYPT, {**honest, "text": 5}),
        (frames.ENCRYPT, {**honest, "patient": None}),
        (frames.ENCRYPT, {**honest, "text": "\ud800"}),
        (frames.DECRYPT, {**wire, "texts": []}),
        (frames.DECRYPT, {**wire, "texts": ["not a wire text"]}),
        (frames.DECRYPT, {**wire, "texts": ["[MEDCRYPT:v2:x] [MEDCRYPT:v2:y]"]}),
        (frames.DECRYPT, {**wire, "texts": [["[MEDCRYPT:v2:x]"]]}),
        (frames.DECRYPT, {**wire, "archive": 1}),
        (frames.DECRYPT, {**wire, "month": "2026-13"}),
        (frames.DECRYPT, {**wire, "texts": ["[MEDCRYPT:v2:x]"] * (frames.TEXTS + 1)}),
        (frames.LOG, {"filter": {"sequence": "1"}}),
        (frames.EXPORT, {"filter": {}, "format": "exe", "name": "x"}),
        (frames.MORE, {}),
        (frames.KEPT, {}),
        (frames.SEND_FILE, {"patient": V2_PATIENT, "name": "no descriptors"}),
        (frames.DONE, {}),
        (frames.BEGIN, {}),
        (frames.HELLO, {"version": frames.VERSION, "program": VERSION}),
    ]
    for kind, asked in wrong:
        data = json.dumps(asked).encode()
        frame = (len(data) + 1).to_bytes(4, "big") + bytes((kind,)) + data
        answers = after_hello(desk, frame)
        assert [answer for answer, _ in answers if answer == frames.DONE] == [], (kind, asked)
    assert said(desk, encode(frames.PATIENTS)) == [], "nothing before the greeting"
    for raw in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\3\x18[]", b"\0\0\0\1\x18"):
        assert after_hello(desk, raw) == []
    twice = b'{"patient":"EXP-00417","text":"a","text":"b"}'
    assert after_hello(desk, (len(twice) + 1).to_bytes(4, "big") + bytes((frames.ENCRYPT,)) + twice) == []
    assert entries(desk) == before


def test_mutations_of_honest_requests_do_nothing_unrecorded(desk: Desk) -> None:
    """Random ones, by a seed that is said where it fails."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    text = desk("encrypt", V2_PATIENT, stdin="Hola").stdout.strip()
    honest = [
        encode(frames.ENCRYPT, {"patient": V2_PATIENT, "text": "Hola"}),
        encode(frames.DECRYPT, {"texts": [text], "archive": False, "month": None}),
        encode(frames.PATIENT, {"patient": V2_PATIENT}),
        encode(frames.LOG, {"filter": {}}),
    ]
    for _ in range(300):
        frame = bytearray(chance.choice(honest))
        for _ in range(chance.randrange(1, 4)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        if frame[4] == frames.LOCK:  # which every program of this user may say
            continue
        before = entries_in(desk)
        done = [kind for kind, _ in after_hello(desk, bytes(frame))].count(frames.DONE)
        assert entries_in(desk) - before >= done, seed
    assert desk("decrypt", stdin=text).stdout == "Hola", seed
    desk("audit", "verify")


def entries_in(desk: Desk) -> int:
    from tests.support.store import select

    return int(select(desk.vault, "SELECT max(sequence) FROM entries")[0][0])


def test_every_operation_that_gives_something_leaves_its_entry(desk: Desk) -> None:
    text = desk("encrypt", V2_PATIENT, stdin="Hola").stdout.strip()
    for kind, asked in (
        (frames.ENCRYPT, {"patient": V2_PATIENT, "text": "Hola"}),
        (frames.DECRYPT, {"texts": [text], "archive": False, "month": None}),
        (frames.PATIENTS, {}),
        (frames.PATIENT, {"patient": V2_PATIENT}),
        (frames.LOG, {"filter": {}}),
    ):
        before = entries_in(desk)
        answers = after_hello(desk, encode(kind, asked))
        assert answers[-1][0] == frames.DONE
        assert entries_in(desk) == before + 1, kind


def test_two_texts_never_share_a_nonce_and_no_answer_holds_a_key(desk: Desk) -> None:
    nonces = set()
    for _ in range(50):
        ((_, answer),) = after_hello(desk, encode(frames.ENCRYPT, {"patient": V2_PATIENT, "text": "Hola"}))
        nonces.add(answer["messages"][0].split(":")[6])
    assert len(nonces) == 50
    given = set()
    for kind in (frames.PATIENTS, frames.VAULT, frames.CHECKPOINT):
        for _, answer in after_hello(desk, encode(kind)):
            given |= set(json.dumps(answer).split('"'))
    assert not {"key", "nonce", "signature", "handle", "secret", "payload"} & given


def test_what_the_session_was_not_started_for_is_refused(desk: Desk) -> None:
    text = desk("encrypt", V2_PATIENT, stdin="Hola").stdout.strip()
    before = entries_in(desk)
    for kind, asked in (
        (frames.DECRYPT, {"texts": [text], "archive": True, "month": None}),
        (frames.DECRYPT, {"texts": [text], "archive": False, "month": "2025-01"}),
        (frames.IMPORT, {"texts": [text], "dates": [[None, None]], "month": None}),
        (frames.EXPORT, {"filter": {}, "format": "jsonl", "name": "x"}),
    ):
        ((answered, error),) = after_hello(desk, encode(kind, asked))
        assert (answered, error["error"]) == (frames.ERROR, "UsageError")
    for kind in (frames.QR, frames.REPAIR):  # a token of many programs: the commands open it themselves
        ((answered, error),) = after_hello(desk, encode(kind, {"pin": "1234", "patient": V2_PATIENT}))
        assert (answered, error["error"]) == (frames.ERROR, "TokenError")
    assert entries_in(desk) == before


def test_one_connection_has_no_part_in_anothers_pages(desk: Desk) -> None:
    with client.find(str(desk.vault)) or pytest.fail("no session") as first:
        first.ask(frames.LOG, {"filter": {}})
        assert after_hello(desk, encode(frames.MORE)) == []


ELSEWHERE = """
import sys
from medcrypt_hsm.session import client, frames
from medcrypt_hsm.errors import MedcryptError
line = client.find(sys.argv[1])
print(line.serves)
try:
    line.ask(frames.PATIENTS)
    print("served")
except MedcryptError as exc:
    print(exc.name)
"""


def test_another_terminal_gets_nothing_whatever_it_says(desk: Desk) -> None:
    before = entries_in(desk)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(desk.vault)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "session-ended"]
    assert entries_in(desk) == before


def test_other_users_and_root_get_nothing(finished_clinic: Clinic, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test runs as root, and becomes another user")
    desk = Desk(finished_clinic.run, finished_clinic.vault)
    made = place.claim(str(tmp_path / "vault.db"))
    assert isinstance(made, place.Place)
    made.close()
    tried = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    refused = subprocess.run(
        as_user(NOBODY, "/usr/bin/python3", "-c", tried, f"{desk.vault}-session/socket"), capture_output=True, text=True
    )
    assert refused.returncode != 0


def test_the_vaults_own_file_as_a_descriptor_ends_the_session(desk: Desk, tmp_path: Path) -> None:
    process = desk.process
    source, target = os.open(desk.vault, os.O_RDONLY), os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    asked = encode(frames.SEND_FILE, {"patient": V2_PATIENT, "name": "vault.db"})
    try:
        assert after_hello(desk, asked, fds=(source, target)) == []
    finally:
        os.close(source)
        os.close(target)
    desk.wait_for_end(6, process)
    desk.run("audit", "verify")


def test_every_request_has_a_form_and_a_bound() -> None:
    assert set(FORMS) == set(frames.REQUESTS)
