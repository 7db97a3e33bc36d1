"""A file of any size takes the same memory. 5 GB with ``scripts/test --full``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.checkout import FULL, ROOT
from tests.support.practice import Practice

# Encrypts and decrypts a file of so many bytes, and says the most memory (KiB) that it ever had, before and after.
MEASURED = """
import re, sys
from datetime import datetime
from pathlib import Path
from tests.support.practice import MovedClock, Practice

path, uri, now, size, out = sys.argv[1:]
source = Path(out, "large")
with source.open("wb") as file:
    file.truncate(int(size))

def peak():
    return int(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])

with Practice(Path(path), uri, MovedClock(datetime.fromisoformat(now))).open() as vault:
    with Path(out, "small").open("wb") as file:
        file.truncate(3 << 20)
    vault.files.decrypt(vault.files.encrypt("EXP-1", Path(out, "small"), Path(out, "s")).path, Path(out))
    before = peak()
    done = vault.files.decrypt(vault.files.encrypt("EXP-1", source, Path(out, "x")).path, Path(out))
    assert done.size == int(size)
print(before, peak())
"""


def test_memory_does_not_grow_with_the_file(practice: Practice, tmp_path: Path) -> None:
    size = 5 << 30 if FULL else 100 << 20
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
    arguments = [str(practice.path), practice.uri, practice.clock.now.isoformat(), str(size), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after - before < 4096
    for name in ("x", "large", "large (2)"):
        (tmp_path / name).unlink()
