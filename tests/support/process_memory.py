"""Looks into the memory of another process: what is left there of a key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.checkout import ROOT


class Looked:
    """The memory of a process that runs tests/support/host_memory.py, step by step."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.host_memory", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Looked:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate(timeout=30)

    @contextmanager
    def at(self, step: str) -> Iterator[None]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == step + "\n"
        yield
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def copies(self, key: bytes) -> int:
        """How often the key is in memory that the process can write, in whole or but for 8 bytes at either end."""
        windows = {key[:24], key[4:28], key[8:]}
        found = 0
        with open(f"/proc/{self._process.pid}/mem", "rb", 0) as memory:
            for line in Path(f"/proc/{self._process.pid}/maps").read_text().splitlines():
                span, permissions = line.split()[:2]
                if permissions.startswith("rw"):
                    start, end = (int(address, 16) for address in span.split("-"))
                    memory.seek(start)
                    content = memory.read(end - start)
                    found += max(content.count(window) for window in windows)
        return found

    @property
    def locked(self) -> int:
        """KiB that cannot be swapped out."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmLck")]
        return int(line.split()[1])
