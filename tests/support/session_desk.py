"""For tests of sessions: the agents of a vault, what others see of them, and other users.

Plain code without pytest.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medcrypt_hsm.session import client
from tests.support.checkout import ROOT
from tests.support.command_line import PIN_VARIABLE, CommandLine, Finished

NO_PIN = {"MEDCRYPT_PIN_SOURCE": f"env:{PIN_VARIABLE}_THAT_IS_NOT_THERE"}
NOBODY = 65534
_SEARCH = """
import re, sys
pid, needle = sys.stdin.readline().split()
needle, found = bytes.fromhex(needle), 0
with open(f"/proc/{pid}/mem", "rb", 0) as memory:
    for line in open(f"/proc/{pid}/maps"):
        span, permissions = line.split()[:2]
        if permissions.startswith("rw"):
            start, end = (int(address, 16) for address in span.split("-"))
            memory.seek(start)
            found += memory.read(end - start).count(needle)
print(found)
"""


class Desk:
    """Commands at one vault whose session has the PIN: ``desk("decrypt", …)`` is never given one."""

    def __init__(self, run: CommandLine, vault: Path) -> None:
        self.run = run
        self.vault = vault

    def start(self, *options: str, **more: Any) -> Any:
        return self.run("--json", "session", "start", *options, **more).json

    def __call__(self, *args: str | Path, **more: Any) -> Finished:
        return self.run(*args, **{"env": NO_PIN, **more})

    @property
    def status(self) -> Any:
        return client.status(str(self.vault))

    @property
    def process(self) -> int:
        return int(self.status["process"])

    def lock(self) -> None:
        client.lock(str(self.vault), "lock")

    def wait_for_end(self, within: float, process: int) -> None:
        wait(lambda: self.status is None and not alive(process), within)

    def kill(self) -> None:
        process = self.process
        os.kill(process, signal.SIGKILL)
        wait(lambda: not alive(process), 5)

    def entries(self, **more: Any) -> list[Any]:
        entries: list[Any] = self.run("--json", "--no-session", "audit", "show", **more).json["entries"]
        return entries

    def ends(self, **more: Any) -> list[str]:
        """Why sessions ended, as the log has it; in entries of their own, or in notes."""
        whys = []
        for entry in self.entries(**more):
            if entry["action"] == "session.end":
                whys.append(entry["detail"]["why"])
            if entry["action"] == "notes":
                whys += [f"note: {n['why']}" for n in entry["detail"]["notes"] if n["what"] == "session.end"]
        return whys


def wait(until: Callable[[], bool], within: float) -> None:
    end = time.monotonic() + within
    while not until():
        assert time.monotonic() < end, f"not within {within} seconds"
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return re.search(r"\) Z", state) is None


def as_user(uid: int, *command: str | Path) -> list[str]:
    """The command line that runs ``command`` as another user; this one must be root, or may become it."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    return [*prefix, "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *map(str, command)]


def copies_in_memory(process: int, needle: bytes) -> int:
    """How often it stands in memory that the process can write. Root alone may look into an agent's."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _SEARCH],
        input=f"{process} {needle.hex()}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


class DBus:
    """A bus of its own, on which everybody may have any name. ``emit`` says something there under a name."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix:path={directory}/bus"
        configuration = directory / "bus.conf"
        configuration.write_text(
            f'<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" ""><busconfig>'
            f"<type>custom</type><listen>{self.address}</listen><auth>EXTERNAL</auth>"
            '<policy context="default"><allow user="*"/><allow own="*"/>'
            '<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>'
        )
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address=1"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("unix:")

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=5)


def fields(entry: Any) -> Any:
    """What of an entry does not change from one run to the next of the same commands."""
    detail = json.dumps(entry["detail"], sort_keys=True)
    same = re.sub(r'[0-9a-f]{16,}|"entry": [0-9]+', "…", detail)  # the session has entries of its own
    return entry["actor"], entry["token"], entry["action"], entry["subject"], entry["outcome"], same


__all__ = ["NOBODY", "NO_PIN", "ROOT", "DBus", "Desk", "alive", "as_user", "copies_in_memory", "fields", "wait"]
