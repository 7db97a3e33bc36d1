"""Where an agent is met: one place beside the vault, held for life, found from everywhere, and by nobody else taken.

Real processes hold it, are stopped and killed; the kernel's answers are not imitated.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medcrypt_hsm.errors import Failed
from medcrypt_hsm.session import client, place
from tests.support.checkout import ROOT
from tests.support.session_desk import NOBODY, alive, as_user, wait

HOLDS = """
import socket, sys, threading
from medcrypt_hsm.session import place
held = place.claim(sys.argv[1])
if isinstance(held, place.Holder):
    print("held by", held.pid, flush=True)
    raise SystemExit
print("holds", flush=True)
for line in sys.stdin:
    if line == "close\\n":
        held.close()
    elif line == "deaf\\n":
        held.stop_listening()
    print(held.is_in_place(), flush=True) if line == "look\\n" else print("done", flush=True)
"""
FINDS = """
import sys
from medcrypt_hsm.errors import Failed
from medcrypt_hsm.session import place
try:
    found = place.find(sys.argv[1])
    print("none" if found is None else place.peer_of(found)[0])
except Failed as exc:
    print(exc.message)
"""


class Other:
    """Another process, which holds a place."""

    def __init__(self, vault: Path, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", HOLDS, str(vault)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()

    @property
    def pid(self) -> int:
        return self.process.pid

    def __call__(self, word: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=5)


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    made = tmp_path / "practice" / "vault.db"
    made.parent.mkdir(mode=0o700)
    made.touch(0o600)
    return made


@contextmanager
def holding(vault: Path, *prefix: str) -> Iterator[Other]:
    other = Other(vault, *prefix)
    try:
        yield other
    finally:
        other.kill()


def found(vault: Path, *prefix: str) -> str:
    """What another process finds, perhaps in surroundings of its own."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", FINDS, str(vault)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def own_namespace(*words: str) -> list[str]:
    """A shell line in a mount namespace of its own, before the command that follows."""
    return ["unshare", "--mount", "sh", "-c", f'{" ".join(words)} && exec "$@"', "sh"]


# Found, and ended


def test_it_is_found_by_whoever_holds_the_lock(vault: Path) -> None:
    assert place.find(str(vault)) is None
    with holding(vault) as other:
        connection = place.find(str(vault))
        assert connection is not None
        with connection:
            assert place.peer_of(connection)[0] == other.pid
        directory = vault.with_name("vault.db-session")
        assert (directory.stat().st_mode & 0o777, sorted(os.listdir(directory))) == (0o700, ["lock", "socket"])
        assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
        other("close")
        assert place.find(str(vault)) is None
        assert not directory.exists()


