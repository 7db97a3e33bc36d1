"""What must not be found, and every place to look: used by tests/adversary/test_secrets.py.

``Secrets`` knows each secret in every form in which it could slip out. ``Watched`` runs the command line under strace,
which sees every byte that the process writes to any file or socket, even one that is gone afterwards. Plain code
without pytest.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.standalone import patient
from tests.support.clock import clock_at
from tests.support.command_line import CommandLine, Finished

FRAGMENT = 12  # bytes of a plaintext that already tell something
_LEAST = 8


def encodings(secret: bytes) -> Iterator[bytes]:
    """The bytes as they are, and in every text form; base32 and base64 wherever in a longer text they may begin."""
    yield secret
    yield from (secret.hex().encode(), secret.hex().upper().encode())
    yield from (secret.hex(" ").encode(), secret.hex(":").encode())
    yield repr(secret)[2:-1].encode()
    for start in range(3):
        # What begins inside a group of three bytes shares that group's characters with what stood before it.
        whole = secret[start : start + (len(secret) - start) // 3 * 3]
        yield from (base64.b64encode(whole), base64.urlsafe_b64encode(whole))
    for start in range(5):
        whole = secret[start : start + (len(secret) - start) // 5 * 5]
        yield base64.b32encode(whole)


@dataclass
class Secrets:
    """Name of each secret → its forms."""

    forms: dict[str, set[bytes]] = field(default_factory=dict)
    _beginnings: set[bytes] = field(default_factory=set)

    def add_key(self, name: str, key: bytes) -> None:
        """Whole, and each half: half a key is too much."""
        assert len(key) >= 16, name
        half = len(key) // 2
        for piece in (key, key[:half], key[half:]):
            self._add(name, encodings(piece))

    def add_word(self, name: str, word: str) -> None:
        """A PIN, a passphrase, an id."""
        self._add(name, encodings(word.encode()))
        self._add(name, [word.encode("utf-16-le"), json.dumps(word)[1:-1].encode()])

    def add_text(self, name: str, text: str) -> None:
        """A plaintext and every fragment of it."""
        self.add_word(name, text)
        for raw in (text.encode(), text.encode("utf-16-le"), json.dumps(text)[1:-1].encode()):
            self._add(name, (raw[i : i + FRAGMENT] for i in range(len(raw) - FRAGMENT + 1)))

    def add_pairing(self, name: str, payload: str, last_month: str) -> None:
        """A v2 pairing's secret, and every chain and message key up to a month; derived by the patient's program."""
        parsed = patient.parse_payload(payload)
        self._add(name, [payload.removeprefix("MEDCRYPT:P2:").encode()])
        month, chain_key = parsed.month, parsed.secret
        while True:
            self.add_key(name if month == parsed.month else f"{name}, chain key {month}", chain_key)
            self.add_key(f"{name}, message key {month}", patient.message_key(chain_key, parsed.pairing, month))
            if str(month) == last_month:
                return
            month = month.next()
            chain_key = patient.next_chain(chain_key, parsed.pairing, month)

    def _add(self, name: str, forms: Iterable[bytes]) -> None:
        long = {form for form in forms if len(form) >= _LEAST}
        self.forms.setdefault(name, set()).update(long)
        self._beginnings |= {form[:_LEAST] for form in long}

    def found_in(self, data: bytes, *, shown: Iterable[str] = ()) -> list[str]:
        """Names of the secrets that ``data`` holds, other than those ``shown`` there on purpose."""
        allowed = set(shown)
        assert allowed <= set(self.forms), allowed - set(self.forms)
        # Thousands of forms, and most data has none: it is gone through once for all of their beginnings.
        if self._beginnings.isdisjoint(data[i : i + _LEAST] for i in range(len(data) - _LEAST + 1)):
            return []
        return [
            name for name, forms in self.forms.items() if name not in allowed and any(form in data for form in forms)
        ]


@dataclass
class Run:
    """One command: what came out of it, and every byte that it wrote elsewhere."""

    what: str
    stdout: bytes
    stderr: bytes
    written: bytes  # to any file descriptor but its standard output
    started: list[bytes]  # arguments of each program that was started
    shown: tuple[str, ...]  # secrets whose one place is this standard output


_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((-?\d+)?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_WRITES = "write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg,vmsplice"
_COPIES = "copy_file_range,sendfile,splice"  # their bytes are not seen here: what they move was a file before


@dataclass
class Watched:
    """The command line under strace; remembers all runs."""

    medcrypt: CommandLine
    directory: Path  # for strace's log, which holds what stdout showed: not a place where the program writes
    runs: list[Run] = field(default_factory=list)

    def __call__(
        self,
        *args: str | Path,
        stdin: str = "",
        at: str | None = None,
        code: int = 0,
        shown: Iterable[str] = (),
        env: dict[str, str] | None = None,
    ) -> Finished:
        log = self.directory / f"strace-{len(self.runs)}"
        moment = at or self.medcrypt.now
        clock = [f"-E{name}={value}" for name, value in clock_at(moment).items()] if moment else []
        trace = ["-xx", "-s", "10000000", "-e", f"trace={_WRITES},{_COPIES},execve", "-o", str(log)]
        bare = CommandLine(self.medcrypt.home, self.medcrypt.softhsm, self.medcrypt.env)
        done = subprocess.run(
            ["strace", "-f", "-qq", "--seccomp-bpf", *trace, *clock, *self.medcrypt.command("--verbose", *args)],
            input=stdin.encode(),
            env=bare.environment(env=env),
            cwd=self.medcrypt.home,
            capture_output=True,
            timeout=120,
        )
        written, started = _read_log(log)
        log.unlink()
        what = "medcrypt " + " ".join(map(str, args))
        self.runs.append(Run(what, done.stdout, done.stderr, written, started, tuple(shown)))
        finished = Finished(done.args[-len(args) :], done.returncode, done.stdout.decode(), done.stderr.decode())
        assert finished.returncode == code, f"expected exit {code}, got {finished}"
        return finished


def _read_log(log: Path) -> tuple[bytes, list[bytes]]:
    written, started = [], []
    for line in log.read_text().splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        call, descriptor = match.groups()
        strings = [bytes.fromhex(hexed.replace("\\x", "")) for hexed, _ in _STRING.findall(line)]
        if call == "execve":
            if line.endswith(" = 0"):  # others only looked for the program along PATH
                started.append(b"\0".join(strings))
        elif descriptor != "1":
            assert not any(cut for _, cut in _STRING.findall(line)), "strace cut a string"
            written.extend(strings)
    return b"\n".join(written), started


@contextmanager
def wal_kept(vault: Path) -> Iterator[None]:
    """Another reader, in another process, so that the write-ahead log is neither reset nor removed meanwhile.

    Not in this process: closing any file of the vault here would end the reader's POSIX locks.
    """
    program = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN');"
        "db.execute('SELECT * FROM trust').fetchall(); print('reading', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(vault)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        yield
        assert reader.poll() is None


def tree(root: Path) -> dict[str, bytes]:
    """Every file below ``root``, name and content; a name is a place for a secret too."""
    files = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        files[name] = name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
    return files
