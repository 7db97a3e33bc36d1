"""Writers take turns: with a slow token under each commit, nobody starves and nobody is told "busy"."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from medcrypt_hsm.vault.store.rows import BUSY_SECONDS, Location
from medcrypt_hsm.vault.store.store import create_store
from tests.support.checkout import ROOT

SIGNATURE = 0.1  # seconds, as a smart card takes
WRITERS, FOR_SECONDS = 8, 6.0
WRITER = """
import json, sys, time
from pathlib import Path
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
file = open_store(Location.parse(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
end, turns = time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    with file.transaction():
        time.sleep(float(sys.argv[2]))
        file.write_nothing()
    turns += 1
print(json.dumps(turns), flush=True)
"""


def start(stack: ExitStack, vault: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(vault), str(SIGNATURE), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    stack.callback(process.communicate)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def turns(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(json.loads(process.stdout.readline() or '"it died"'))


def made(directory: Path) -> Path:
    vault = directory / "practice" / "vault.db"
    with closing(create_store(Location.parse(vault), ("vault", "", b"{}"))):
        return vault


def test_eight_writers_have_as_many_turns_each(tmp_path: Path) -> None:
    vault = made(tmp_path)
    with ExitStack() as stack:
        crowd = [start(stack, vault, FOR_SECONDS) for _ in range(WRITERS)]
        go(crowd)
        had = sorted(turns(writer) for writer in crowd)
    assert had[0] * 3 >= had[-1] * 2, had
    # A queue that costs more than it saves would be no help: most of the time somebody is at work.
    assert sum(had) >= 0.6 * FOR_SECONDS / SIGNATURE, had
    assert [path.name for path in vault.parent.iterdir() if not path.name.startswith("vault.db")] == []


def test_a_minute_is_waited(tmp_path: Path) -> None:
    assert BUSY_SECONDS >= 60


def test_whoever_dies_in_the_queue_or_at_its_head_holds_nobody_up(tmp_path: Path) -> None:
    vault = made(tmp_path)
    with ExitStack() as stack:
        crowd = [start(stack, vault, 3.0) for _ in range(4)]
        go(crowd)
        for doomed in crowd[:2]:
            time.sleep(0.25)
            os.kill(doomed.pid, signal.SIGKILL)
        begun = time.monotonic()
        had = [turns(writer) for writer in crowd[2:]]
    assert min(had) >= 5, had
    assert time.monotonic() - begun < 10


def test_the_queue_is_the_same_by_every_name_of_the_directory(tmp_path: Path) -> None:
    vault = made(tmp_path)
    other = tmp_path / "by another way"
    other.symlink_to(vault.parent, target_is_directory=True)
    with ExitStack() as stack:
        crowd = [start(stack, path, FOR_SECONDS / 2) for path in (vault, other / "vault.db") * 3]
        go(crowd)
        had = sorted(turns(writer) for writer in crowd)
    assert had[0] * 3 >= had[-1] * 2, had
