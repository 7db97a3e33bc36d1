"""The token is pulled while a command runs: code 3, nothing half done, and all is well when it is back."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kills.established import CREATE, DECEMBER, NOVEMBER, PLAINTEXT, WHOLE, Established
from tests.kills.place import Command, Place, Point
from tests.support.softhsm import USER_PIN

ENCRYPT = Command(("encrypt", "EXP-1"), stdin=PLAINTEXT)
ADD = Command(("patient", "add", "NEW-1"))
ROTATE = Command(("rotate",), at=DECEMBER)
BACKUP = Command(("vault", "backup", "@PLACE@/backups/new.db"))
DECRYPT = Command(("--json", "decrypt"), stdin="@WIRES@")
ANCHOR = Command(("audit", "anchor"))
RESTORE = Command(("vault", "restore", "@PLACE@/backups/old.db", "--yes"))


def _name(command: Command) -> str:
    return next(word for word in command.args if not word.startswith("-"))


@pytest.fixture
def place(established: Established, tmp_path: Path) -> Place:
    return established.place.copy_to(tmp_path / "place")


def _run_and_remove_at_the_pin(place: Place, command: Command) -> subprocess.CompletedProcess[bytes]:
    """The PIN comes through a FIFO: opening it is the moment at which the program asks for it."""
    fifo = place.root / "pin"
    os.mkfifo(fifo, 0o600)
    process = subprocess.Popen(
        place.medcrypt.command(*place.arguments(command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=place.medcrypt.environment(command.at, {"MEDCRYPT_PIN_SOURCE": f"file:{fifo}"}),
        cwd=place.root / "home",
    )
    assert process.stdin is not None
    process.stdin.write(command.stdin.encode())
    process.stdin.close()
    process.stdin = None
    writer = _open_when_read(fifo, process)
    with place.token_removed():
        os.write(writer, USER_PIN.encode() + b"\n")
        os.close(writer)
        stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _open_when_read(fifo: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            time.sleep(0.005)
    raise AssertionError(f"it never asked for the PIN: exit {process.poll()}")


@pytest.mark.parametrize(
    "command",
    [ENCRYPT, ADD, ROTATE, BACKUP, ANCHOR, RESTORE],
    ids=_name,
)
def test_removed_while_the_pin_is_typed(place: Place, established: Established, command: Command) -> None:
    before = place.rows("SELECT count(*), max(sequence) FROM entries")
    done = _run_and_remove_at_the_pin(place, command)
    assert done.returncode == 3, done
    assert b"hint: " in done.stderr
    assert done.stdout == b""
    assert place.rows("SELECT count(*), max(sequence) FROM entries") == before
    assert sorted(path.name for path in (place.root / "backups").iterdir()) == ["old.db"]
    place.run(command)
    look = place.look(established.wires, command.at)
    assert look["read"] == established.texts
    assert look["objects_after_anchor"] == WHOLE


def test_removed_before_a_vault_is_made(blank: Place, tmp_path: Path) -> None:
    place = blank.copy_to(tmp_path / "place")
    done = _run_and_remove_at_the_pin(place, CREATE)
    assert done.returncode == 3, done
    place.run(CREATE)
    assert place.look([], NOVEMBER)["objects"] == WHOLE


def _moments(points: list[Point]) -> list[Point]:
    """The end of the login, and some of the vault's own writes after it."""
    login = max(i for i, point in enumerate(points) if point.what.endswith("token.object"))
    own = [p for p in points[login:] if p.what.startswith(("practice", "backups")) and "-shm" not in p.what]
    return [points[login], *own[:: max(1, len(own) // 3)]]


@pytest.mark.parametrize(
    "command",
    [ENCRYPT, DECRYPT, ADD, ROTATE, BACKUP, ANCHOR],
    ids=_name,
)
def test_removed_while_it_works(established: Established, tmp_path: Path, command: Command) -> None:
    """Code 3, or all that needs the token had been done: SoftHSM2 keeps what was unwrapped in its own memory."""
    command = replace(command, stdin=command.stdin.replace("@WIRES@", "\n".join(established.wires)))
    counted = established.place.copy_to(tmp_path / "counted")
    codes = []
    for number, point in enumerate(_moments(counted.points(command))):
        place = established.place.copy_to(tmp_path / str(number))
        with ExitStack() as gone:
            with place.stopped(command, point) as done:
                gone.enter_context(place.token_removed())
            assert done.returncode in (0, 3), f"stopped before {point}: {done}"
            codes.append(done.returncode)
            if done.returncode == 3:
                assert done.stdout == "", f"stopped before {point}: {done}"
                assert "put the token back" in done.stderr
                assert sorted(path.name for path in (place.root / "backups").iterdir()) == ["old.db"]
        look = place.look(established.wires, command.at)
        assert look["entries"][: len(established.entries)] == established.entries
        assert look["read"] == established.texts
        assert look["objects_after_anchor"] == WHOLE
    assert codes[0] == 3, "removed behind the login, and it went on"
