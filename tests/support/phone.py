"""The patient's device: scripts/standalone/patient.py in a process, with a state file and a clock of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import ROOT
from tests.support.clock import clock_at

PASSPHRASE = "correct horse battery"
_VARIABLE = "PATIENT_PASS"


@dataclass
class Device:
    """``device("read", "2026-12-01 10:00:00", stdin=chat)``."""

    state: Path

    def __call__(
        self, command: str, at: str, *options: str, stdin: str = "", code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        script = [sys.executable, str(ROOT / "scripts" / "standalone" / "patient.py"), command, str(self.state)]
        done = subprocess.run(
            [*script, "--passphrase-env", _VARIABLE, *options],
            input=stdin.encode(),
            capture_output=True,
            env={**os.environ, **clock_at(at), _VARIABLE: PASSPHRASE},
            timeout=60,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        if code is not None:
            assert done.returncode == code, f"expected exit {code}, got {done.returncode}: {out}\n{err}"
        return subprocess.CompletedProcess(script, done.returncode, out, err)

    def pair(self, at: str, payload: str) -> str:
        """The check code."""
        said = self("pair", at, stdin=payload).stdout
        return said.removeprefix("check code: ").removesuffix("\n")

    def write(self, at: str, text: str) -> str:
        """Wire texts, one a line."""
        return self("write", at, stdin=text).stdout

    def read(self, at: str, chat: str, *options: str) -> str:
        """The exact text of one message."""
        return self("read", at, *options, stdin=chat).stdout
