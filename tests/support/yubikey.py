"""Virtual YubiKeys for tests: processes of ``tests.support.virtual_yubikey`` in the readers of the tests' own pcscd."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.checkout import FULL
from tests.support.pcscd import PATIENCE, READER_NAME, ROOT, Pcscd
from tests.support.virtual_yubikey.__main__ import STATE_FILE, make
from tests.support.virtual_yubikey.attestation import AttestationCa
from tests.support.virtual_yubikey.firmware import Firmware
from tests.support.virtual_yubikey.store import State, Store

FIRMWARES = ("4.3.5", "5.4.3", "5.7.4")
SOME = FIRMWARES if FULL else ("5.4.3",)  # for what takes long
TOUCH_TIMEOUT = 1.0  # seconds; a real one waits 15

PIN, PUK = "123456", "12345678"  # from the factory
MANAGEMENT_KEY = "010203040506070801020304050607080102030405060708"


@cache
def attestation_ca(firmware: str) -> AttestationCa:
    """One batch of keys for each firmware, made once; early ones without BasicConstraints on F9."""
    version = Firmware.parse(firmware)
    return AttestationCa.make(version, basic_constraints=version.major >= 5)


class VirtualYubiKey:
    """``start()`` puts it into its reader. State outlives the process; ``stop()`` and ``start()`` lose nothing.

    ``insert`` and ``pull`` return when pcscd has seen it. After ``pull_at`` fell due: ``insert`` again, first of all.
    """

    def __init__(self, pcscd: Pcscd, directory: Path, *, reader: int = 0, touch_timeout: float = TOUCH_TIMEOUT) -> None:
        self.pcscd, self.directory, self.reader = pcscd, directory, reader
        self._touch_timeout = touch_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(
        cls,
        pcscd: Pcscd,
        directory: Path,
        *,
        serial: int,
        firmware: str = "5.4.3",
        reader: int = 0,
        ca: AttestationCa | None = None,
        touch_timeout: float = TOUCH_TIMEOUT,
    ) -> VirtualYubiKey:
        """Fresh from the factory, not yet inserted. ``ca``: who signed its attestation key, or ``attestation_ca``."""
        make(directory, serial, Firmware.parse(firmware), ca or attestation_ca(firmware))
        return cls(pcscd, directory, reader=reader, touch_timeout=touch_timeout)

    @property
    def serial(self) -> int:
        return self.state.serial

    @property
    def uri(self) -> str:
        return f"yubikey:{self.serial}"

    @property
    def reader_name(self) -> str:
        return f"{READER_NAME} 00 {self.reader:02X}"

    @property
    def state(self) -> State:
        """What it remembers, PINs and private keys too, as of its last command."""
        return Store.load(self.directory / STATE_FILE).state

    @contextmanager
    def tampering(self) -> Iterator[State]:
        """Change its state while it is stopped: other keys, fewer tries, another firmware."""
        assert self._process is None, "stop it first"
        store = Store.load(self.directory / STATE_FILE)
        yield store.state
        store.save()

    def copy(self, directory: Path) -> VirtualYubiKey:
        """A twin as of now, serial and keys included, not inserted: a provisioned card is made once, then copied."""
        shutil.copytree(self.directory, directory)
        return VirtualYubiKey(self.pcscd, directory, reader=self.reader, touch_timeout=self._touch_timeout)

    def start(self) -> VirtualYubiKey:
        assert self._process is None, "already started"
        self.pcscd.start()
        self._process = subprocess.Popen(
            [
                *self.pcscd.inside(),
                sys.executable,
                *("-m", "tests.support.virtual_yubikey", "--state", str(self.directory)),
                *("--port", str(self.pcscd.port(self.reader)), "--touch-timeout", str(self._touch_timeout)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._read() == "ready"
        self._until(present=True)
        return self

    def stop(self) -> None:
        """Pulled out, and its process ended. Its state stays."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.communicate()  # closes stdin, which ends it
        if self.pcscd.running:
            self._until(present=False)

    def pull(self) -> None:
        self._tell("pull")
        self._until(present=False)

    def insert(self) -> None:
        """Into its reader (again); one that is there is pulled first."""
        self._tell("pull")
        self._until(present=False)
        self._tell("insert")
        self._until(present=True)

    def until_seen(self) -> None:
        """After pcscd was restarted with it inserted."""
        self._until(present=True)

    def pull_at(self, number: int, *, executed: bool = False) -> None:
        """Pulled at the number-th APDU from now (1: the next): before it is executed, or when it is but unanswered."""
        self._tell("pull_at", number, executed)

    @property
    def inserted(self) -> bool:
        return bool(self._tell("inserted"))

    def finger(self, seconds: float | None = 0) -> None:
        """From now on each touch it asks for comes after so long; None: never. It starts with 0, at once."""
        self._tell("finger", seconds)

    def touch(self) -> None:
        """Once, now."""
        self._tell("touch")

    def until_blinking(self) -> None:
        """Returns when it waits for the finger."""
        assert self._tell("blinking"), "it did not ask for a touch"

    def touches(self) -> int:
        """How often it has asked for the finger since it was started."""
        count = self._tell("touches")
        assert isinstance(count, int)
        return count

    def age(self, seconds: float) -> None:
        """As if so much time had passed for cached touches, which last 15 s."""
        self._tell("age", seconds)

    def log(self) -> list[dict[str, Any]]:
        """Every APDU since the last call: application, cla, ins, p1, p2, object, sw. Its data is not kept."""
        entries = self._tell("log")
        assert isinstance(entries, list)
        return entries

    def _tell(self, *words: Any) -> Any:
        assert self._process is not None, "not started"
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the virtual YubiKey's process has ended"
        return json.loads(line)

    def _until(self, *, present: bool) -> None:
        from smartcard import scard

        wanted = scard.SCARD_STATE_PRESENT if present else scard.SCARD_STATE_EMPTY
        result, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
        assert result == scard.SCARD_S_SUCCESS, scard.SCardGetErrorMessage(result)
        try:
            end, state = time.monotonic() + PATIENCE, scard.SCARD_STATE_UNAWARE
            while not state & wanted:
                assert time.monotonic() < end, f"{self.reader_name}: the card does not come or go"
                asked = [(self.reader_name, state)]
                result, answers = scard.SCardGetStatusChange(context, int(PATIENCE * 1000), asked)
                if result == scard.SCARD_E_UNKNOWN_READER:  # pcscd has just started
                    time.sleep(0.01)
                    continue
                assert result == scard.SCARD_S_SUCCESS, scard.SCardGetErrorMessage(result)
                state = answers[0][1]
        finally:
            scard.SCardReleaseContext(context)


YubiKeys = Callable[..., VirtualYubiKey]  # the fixture "yubikey", which makes them
