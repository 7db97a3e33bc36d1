"""A real agent's place: what commands say of an agent that they cannot use, and what ends one that nobody finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medcrypt_hsm.session import client, frames
from tests.support.checkout import ROOT
from tests.support.clinic import V2_PATIENT, Clinic
from tests.support.session_desk import Desk, alive, wait


@pytest.fixture
def desk(clinic: Clinic) -> Iterator[Desk]:
    made = Desk(clinic.run, clinic.vault)
    yield made
    made.lock()


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        wait(lambda: ") T" in Path(f"/proc/{process}/stat").read_text(), 5)
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_stopped_agent_is_named_by_every_command(desk: Desk) -> None:
    process = desk.start()["process"]
    said = f"process {process} holds the session of this vault, and is stopped"
    with stopped(process):
        asked = desk("encrypt", V2_PATIENT, stdin="Hola", code=4)
        assert said in asked.stderr
        assert said in desk.run("encrypt", V2_PATIENT, stdin="Hola").stderr  # with the PIN it is done
        for command in (("session", "status"), ("session", "lock"), ("session", "start")):
            error = desk("--json", *command, code=1).error
            assert (error["message"], error["hint"]) == (
                said,
                f"let it go on: 'kill -CONT {process}'; or end it: 'kill -KILL {process}'",
            )
    assert desk.status["process"] == process


def test_no_key_is_exchanged_while_an_agent_is_stopped(desk: Desk) -> None:
    process = desk.start()["process"]
    with stopped(process):
        error = desk.run("--json", "--yes", "patient", "erase", V2_PATIENT, code=1).error
        assert error["message"] == f"process {process} holds the session of this vault, and is stopped"
    desk.lock()
    assert desk.run("patient", "show", V2_PATIENT).returncode == 0


@pytest.mark.parametrize("what", ["vault.db-session", "vault.db-session/lock", "vault.db-session/socket"])
def test_an_agent_that_nobody_can_find_ends(desk: Desk, what: str) -> None:
    process = desk.start()["process"]
    (desk.vault.parent / what).rename(desk.vault.parent / "hidden")
    wait(lambda: not alive(process), 8)
    assert desk.ends() == ["place"]
    desk.start()
    assert desk("encrypt", V2_PATIENT, stdin="Hola").returncode == 0


def test_a_descriptor_of_the_lock_ends_it_by_whatever_name(desk: Desk, tmp_path: Path) -> None:
    """Closing it would drop the lock: a second agent would begin, and nobody would find the first."""
    process = desk.start()["process"]
    line = client.find(str(desk.vault))
    assert line is not None
    lock = desk.vault.with_name("vault.db-session") / "lock"
    lock.rename(lock.with_name("another"))
    source, target = (
        os.open(lock.with_name("another"), os.O_RDONLY),
        os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT),
    )
    with line, pytest.raises(client.SessionEnded):
        line.ask(frames.SEND_FILE, {"patient": V2_PATIENT, "name": "x"}, fds=(source, target))
    os.close(source)
    os.close(target)
    wait(lambda: not alive(process), 8)
    assert desk.ends() == ["descriptor"]


LEAVES = """
import os, sys
from medcrypt_hsm.session import client, frames
from medcrypt_hsm.errors import MedcryptError
line = client.find(sys.argv[1])
assert line.serves
line.ask(frames.PATIENTS)
if sys.argv[2] == "ends":
    read, write = os.pipe()
    if os.fork():
        os._exit(0)
    os.close(write)
    os.setsid()
    os.read(read, 1)
else:
    if os.fork():
        os.wait()
        os._exit(0)
    os.setsid()
    line.ask(frames.PATIENTS)
    line = client.find(sys.argv[1])
    assert not line.serves
try:
    line.ask(frames.PATIENTS)
    print("served", flush=True)
except MedcryptError as exc:
    print(exc.name, flush=True)
"""


@pytest.mark.parametrize("how", ["ends", "lends it to a child"])
def test_a_connection_is_served_while_its_process_is_there(desk: Desk, how: str) -> None:
    """A process of this terminal that lends its connection answers for it; one that has ended does not."""
    desk.start()
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, str(desk.vault), how], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "session-ended\n"
    assert desk.status["operations"] == {"patient list": 1 if how == "ends" else 2}


def test_no_session_is_started_for_a_terminal_that_is_nobodys(desk: Desk) -> None:
    """What led it has ended: the next that gets its number, and ends, would look the same."""
    start = desk.run.command("--json", "session", "start")
    program = (
        "import os, subprocess, sys, time\n"
        "leader = os.getpid()\n"
        "if os.fork():\n    os._exit(0)\n"
        "while os.getppid() == leader:\n    time.sleep(0.01)\n"
        "subprocess.run(sys.argv[1:])\n"
    )
    for options, said in ((["--anywhere"], '"running": true'), ([], "start the session with --anywhere")):
        done = subprocess.run(
            [sys.executable, "-c", program, *start, *options],
            env=desk.run.environment(),
            start_new_session=True,
            capture_output=True,
            text=True,
        )
        assert said in (done.stdout + done.stderr).replace('"running":true', '"running": true')
        desk.lock()


def test_a_program_names_itself_and_is_shown_without_its_escapes(desk: Desk) -> None:
    desk.start("--anywhere")
    program = (
        "import sys\n"
        "open('/proc/self/comm', 'wb').write(b'\\x1b[2J\\xffx')\n"
        "from medcrypt_hsm.session import client, frames\n"
        "client.find(sys.argv[1]).ask(frames.PATIENTS)\n"
    )
    subprocess.run([sys.executable, "-c", program, desk.vault], cwd=ROOT, start_new_session=True, check=True)
    said = desk("patient", "list").stderr
    assert "1 operations came from elsewhere (" in said
    assert "\x1b" not in said
    assert "\x1b" not in desk("session", "status").stdout
