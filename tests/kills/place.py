"""Kills from outside the program: strace stops it at the n-th system call of a kind, and there it dies.

In: a ``Place`` (vault, token and home in one directory, cheap to copy) and a command. Out: every point at which that
command changes a file, by whatever library, and the place as a kill at one of them leaves it. The program has no part
in this: no hook, no variable, no test mode.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.checkout import FULL, ROOT
from tests.support.clock import clock_at
from tests.support.command_line import CommandLine
from tests.support.softhsm import SoftHsm
from tests.support.store import select

CALLS = (
    "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,msync,rename,renameat,renameat2,link,linkat,"
    "symlink,symlinkat,unlink,unlinkat,ftruncate,truncate,fallocate,mkdir,mkdirat,rmdir,copy_file_range,sendfile,"
    "chmod,fchmod,fchmodat"
)
DISK_CALLS = ("pwrite64", "fdatasync", "fsync", "link", "rename")  # of SQLite and the program itself
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
_FAKETIME = re.compile(r"/dev/shm/(sem\.|faketime_shm_)")  # libfaketime's clock, no part of the program


@dataclass(frozen=True)
class Point:
    """The ``number``-th call of ``call`` in a command, and what it was about to do."""

    call: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.call} {self.number} ({self.what})"


@dataclass(frozen=True)
class Command:
    """A command line, its standard input and its clock."""

    args: tuple[str, ...]
    stdin: str = ""
    at: str = "2026-11-20 10:00:00"
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Place:
    """Everything that a command may change, in one directory."""

    root: Path

    @property
    def vault(self) -> Path:
        return self.root / "practice" / "vault.db"

    @property
    def softhsm(self) -> SoftHsm:
        return SoftHsm(self.root / "softhsm")

    @property
    def medcrypt(self) -> CommandLine:
        (self.root / "home").mkdir(mode=0o700, exist_ok=True)
        # Compiled files would be written by the first run and not by the next, and the points would not agree.
        env = {"MEDCRYPT_VAULT": str(self.vault), "PYTHONDONTWRITEBYTECODE": "1"}
        return CommandLine(self.root / "home", self.softhsm, env)

    def copy_to(self, root: Path) -> Place:
        shutil.copytree(self.root, root, symlinks=True)
        return Place(root)._at_home()

    def _at_home(self) -> Place:
        self.softhsm.prepare()  # the configuration names its directory
        return self

    def arguments(self, command: Command) -> list[str]:
        return [argument.replace("@PLACE@", str(self.root)) for argument in command.args]

    def run(self, command: Command, code: int | None = 0) -> Any:
        return self.medcrypt(
            *self.arguments(command), stdin=command.stdin, at=command.at, env=dict(command.env), code=code
        )

    def look(self, wires: list[str], at: str) -> Look:
        """What is there now. The program of look.py, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.kills.look", str(self.vault)],
            input="\n".join(wires).encode(),
            env=self.medcrypt.environment(at),
            cwd=ROOT,
            capture_output=True,
            timeout=120,
        )
        return Look(done.returncode, json.loads(done.stdout or "{}"), done.stderr.decode())

    def files(self) -> Iterator[Path]:
        return (path for path in self.root.rglob("*") if path.is_file())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Of the vault file, through a copy: whatever a kill left there stays as it is."""
        with tempfile.TemporaryDirectory(dir=self.root) as directory:
            copy = shutil.copytree(self.vault.parent, Path(directory, "copy"))
            return select(copy / self.vault.name, sql)

    @contextlib.contextmanager
    def token_removed(self, label: str = "") -> Iterator[None]:
        """The token is gone while the block runs, and back afterwards; all of them, or the one of that ``label``."""
        tokens, drawer = self.root / "softhsm" / "tokens", self.root / "drawer"
        drawer.mkdir()
        padded = label.encode().ljust(32) if label else b""
        taken = [token for token in tokens.iterdir() if padded in (token / "token.object").read_bytes()]
        assert taken, label
        for token in taken:
            token.rename(drawer / token.name)
        try:
            yield
        finally:
            for token in taken:
                shutil.rmtree(tokens / token.name, ignore_errors=True)
                (drawer / token.name).rename(token)
            drawer.rmdir()

    # Under strace

    def points(self, command: Command, calls: str = CALLS) -> list[Point]:
        """Run it to its end and list every call that changes a file, or others."""
        log = self.root / "strace"
        done = self._strace(command, "-y", "-o", str(log), "-e", f"trace={calls}")
        assert done.returncode == 0, done.stderr.decode()
        counts: Counter[str] = Counter()
        points = []
        for line in log.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match:
                call, rest = match.groups()
                counts[call] += 1
                if not _FAKETIME.search(rest):
                    points.append(Point(call, counts[call], _object(rest, self.root)))
        log.unlink()
        assert points, "a command that changes no file has nothing to be killed at"
        return points

    def kill(self, command: Command, point: Point) -> str:
        """Run it until just before ``point``; what it had written to stdout by then."""
        done = self.signalled(command, point, "KILL")
        assert done.returncode == -9, f"{point} was not reached: exit {done.returncode}\n{done.stderr}"
        return done.stdout

    def signalled(self, command: Command, point: Point, name: str) -> subprocess.CompletedProcess[str]:
        """Run it with a signal that comes as it enters ``point``."""
        inject = f"inject={point.call}:signal={name}:when={point.number}"
        log = self.root / "strace"
        done = self._strace(command, "-ff", "-o", str(log), "-e", f"trace={point.call}", "-e", inject)
        for trace in self.root.glob("strace.*"):
            if name == "KILL":
                _forget_faketime(int(trace.suffix[1:]))
            trace.unlink()
        return _text(done)

    def fail(self, command: Command, points: list[Point], at: Point, error: str) -> subprocess.CompletedProcess[str]:
        """Run it with the disk failing from ``at`` on, which is one of its ``points``: full, or broken.

        SoftHSM2's calls are others: its tokens are not on that disk.
        """
        log = self.root / "strace"
        first: dict[str, int] = {}
        for point in points[points.index(at) :]:
            if point.call in DISK_CALLS:
                first.setdefault(point.call, point.number)
        injections = [f"--inject={call}:error={error}:when={number}+" for call, number in first.items()]
        done = self._strace(command, "-o", str(log), "-e", f"trace={','.join(first)}", *injections)
        log.unlink()
        return _text(done)

    @contextlib.contextmanager
    def stopped(self, command: Command, point: Point) -> Iterator[subprocess.CompletedProcess[str]]:
        """Stop it just before ``point``; it goes on when the block ends, and what was yielded says how it ended."""
        log = self.root / "strace"
        inject = f"inject={point.call}:signal=STOP:when={point.number}"
        options = ("-ff", "-o", str(log), "-e", f"trace={point.call}", "-e", inject)
        process = subprocess.Popen(
            self._under_strace(command, *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.medcrypt.environment(env=dict(command.env)),
            cwd=self.root / "home",
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(command.stdin)
        process.stdin.close()
        process.stdin = None
        ended = subprocess.CompletedProcess[str](process.args, -1)
        stopped = _wait_for_stop(process, log)
        try:
            yield ended
        finally:
            os.kill(stopped, signal.SIGCONT)
            ended.stdout, ended.stderr = process.communicate(timeout=120)
            ended.returncode = process.returncode

    def _strace(self, command: Command, *options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self._under_strace(command, *options),
            input=command.stdin.encode(),
            env=self.medcrypt.environment(env=dict(command.env)),
            cwd=self.root / "home",
            capture_output=True,
            timeout=120,
        )

    def _under_strace(self, command: Command, *options: str) -> list[str]:
        # The clock's library is for the command, not for strace.
        clock = [f"-E{name}={value}" for name, value in clock_at(command.at).items()]
        return ["strace", "-f", "-qq", *options, *clock, *self.medcrypt.command(*self.arguments(command))]


@dataclass(frozen=True)
class Look:
    """What look.py saw, or how it failed."""

    code: int
    found: dict[str, Any]
    stderr: str

    def __getitem__(self, name: str) -> Any:
        assert self.code == 0, self.stderr
        return self.found[name]


def _object(rest: str, root: Path) -> str:
    """The file that a call is about, as a short word."""
    match = re.match(r'(?:\d+<([^>]*)>|"([^"]*)"|AT_FDCWD(?:<[^>]*>)?, "([^"]*)")', rest)
    name = next((group for group in match.groups() if group), "") if match else rest[:40]
    name = name.replace(str(root), "").lstrip("/")
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{20,}", "*", name)


def sample(points: list[Point], most: int) -> list[Point]:
    """All of them in a full run. Otherwise first, last, and evenly between; the index's filling with zeros once."""
    if FULL:
        return points
    telling = [p for before, p in zip([None, *points], points, strict=False) if not _repeats(before, p)]
    if len(telling) <= most:
        return telling
    return [telling[round(i * (len(telling) - 1) / (most - 1))] for i in range(most)]


def _repeats(before: Point | None, point: Point) -> bool:
    return before is not None and (before.call, before.what) == (point.call, point.what) and "-shm" in point.what


def _text(done: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _wait_for_stop(process: subprocess.Popen[str], log: Path) -> int:
    """Until a process under strace has been stopped; its id. The id is in the name of strace's log."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for trace in log.parent.glob(f"{log.name}.*"):
            if "--- stopped by SIGSTOP ---" in trace.read_text(errors="replace"):
                return int(trace.suffix[1:])
        time.sleep(0.005)
    raise AssertionError(f"it never stopped: exit {process.poll()}")


def busy_waiting(process: int) -> bool:
    """Is it asleep in a wait of its own, as SQLite is for a lock?"""
    number = Path(f"/proc/{process}/syscall").read_text().split()[0]
    return number in ("35", "230")  # nanosleep and clock_nanosleep on x86-64


def _forget_faketime(process: int) -> None:
    """libfaketime's shared memory bears the process's id, is removed at exit, and would outlive a kill."""
    for name in (f"faketime_shm_{process}", f"sem.faketime_sem_{process}"):
        Path("/dev/shm", name).unlink(missing_ok=True)
