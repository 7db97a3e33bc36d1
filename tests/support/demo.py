"""``scripts/demo`` run to its end, and its transcript taken apart: command → what is under it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import ROOT

DEMO = ROOT / "scripts" / "demo"


@dataclass(frozen=True)
class Demo:
    code: int
    output: str  # stdout: commands and what they print
    errors: str  # stderr: of the script itself

    @property
    def steps(self) -> dict[str, str]:
        """Each command, without its ``$ ``, and its output. A command of several lines goes on while lines end in |."""
        steps: dict[str, str] = {}
        for block in re.split(r"\n(?=\$ )|\n(?=== )|\n(?=The demo is done)", self.output):
            if block.startswith("$ "):
                command, output = split(block)
                steps[command] = output
        return steps


def split(block: str) -> tuple[str, str]:
    """``$ command`` and the lines under it."""
    lines = block.removeprefix("$ ").strip("\n").split("\n")
    n = 1
    while lines[n - 1].endswith("|"):
        n += 1
    return "\n".join(lines[:n]), "\n".join(lines[n:])


def run_demo(env: Mapping[str, str], cwd: Path) -> Demo:
    done = subprocess.run(
        [str(DEMO)], env=dict(env), cwd=cwd, capture_output=True, stdin=subprocess.DEVNULL, timeout=600
    )
    return Demo(done.returncode, done.stdout.decode(), done.stderr.decode())
