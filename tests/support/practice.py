"""A practice at library level: a vault on a real token, a clock that is moved by hand, and the patient's own program.

Plain code without pytest. The patient is scripts/standalone/patient.py, which shares no code with the package.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from medcrypt_hsm import MonthsOpened, OpenOptions, Vault
from medcrypt_hsm.lifecycle.restore import Loss
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens import PinPrompt
from medcrypt_hsm.vault.inspection import Status, status_of_file
from medcrypt_hsm.vault.unlocked import Unlocked
from scripts.standalone import patient
from tests.support.checkout import ROOT
from tests.support.softhsm import USER_PIN

_ELSEWHERE = """
import sys
from datetime import datetime
from pathlib import Path
from tests.support.practice import MovedClock, Practice

path, uri, now, statements = sys.argv[1:]
with Practice(Path(path), uri, MovedClock(datetime.fromisoformat(now))).open() as vault:
    exec(statements)
"""

YUBIKEY_PIN = USER_PIN[-8:]


@dataclass
class MovedClock:
    now: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def set(self, text: str) -> None:
        """``"2026-12-03"`` (noon) or ``"2026-12-03 23:59"``, UTC."""
        self.now = datetime.fromisoformat(text if ":" in text else f"{text} 12:00").replace(tzinfo=UTC)

    def forward(self, **much: float) -> None:
        self.now += timedelta(**much)


def pin(info: object) -> str:
    """Of every token of these tests. A YubiKey's has at most eight characters."""
    return YUBIKEY_PIN if str(getattr(info, "uri", "")).startswith("yubikey:") else USER_PIN


@dataclass
class Practice:
    """One vault file, its token and its clock. Nothing is kept open between calls."""

    path: Path
    uri: str
    clock: MovedClock = field(default_factory=MovedClock)
    pin: PinPrompt = pin
    months_opened: list[MonthsOpened] = field(default_factory=list)  # of themselves, with whatever vault was open

    def create(self, **more: Any) -> Vault:
        return Vault.create(self.path, token="doctor", uri=self.uri, pin=self.pin, **self.options, **more)

    def open(self, path: Path | None = None, **more: Any) -> Vault:
        return Vault.open(path or self.path, pin=self.pin, **self.options, **more)

    @property
    def options(self) -> OpenOptions:
        return {"actor": "mara", "clock": self.clock, "on_month_opened": self.months_opened.append}

    def add(self, name: str, uri: str, *, using: str | None = None, **more: Any) -> None:
        """A spare token, introduced by the one called ``using``."""
        with self.open(token=using) as vault:
            vault.tokens.add(name, uri, pin=pin, **more)

    def restore(self, source: Path, *, losses: list[Loss] | None = None, **more: Any) -> Vault:
        agreed: list[Loss] = [] if losses is None else losses
        return Vault.restore(self.path, source, pin=pin, agree=agreed.append, **self.options, **more)

    def start_elsewhere(self, statements: str) -> subprocess.Popen[str]:
        """Another process that opens the vault, with the clock as it is now, and does ``statements`` with ``vault``."""
        arguments = [str(self.path), self.uri, self.clock.now.isoformat(), statements]
        return subprocess.Popen([sys.executable, "-c", _ELSEWHERE, *arguments], cwd=ROOT, stderr=-1, text=True)

    def elsewhere(self, statements: str) -> None:
        """The same, to its end."""
        process = self.start_elsewhere(statements)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said

    def status(self) -> Status:
        """What the file says of itself, by this practice's clock."""
        return status_of_file(self.path, self.clock)

    def copy(self, name: str) -> Path:
        """The file as it lies there, under another name beside it."""
        return Path(shutil.copy(self.path, self.path.with_name(name)))

    def pair(self, vault: Vault, patient_id: str, *, confirm: bool = True) -> Phone:
        """A v2 patient, and the patient's phone."""
        phone = Phone.scan(vault.patients.add(patient_id).payload, self.clock)
        if confirm:
            vault.patients.confirm(patient_id, phone.check_code)
        return phone


def unlocked(vault: Vault) -> Unlocked:
    """What lies below the library's surface, for tests of the layers in between."""
    return vault._unlocked


@dataclass
class Phone:
    """The patient's program with its state in memory."""

    state: patient.PatientState
    clock: MovedClock

    @classmethod
    def scan(cls, payload: str, clock: MovedClock) -> Phone:
        parsed = patient.parse_payload(payload)
        parsed.check_fresh(clock.now)
        return cls(patient.PatientState.pair(parsed), clock)

    @property
    def check_code(self) -> str:
        return self.state.check_code

    def write(self, text: str) -> list[str]:
        return self.state.write(text, self.clock.now)

    def seal(self, text: str, *, nonce: bytes, sender: str = "p") -> str:
        """A message of the current month under this very nonce, as no honest program writes it."""
        month = patient.Month.of(self.clock.now)
        self.state.step_to(month)
        key = self.state.message_keys[month]
        return patient.seal(key, self.state.pairing, month, sender, "1.1", text.encode(), nonce)

    def read(self, *texts: str, archive: bool = False) -> list[str]:
        """What the patient sees; a ``Problem`` is raised."""
        shown = []
        for result in patient.read(self.state, "\n".join(texts), self.clock.now, archive):
            if isinstance(result, patient.Problem):
                raise result
            shown.append(result.text)
        return shown


def forge(text: str) -> str:
    """The same message with its tag altered: what somebody without the key can make of it."""
    head, tag = text[:-1].rsplit(":", 1)
    return f"{head}:{'B' if tag[0] != 'B' else 'C'}{tag[1:]}]"


def statuses(opened: Iterable[Opened]) -> list[str]:
    return [message.status for message in opened]


def read(vault: Vault, *texts: str, archive: bool = False, month: str | None = None) -> list[str]:
    """The texts that are shown; any error is raised."""
    opened = vault.decrypt("\n".join(texts), archive=archive, month=Month.parse(month) if month else None)
    for message in opened:
        if message.error is not None:
            raise message.error
    return [message.text or "" for message in opened]
