"""For tests of the command line: a practice that is ready in milliseconds, and a terminal with a person at it.

Making a token and a vault costs half a second; here it is done once for each worker, and every test gets a copy of
both, token directory and vault, which is a machine of its own.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import ROOT
from tests.support.command_line import CommandLine
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module

NOW = "2026-11-22 12:00:00"
V2_PATIENT = "EXP-00417"
V1_PATIENT = "EXP-00112"
PENDING_PATIENT = "EXP-00900"
V1_SECRET = "secreto compartido 4711 ejemplo"
DOCUMENTED = ROOT / "docs" / "operator" / "commands.md"


@dataclass
class Clinic:
    """A directory with home/, softhsm/ and vault/vault.db. ``run`` is the command line on it, its clock at ``NOW``."""

    directory: Path
    run: CommandLine

    @classmethod
    def at(cls, directory: Path) -> Clinic:
        home = directory / "home"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        env = {"MEDCRYPT_VAULT": str(directory / "vault" / "vault.db"), "V1_SECRET": V1_SECRET}
        return cls(directory, CommandLine(home, SoftHsm(directory / "softhsm"), env=env, now=NOW))

    @property
    def vault(self) -> Path:
        return self.directory / "vault" / "vault.db"

    @property
    def uri(self) -> str:
        return f"pkcs11:token=doctor?module-path={softhsm_module()}"

    def make(self, profile: str) -> Clinic:
        self.run.softhsm.prepare().make_token("doctor")
        self.run("vault", "create", "--token", f"doctor={self.uri}", "--profile", profile)
        self.run("patient", "add", V2_PATIENT, "--label", "Paciente Ejemplo", "--unconfirmed")
        self.run("patient", "add", V1_PATIENT, "--protocol", "v1", "--secret-source", "env:V1_SECRET")
        self.run("patient", "add", PENDING_PATIENT)
        return self

    def copy(self, directory: Path) -> Clinic:
        shutil.copytree(self.directory, directory, dirs_exist_ok=True)
        conf = directory / "softhsm" / "softhsm2.conf"
        conf.write_text(conf.read_text().replace(str(self.directory), str(directory)))
        return Clinic.at(directory)

    def encrypt(self, text: str, patient: str = V2_PATIENT) -> str:
        return self.run("encrypt", patient, stdin=text).stdout

    def terminal(
        self, *args: str | Path, env: Mapping[str, str] | None = None, columns: int = 100, stdin: bytes | None = None
    ) -> Terminal:
        """The same command at a terminal. ``stdin``: a pipe with this instead, while the terminal is still there."""
        return Terminal(self.run.command(*args), self.run.environment(env=env), self.run.home, columns, stdin)

    def detached(self, *args: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Where there is no terminal at all, whoever runs the tests."""
        return subprocess.run(
            self.run.command(*args),
            env=self.run.environment(env=env),
            cwd=self.run.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


class Terminal:
    """A pseudo-terminal of ``columns`` × 40 that is the process's controlling terminal, and a person who types."""

    def __init__(
        self, command: list[str], env: Mapping[str, str], cwd: Path, columns: int, stdin: bytes | None
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

        # The first terminal that the leader of a new session opens becomes its controlling terminal.
        take = [": <>" + os.ttyname(slave) + ' && exec "$@"', "sh"]
        self.process = subprocess.Popen(
            ["sh", "-c", *take, *command],
            env=env,
            cwd=cwd,
            stdin=slave if stdin is None else subprocess.PIPE,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # a read may end within a character
        self._read_to = 0
        if stdin is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(stdin)
            self.process.stdin.close()

    def expect(self, text: str, seconds: float = 30) -> None:
        """Wait until the screen shows it, after what was waited for before."""
        deadline = time.monotonic() + seconds
        while (at := self.seen.find(text, self._read_to)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"the terminal never showed {text!r}, but: {self.seen!r}")
        self._read_to = at + len(text)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def finish(self, seconds: float = 60) -> int:
        """Wait for the end; its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        os.close(self._master)
        return self.process.wait(seconds)

    @property
    def lines(self) -> list[str]:
        return self.seen.replace("\r\n", "\n").split("\n")

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            self.process.kill()
            raise AssertionError(f"the terminal is silent; it showed: {self.seen!r}")
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last process that had it open is gone
            return False
        self.seen += self._decode(data)
        return bool(data)


PIN_LINE = USER_PIN + "\n"


def section(command: str) -> str:
    """What the reference says of a command."""
    text = DOCUMENTED.read_text()
    match = re.search(rf"^#+ `medcrypt {re.escape(command)}\b[^\n]*\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/operator/commands.md has no section for 'medcrypt {command}'"
    return match[0]


def assert_fields_documented(command: str, document: object) -> None:
    """Every field of a command's JSON is in its section, or among those that the reference explains once for all."""
    known = section(command) + DOCUMENTED.read_text().partition("## Shared fields")[2].partition("\n## ")[0]
    missing = {name for name in _field_names(document) if f"`{name}`" not in known}
    assert not missing, f"'medcrypt {command}' has undocumented fields: {sorted(missing)}"


def _field_names(value: object) -> set[str]:
    if isinstance(value, dict):
        inner = (_field_names(item) for name, item in value.items() if name not in ("claims", "detail"))
        return set(value).union(*inner)
    if isinstance(value, list):
        return set().union(*map(_field_names, value))
    return set()
