"""Files over a session: two descriptors, whole or nothing, and a log that says what became of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from medcrypt_hsm.session import frames, place
from medcrypt_hsm.session.frames import encode
from medcrypt_hsm.session.transfer import is_of_vault
from medcrypt_hsm.version import VERSION
from tests.support.clinic import V2_PATIENT, Clinic
from tests.support.session_desk import Desk, wait


@pytest.fixture
def desk(clinic: Clinic) -> Iterator[Desk]:
    made = Desk(clinic.run, clinic.vault)
    made.start()
    yield made
    made.lock()


def begun(desk: Desk, source: int, target: int) -> socket.socket:
    """A connection that has asked for a file to be encrypted, and has not heard of it yet."""
    connection = place.find(str(desk.vault))
    assert connection is not None
    connection.sendall(encode(frames.HELLO, {"version": frames.VERSION, "program": VERSION}))
    assert frames.receive(connection, frames.ANSWERS) is not None
    asked = encode(frames.SEND_FILE, {"patient": V2_PATIENT, "name": "foto.jpg"})
    socket.send_fds(connection, [asked], [source, target])
    return connection


def actions(desk: Desk) -> list[tuple[str, str]]:
    return [(entry["action"], entry["outcome"]) for entry in desk.entries()]


def test_there_and_back(desk: Desk, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "foto.jpg").write_bytes(content)
    (tmp_path / "out").mkdir()
    desk("encrypt-file", V2_PATIENT, tmp_path / "foto.jpg", tmp_path / "foto.mcf")
    desk("decrypt-file", tmp_path / "foto.mcf", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "foto.jpg").read_bytes() == content
    assert desk.status["operations"] == {"encrypt-file": 1, "decrypt-file": 1}


def test_a_command_that_goes_away_leaves_it_in_the_log(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "foto.jpg").write_bytes(b"x" * 100_000)
    source, target = os.open(tmp_path / "foto.jpg", os.O_RDONLY), os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    connection = begun(desk, source, target)
    told = frames.receive(connection, frames.ANSWERS)
    assert told is not None
    assert (told[0], told[1]["name"]) == (frames.SOME, "foto.jpg")
    connection.close()  # and never says that it kept the file
    os.close(source)
    os.close(target)
    wait(lambda: desk.status["operations"] == {"encrypt-file": 1}, 20)
    assert actions(desk)[-3:-1] == [("message.encrypt", "done"), ("message.failed", "failed")]


@pytest.mark.parametrize(
    "wrong", ["a pipe to read", "a file with something in it", "open to be read", "the same twice"]
)
def test_other_descriptors_are_refused(desk: Desk, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "foto.jpg").write_bytes(b"x" * 100)
    (tmp_path / "new").touch()
    source, target = os.open(tmp_path / "foto.jpg", os.O_RDONLY), os.open(tmp_path / "new", os.O_WRONLY)
    pipe: tuple[int, ...] = ()
    if wrong == "a pipe to read":
        os.close(source)
        source, *rest = os.pipe()
        pipe = tuple(rest)
    elif wrong == "a file with something in it":
        (tmp_path / "new").write_bytes(b"important")
    elif wrong == "open to be read":
        os.close(target)
        target = os.open(tmp_path / "new", os.O_RDWR)
    else:
        os.close(target)
        target = os.open(tmp_path / "foto.jpg", os.O_WRONLY)
    with begun(desk, source, target) as connection:
        answer = frames.receive(connection, frames.ANSWERS)
        assert answer is not None
        assert (answer[0], answer[1]["error"]) == (frames.ERROR, "UsageError")
    for fd in (source, target, *pipe):
        os.close(fd)
    assert ("message.encrypt", "done") not in actions(desk)


def test_the_vaults_files_and_the_sessions_lock_are_known(desk: Desk, tmp_path: Path) -> None:
    vault = str(desk.vault)
    for path in (vault, place.lock_of(vault)):
        fd = os.open(path, os.O_RDONLY)
        assert is_of_vault(fd, vault), path
        os.close(fd)
    fd = os.open(tmp_path / "foto.jpg", os.O_RDONLY | os.O_CREAT)
    assert not is_of_vault(fd, vault)
    os.close(fd)
