"""No command's memory is dumped or read by another process of the same user, from its first line on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine

COMMANDS = [
    ("--version",),
    ("--help",),
    ("status",),
    ("decrypt",),
    ("token", "list"),
    ("patient", "list"),
    ("audit", "verify", "--public-key", "no-such-key.pem"),
    ("no-such-command",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_protected_before_it_reads_its_arguments(
    medcrypt: CommandLine, tmp_path: Path, command: tuple[str, ...]
) -> None:
    log = tmp_path / "strace"
    trace = ["strace", "-qq", "-o", str(log), "-e", "trace=prctl,prlimit64,openat"]
    subprocess.run(
        [*trace, *medcrypt.command(*command)], env=medcrypt.environment(), input=b"", capture_output=True, timeout=60
    )
    lines = log.read_text().splitlines()
    reading = next(number for number, line in enumerate(lines) if "/cli/__pycache__/main.cpython" in line)
    begun = "\n".join(lines[:reading])
    assert re.search(r"prctl\(PR_SET_DUMPABLE, SUID_DUMP_DISABLE.*= 0", begun), begun
    assert re.search(r"prlimit64\(0, RLIMIT_CORE, \{rlim_cur=0, rlim_max=0\}", begun), begun


def test_both_are_off_and_stay_off() -> None:
    program = (
        "import ctypes, resource\n"
        "from medcrypt_hsm.process import protect_memory\n"
        "protect_memory()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(0, 0) 0\n"
