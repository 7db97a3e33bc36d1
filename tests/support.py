"""What several tests need: throw-away SoftHSM2 tokens, and the real command line in a subprocess.

Plain code without pytest, so that helpers can import it; conftest.py makes fixtures of it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FULL = os.environ.get("MEDCRYPT_TEST_FULL") == "1"  # scripts/test --full

USER_PIN = "test-pin-4711"
SO_PIN = "test-so-pin-0815"
WRONG_PIN = "test-pin-wrong"

PIN_VARIABLE = "MEDCRYPT_TEST_PIN"
SO_PIN_VARIABLE = "MEDCRYPT_TEST_SO_PIN"


def installed(name: str, *places: str) -> Path:
    """A shared library of a Debian package. Its absence is an error of the set-up, never a reason to skip."""
    for place in places:
        for path in sorted(Path("/usr/lib").glob(place)):
            return path
    raise RuntimeError(f"{name} is not installed; run scripts/setup")


def softhsm_module() -> Path:
    return installed("SoftHSM2", "softhsm/libsofthsm2.so", "*/softhsm/libsofthsm2.so")


def faketime_library() -> Path:
    return installed("faketime", "*/faketime/libfaketime.so.1", "faketime/libfaketime.so.1")


@dataclass(frozen=True)
class SoftHsm:
    """A SoftHSM2 directory of its own, as softhsm/make-tokens makes it. It holds one blank token more than was made."""

    directory: Path
    used_here: bool = False  # this process, too, has it as its SOFTHSM2_CONF

    @property
    def conf(self) -> Path:
        return self.directory / "softhsm2.conf"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to see these tokens."""
        return {"SOFTHSM2_CONF": str(self.conf)}

    def make_token(self, label: str | None = None, *, pin: str = USER_PIN, so_pin: str = SO_PIN) -> str:
        """A fresh token with a random label, or this one; its URI.

        Where this process uses the directory too, its open PKCS#11 sessions end: see ``see_new_tokens``.
        """
        if label is None:
            label = f"test-{secrets.token_hex(6)}"
            self._make_apart(label, pin=pin, so_pin=so_pin)
        else:
            self._make_tokens(label, pin=pin, so_pin=so_pin)
        if self.used_here and "pkcs11" in sys.modules:
            see_new_tokens()
        return f"pkcs11:token={label}?module-path={softhsm_module()}"

    def prepare(self) -> SoftHsm:
        """Make the directory and its configuration, without a token."""
        self._make_tokens()
        return self

    def _make_tokens(self, *labels: str, at: Path | None = None, pin: str = USER_PIN, so_pin: str = SO_PIN) -> None:
        env = {**os.environ, "MEDCRYPT_DEMO_PIN": pin, "MEDCRYPT_DEMO_SO_PIN": so_pin}
        command = [str(ROOT / "softhsm" / "make-tokens"), str(at or self.directory), *labels]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def _make_apart(self, label: str, **pins: str) -> None:
        """softhsm2-util reads every token of its directory: among hundreds, making one more takes a second."""
        with tempfile.TemporaryDirectory(prefix="medcrypt-tokens-") as empty:
            self._make_tokens(label, at=Path(empty), **pins)
            self._make_tokens()
            (token,) = Path(empty, "tokens").iterdir()
            shutil.move(token, self.directory / "tokens" / token.name)


def see_new_tokens() -> None:
    """Make this process see what another one did to the tokens. Its PKCS#11 sessions and objects become invalid."""
    import pkcs11

    # Loaded under another name of the same file, it would be initialised twice.
    names = [name for name in pkcs11._loaded if os.path.realpath(name) == os.path.realpath(softhsm_module())]
    pkcs11.lib((names or [str(softhsm_module())])[0]).reinitialize()


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


def clock_at(moment: datetime | str) -> dict[str, str]:
    """Environment of a process whose clock starts at ``moment`` (UTC) and runs on.

    "@" is start-at: time keeps moving, so that SQLite's busy waits and ``time.sleep`` end. A wait of ``threading`` with
    a timeout does not (libfaketime 0.9.10 misses sem_clockwait). The library is loaded directly and not by the
    ``faketime`` program: the process keeps its id and signals reach it.
    """
    if isinstance(moment, datetime):
        moment = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return {"LD_PRELOAD": str(faketime_library()), "FAKETIME": f"@{moment}", "TZ": "UTC"}
