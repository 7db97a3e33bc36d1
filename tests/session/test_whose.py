"""Whose process it is, and in which terminal: by the kernel, for processes that would rather be another's.

Real processes, terminals and process numbers that are used again.
"""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medcrypt_hsm.session import place
from medcrypt_hsm.session.whose import UNKNOWN, Peer, Terminal
from tests.support.checkout import ROOT
from tests.support.session_desk import NOBODY, alive, as_user, wait

CONNECTS = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""
LOOKS = """
import socket, sys
from medcrypt_hsm.session.whose import Peer
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("listens", flush=True)
peer = Peer.of_socket(listening.accept()[0])
print(peer.pid, peer.uid, peer.program, *peer.terminal, peer.terminal.is_known, peer.stays(), flush=True)
"""


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        made.listen()
        yield made


def connecting(listening: socket.socket, *prefix: str) -> subprocess.Popen[str]:
    """A process that connects, and stays until its standard input ends."""
    made = subprocess.Popen(
        [*prefix, sys.executable, "-c", CONNECTS, listening.getsockname()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "connected\n"
    return made


@contextmanager
def accepted(listening: socket.socket, *prefix: str) -> Iterator[tuple[subprocess.Popen[str], Peer]]:
    process = connecting(listening, *prefix)
    connection, _ = listening.accept()
    with connection:
        peer = Peer.of_socket(connection)
        try:
            yield process, peer
        finally:
            peer.close()
            process.kill()
            process.communicate(timeout=5)


def in_terminal(listening: socket.socket) -> tuple[int, int]:
    """A process in a terminal of its own that connects, and stays; its number and the terminal's other end."""
    pid, terminal = pty.fork()
    if pid == 0:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(listening.getsockname())
            signal.pause()
    return pid, terminal


# Terminals


def test_processes_of_one_terminal_are_in_the_same(listening: socket.socket) -> None:
    here = Terminal.of_process(os.getpid())
    with accepted(listening) as (process, peer):
        assert (peer.pid, peer.uid, peer.terminal.leader) == (process.pid, os.geteuid(), os.getsid(0))
        assert peer.terminal.is_same(here)
        assert peer.stays()


def test_another_posix_session_is_another_terminal(listening: socket.socket) -> None:
    here = Terminal.of_process(os.getpid())
    with accepted(listening, "setsid", "--wait") as (_, peer):
        assert peer.terminal.tty == 0
        assert peer.terminal.is_known
        assert not peer.terminal.is_same(here)


def test_each_pseudo_terminal_is_its_own(listening: socket.socket) -> None:
    made = []
    for _ in range(2):
        pid, terminal = in_terminal(listening)
        connection, _ = listening.accept()
        with connection:
            made.append((pid, terminal, Peer.of_socket(connection)))
    (_, _, first), (_, _, second) = made
    assert first.terminal.leader == made[0][0]
    assert first.terminal.tty
    assert second.terminal.tty
    assert not first.terminal.is_same(second.terminal)
    for pid, terminal, peer in made:
        assert peer.stays()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
        assert not peer.stays()
        peer.close()


def test_a_terminal_whose_leader_has_ended_is_nobodys(listening: socket.socket) -> None:
    """The next leader with that number, ended too, would look the same; and both without a terminal."""
    started = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; exec(sys.stdin.readline().encode().decode('unicode_escape'))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdin is not None
    assert started.stdout is not None
    program = "pid = os.fork()\nif pid:\n    os._exit(0)\nprint(os.getpid(), flush=True)\nsys.stdin.readline()\n"
    started.stdin.write(program.encode("unicode_escape").decode() + "\n")
    started.stdin.flush()
    left = int(started.stdout.readline())
    wait(lambda: ") Z" in Path(f"/proc/{started.pid}/stat").read_text(), 5)  # ended, and not waited for
    zombie = Terminal.of_process(left)
    assert (zombie.leader, zombie.started) == (started.pid, "")
    started.wait(5)
    gone = Terminal.of_process(left)
    assert (gone.leader, gone.started) == (started.pid, "")
    assert not gone.is_known
    assert not gone.is_same(Terminal.of_process(left))
    started.stdin.write("\n")
    started.stdin.close()
    started.stdout.close()


def test_a_process_that_leaves_its_terminal_does_not_stay() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)  # so that it ends with this test
        mine, _ = socket.socketpair()  # made by this process, so that it is at the other end of what it sends
        socket.send_fds(theirs, [b"x"], [mine.fileno()])
        os.read(read, 1)
        os.setsid()
        os.write(tell, b"x")
        os.read(read, 1)
        os._exit(0)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    with ours, theirs, socket.socket(fileno=fds[0]) as connection:
        peer = Peer.of_socket(connection)
        assert (peer.pid, peer.stays()) == (pid, True)
        os.write(write, b"x")
        os.read(told, 1)
        assert not peer.stays()
        os.write(write, b"x")
        os.waitpid(pid, 0)
        peer.close()
    for fd in (read, write, told, tell):
        os.close(fd)


def test_a_name_may_hold_anything() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        Path("/proc/self/comm").write_bytes(b") R 1 1 1 \x1b[2J\xff")
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    assert Terminal.of_process(pid) == Terminal.of_process(os.getpid())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


# Numbers that are used again, sockets that are handed on


def test_a_socket_that_was_handed_on_is_its_makers(listening: socket.socket) -> None:
    """The process that connected is in another terminal and has ended; its child, here, holds the socket."""
    program = (
        "import os, socket, sys, time\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.connect(sys.argv[1])\n"
        "if os.fork():\n    os._exit(0)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, listening.getsockname()], stdin=subprocess.PIPE, text=True
    )
    connection, _ = listening.accept()
    process.wait(5)
    with connection, pytest.raises(ProcessLookupError):
        Peer.of_socket(connection)
    assert process.stdin is not None
    process.stdin.close()


REUSED = """
import os, signal, socket, sys
from pathlib import Path
from medcrypt_hsm.session.whose import Peer

Path("/proc/sys/kernel/ns_last_pid").write_text("299")
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
child = os.fork()
if child == 0:  # another terminal's: it connects, hands the socket to a child of its own, and ends
    os.setsid()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()  # a session keeps its leader's number from others
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    os._exit(0)
os.waitpid(child, 0)
Path("/proc/sys/kernel/ns_last_pid").write_text(str(child - 1))
honest = os.fork()
if honest == 0:
    signal.pause()
assert honest == child, (honest, child)
connection, _ = listening.accept()
try:
    print("taken for", Peer.of_socket(connection).pid)
except OSError as exc:
    print(type(exc).__name__)
"""


def test_a_process_that_got_the_number_of_one_that_connected_is_not_taken_for_it(tmp_path: Path) -> None:
    """While the agent is stopped, say: the kernel counts on until the number comes again, here by one's own word."""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", REUSED, tmp_path / "s"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "ProcessLookupError\n"


def test_a_connection_outlives_its_process_and_is_not_served(listening: socket.socket) -> None:
    with accepted(listening) as (process, peer):
        assert peer.stays()
        process.kill()
        wait(lambda: not alive(process.pid), 5)
        assert not peer.stays()


# Other users, other containers


def seen_by(path: Path, looker: list[str], connecter: list[str]) -> list[str]:
    """What one process says of another that connects to it."""
    look = subprocess.Popen(
        [*looker, sys.executable, "-c", LOOKS, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert look.stdout is not None
    assert look.stdout.readline() == "listens\n"
    path.chmod(0o666)
    with subprocess.Popen([*connecter, sys.executable, "-c", CONNECTS, str(path)], stdin=subprocess.PIPE) as process:
        said = look.communicate(timeout=10)[0].split()
        assert process.stdin is not None
        process.stdin.close()
    return said


@pytest.fixture
def meeting() -> Iterator[Path]:
    """A socket's path to which other users may go."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name) / "socket"


def test_another_user_is_who_the_kernel_says(meeting: Path) -> None:
    pid, uid, *_ = seen_by(meeting, [], as_user(NOBODY))
    assert int(pid) > 0
    assert int(uid) == NOBODY


def test_a_process_that_proc_does_not_show_has_no_terminal(meeting: Path) -> None:
    """/proc with hidepid shows a user nothing of another's process: it is in no terminal, and not gone either."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"]
    said = seen_by(meeting, [*hidden, *as_user(NOBODY)], [])
    assert said[1:] == [str(os.geteuid()), "unknown", "0", "0", "False", "True"]


def test_a_process_outside_of_the_container_has_no_terminal(meeting: Path) -> None:
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    said = seen_by(meeting, container, [])
    assert said == ["0", str(os.geteuid()), "unknown", "0", "0", "False", "True"]


def test_a_terminal_that_is_not_known_is_not_the_same_as_itself() -> None:
    assert not UNKNOWN.is_same(UNKNOWN)


def test_the_kernel_here_gives_handles_of_processes(listening: socket.socket) -> None:
    """Linux 6.5: without, a number that is used again within one look is not noticed (docs/spec/session.md)."""
    with accepted(listening) as (process, peer):
        assert peer.handle >= 0
        assert not place.has_ended(peer.handle)
        process.kill()
        wait(lambda: place.has_ended(peer.handle), 5)
    assert not place.has_ended(-1)