def test_a_link_another_directory_and_another_environment_lead_to_it(vault: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(vault)
    with holding(vault) as other:
        pid = str(other.pid)
        assert found(link) == pid
        assert found(Path(os.path.relpath(vault, ROOT))) == pid
        assert found(vault, "env", "-i", "HOME=/nonexistent", "XDG_RUNTIME_DIR=/nonexistent") == pid  # cron
        assert found(vault, "setsid", "--wait") == pid  # ssh, su -
        vault.parent.rename(tmp_path / "renamed")
        assert found(tmp_path / "renamed" / "vault.db") == pid
        assert other("look") == "False"


def test_a_bind_mount_leads_to_it_a_read_only_one_too(vault: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    mount = f"mount --bind {vault.parent} {seen}"
    with holding(vault) as other:
        assert found(seen / "vault.db", *own_namespace(mount)) == str(other.pid)
        read_only = own_namespace(mount, "&&", f"mount -o remount,bind,ro {seen}")
        assert found(seen / "vault.db", *read_only) == str(other.pid)


def test_a_path_longer_than_a_sockets_address(tmp_path: Path) -> None:
    vault = tmp_path.joinpath(*["a directory of forty characters, no less"] * 5) / "vault.db"
    vault.parent.mkdir(parents=True)
    with holding(vault) as other:
        assert len(str(vault)) > 200
        assert found(vault) == str(other.pid)


def test_its_process_is_named_when_the_socket_is_gone(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "ENDING", 0.2)
    with holding(vault) as other:
        os.unlink(vault.with_name("vault.db-session") / "socket")
        with pytest.raises(Failed) as told:
            place.find(str(vault))
        assert told.value.message == f"process {other.pid} holds the session of this vault, and is not reached"
        assert told.value.hint == f"end it: 'kill {other.pid}'"
        assert other("look") == "False"


def test_a_stopped_agent_is_named_at_once(vault: Path) -> None:
    with holding(vault) as other:
        os.kill(other.pid, signal.SIGSTOP)
        wait(lambda: ") T" in Path(f"/proc/{other.pid}/stat").read_text(), 5)
        began = time.monotonic()
        for ask in (place.find, client.find, client.status, lambda path: client.lock(path, "lock")):
            with pytest.raises(Failed) as told:
                ask(str(vault))
            assert told.value.message == f"process {other.pid} holds the session of this vault, and is stopped"
            assert f"kill -KILL {other.pid}" in str(told.value.hint)
        assert time.monotonic() - began < 2
        os.kill(other.pid, signal.SIGCONT)
        assert found(vault) == str(other.pid)


def test_one_that_is_stopped_while_it_is_asked_is_named_too(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_END", 0.5)
    monkeypatch.setattr(place, "GREETING", 0.5)
    with holding(vault) as other:  # which listens, and never answers
        for ask in (client.find, lambda path: client.lock(path, "lock")):
            with pytest.raises(Failed, match=f"process {other.pid} holds the session of this vault"):
                ask(str(vault))


# One alone


def test_a_second_never_starts(vault: Path) -> None:
    with holding(vault) as first:
        for _ in range(3):
            with holding(vault) as other:
                assert other.said == f"held by {first.pid}"
        second = place.claim(str(vault))
        assert isinstance(second, place.Holder)
        assert second.pid == first.pid
        first("deaf")
        with holding(vault) as other:
            assert other.said == f"held by {first.pid}"
        first("close")
        with holding(vault) as third:
            assert third.said == "holds"


def test_what_a_killed_one_left_is_taken_over(vault: Path) -> None:
    with holding(vault) as first:
        first.kill()
    assert (vault.with_name("vault.db-session") / "socket").is_socket()
    assert place.find(str(vault)) is None
    with holding(vault) as second:
        assert second.said == "holds"
        assert not place.clear_dead(str(vault))
        assert found(vault) == str(second.pid)
        second.kill()
    assert place.clear_dead(str(vault))
    assert not vault.with_name("vault.db-session").exists()
    assert not place.clear_dead(str(vault))


CONTENDS = """
import os, sys, time
from medcrypt_hsm.session import place
vault, seen, until = sys.argv[1], os.open(sys.argv[2], os.O_RDWR | os.O_APPEND), time.monotonic() + 6
while time.monotonic() < until:
    place.clear_dead(vault)
    held = place.claim(vault)
    if isinstance(held, place.Place):
        os.write(seen, b"+")
        assert held.is_in_place()
        os.write(seen, b"-")
        held.close()
"""


def test_many_that_come_and_go_are_never_two_at_once(vault: Path, tmp_path: Path) -> None:
    """A place that is cleared between another's open and its lock would give each a place of its own."""
    seen = tmp_path / "seen"
    seen.touch()
    command = [sys.executable, "-c", CONTENDS, str(vault), str(seen)]
    many = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    assert [(each.communicate(timeout=30)[1], each.returncode) for each in many] == [("", 0)] * 6
    turns = seen.read_text()
    assert len(turns) > 100
    assert turns == "+-" * (len(turns) // 2)


def test_an_agent_whose_place_was_renamed_removes_nothing_of_the_next(vault: Path, tmp_path: Path) -> None:
    with holding(vault) as first:
        vault.with_name("vault.db-session").rename(tmp_path / "hidden")
        assert first("look") == "False"
        with holding(vault) as second:
            assert second.said == "holds"
            first("close")
            assert found(vault) == str(second.pid)
            assert second("look") == "True"


def test_the_lock_is_known_by_any_name(vault: Path, tmp_path: Path) -> None:
    held = place.claim(str(vault))
    assert isinstance(held, place.Place)
    lock = place.lock_of(str(vault))
    vault.with_name("vault.db-session").rename(tmp_path / "hidden")
    fd = os.open(tmp_path / "hidden" / "lock", os.O_RDONLY)
    assert not os.path.exists(lock)
    assert held.is_lock(fd)
    os.close(fd)
    held.close()


# Planted things


@pytest.mark.parametrize("what", ["a link", "a file", "for others", "lock: a link", "lock: a pipe", "lock: the vault"])
def test_what_was_planted_is_refused_and_said(vault: Path, tmp_path: Path, what: str) -> None:
    directory = vault.with_name("vault.db-session")
    target = tmp_path / "precious"
    target.mkdir(mode=0o700)
    (target / "socket").write_text("a file of the person's")
    (target / "lock").write_text("another")
    if what == "a link":
        directory.symlink_to(target)
    elif what == "a file":
        directory.touch()
    else:
        directory.mkdir(mode=0o755 if what == "for others" else 0o700)
    if what == "lock: a link":
        (directory / "lock").symlink_to(target / "lock")
    elif what == "lock: a pipe":
        os.mkfifo(directory / "lock")
    elif what == "lock: the vault":
        os.link(vault, directory / "lock")
    with pytest.raises(Failed) as refused:
        place.claim(str(vault))
    assert str(directory) in refused.value.message
    assert refused.value.hint
    if what != "for others":  # of this user's making, and empty
        with pytest.raises(Failed) as unknown:
            place.find(str(vault))
        assert str(directory) in unknown.value.message
    assert not place.clear_dead(str(vault))
    assert sorted(os.listdir(target)) == ["lock", "socket"]


def test_a_lock_that_is_the_vault_itself_lets_go_of_none_of_its_locks(vault: Path) -> None:
    """Closing any descriptor of a file drops this process's locks on it: SQLite's, in the middle of a re-key."""
    directory = vault.with_name("vault.db-session")
    directory.mkdir(mode=0o700)
    os.link(vault, directory / "lock")
    with vault.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        for ask in (place.find, place.claim):
            with pytest.raises(Failed):
                ask(str(vault))
        place.clear_dead(str(vault))
        tried = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        done = subprocess.run([sys.executable, "-c", tried, vault], capture_output=True, text=True)
        assert "BlockingIOError" in done.stderr


def test_a_socket_that_another_put_there_is_not_spoken_to(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "ENDING", 0.2)
    path = vault.with_name("vault.db-session") / "socket"
    with holding(vault) as other, socket.socket(socket.AF_UNIX) as impostor:
        path.unlink()
        impostor.bind(str(path))
        impostor.listen()
        with pytest.raises(Failed, match=f"process {other.pid} holds"):
            place.find(str(vault))
        assert other("look") == "False"


def test_a_place_without_sockets_is_said(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.with_name("vault.db-session").mkdir(mode=0o700)
    (vault.with_name("vault.db-session") / "new").mkdir()
    with pytest.raises(Failed, match="no session can have its place in"):
        place.claim(str(vault))


# Other users, other containers


@pytest.fixture
def shared() -> Iterator[Path]:
    """A vault's path to which other users may go."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory / "vault.db"


def test_another_users_session_is_named_at_once(shared: Path) -> None:
    vault = shared
    os.chown(vault.parent, NOBODY, NOBODY)
    with holding(vault, *as_user(NOBODY)) as other:
        assert other.said == "holds"
        began = time.monotonic()
        with pytest.raises(Failed) as told:
            place.find(str(vault))
        assert told.value.message.endswith(f"holds the session of this vault, for another user (uid {NOBODY})")
        assert time.monotonic() - began < 2
        with pytest.raises(Failed, match="not this user's alone"):
            place.claim(str(vault))


def test_where_it_cannot_be_read_that_is_said(shared: Path) -> None:
    assert found(shared, *as_user(NOBODY)) == "none"
    with holding(shared):
        said = found(shared, *as_user(NOBODY))
    assert said.startswith("whether a session runs is not known: ")
    assert said.endswith("vault.db-session cannot be read: Permission denied")


def test_a_container_sees_that_somebody_holds_it(vault: Path) -> None:
    with holding(vault):
        said = found(vault, "unshare", "--pid", "--fork", "--mount-proc")
        assert said.startswith("a session of this vault runs where this command cannot see its process")
        second = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", HOLDS, str(vault)],
            cwd=ROOT,
            input="",
            capture_output=True,
            text=True,
            check=True,
        )
        assert second.stdout.strip() == "held by 0"


def test_an_agent_in_a_container_is_reached_from_outside(vault: Path) -> None:
    with holding(vault, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child") as other:
        assert other.said == "holds"
        inside = int(found(vault))
        assert inside not in (0, other.pid)
        assert alive(inside)
