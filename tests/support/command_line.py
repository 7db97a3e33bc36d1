"""The real command line in a subprocess.

Plain code without pytest, so that helpers can import it; tests/conftest.py makes a fixture of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.clock import clock_at
from tests.support.softhsm import SO_PIN, USER_PIN, SoftHsm

PIN_VARIABLE = "MEDCRYPT_TEST_PIN"
SO_PIN_VARIABLE = "MEDCRYPT_TEST_SO_PIN"


class Finished(subprocess.CompletedProcess[str]):
    """How a run of the command line ended: ``returncode``, ``stdout``, ``stderr`` as text."""

    @property
    def json(self) -> Any:
        """The one document on stdout under ``--json``."""
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """The error document on stderr under ``--json``: its last line that is one."""
        return json.loads([line for line in self.stderr.splitlines() if line.startswith("{")][-1])

    def __str__(self) -> str:
        return f"exit {self.returncode}: {self.args}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


@dataclass
class CommandLine:
    """Runs ``medcrypt`` as a person would: another process, a home directory of its own, PINs from the environment.

    ``medcrypt("status")`` insists on exit code 0; ``medcrypt("status", code=7)`` on another, ``code=None`` on none.
    """

    home: Path
    softhsm: SoftHsm
    env: dict[str, str] = field(default_factory=dict)  # for every run: medcrypt.env["MEDCRYPT_VAULT"] = …
    now: datetime | str | None = None  # for every run; None is the real clock

    def __call__(
        self,
        *args: str | Path,
        stdin: str | bytes | None = None,
        at: datetime | str | None = None,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> Finished:
        """Run it to its end. ``at``: the UTC time at which its clock starts, "2026-12-01 10:00:00" or a datetime."""
        done = subprocess.run(
            self.command(*args),
            input=stdin.encode() if isinstance(stdin, str) else (stdin or b""),
            env=self.environment(at, env),
            cwd=cwd or self.home,
            capture_output=True,
            timeout=timeout,
        )
        finished = Finished(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        if code is not None:
            assert finished.returncode == code, f"expected exit {code}, got {finished}"
        return finished

    def command(self, *args: str | Path) -> list[str]:
        return [sys.executable, "-m", "medcrypt_hsm", *map(str, args)]

    def environment(self, at: datetime | str | None = None, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """For tests that start the process themselves (``Popen``, a terminal, strace)."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MEDCRYPT_", "XDG_"))}
        environment = {
            **inherited,
            "HOME": str(self.home),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
            **self.softhsm.env,
            "MEDCRYPT_PIN_SOURCE": f"env:{PIN_VARIABLE}",
            PIN_VARIABLE: USER_PIN,
            SO_PIN_VARIABLE: SO_PIN,
            **self.env,
        }
        moment = at if at is not None else self.now
        if moment is not None:
            environment |= clock_at(moment)
        return {**environment, **(env or {})}
