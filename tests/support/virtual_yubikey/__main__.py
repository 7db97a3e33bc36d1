"""``python -m tests.support.virtual_yubikey --state DIR --port P``: one card in one reader, ruled by lines on stdin.

Each line is a JSON list, a word and its arguments; each is answered with one JSON line. ``["finger", 2]`` touches after
2 s from now on (null: never), ``["touch"]`` once now, ``["pull"]``, ``["insert"]``, and see ``Control``. The end of
stdin ends the card: whoever starts one by hand keeps it open (``sleep infinity | python -m …``, or a terminal).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from tests.support.virtual_yubikey.attestation import AttestationCa
from tests.support.virtual_yubikey.card import Card
from tests.support.virtual_yubikey.finger import Finger
from tests.support.virtual_yubikey.firmware import Firmware
from tests.support.virtual_yubikey.reader import Reader
from tests.support.virtual_yubikey.store import State, Store

PATIENCE = 10.0  # seconds for what other processes have to do first
STATE_FILE, ROOTS_FILE = "card.json", "roots.pem"


def make(directory: Path, serial: int, firmware: Firmware, ca: AttestationCa) -> None:
    """A card fresh from the factory, and beside it the certificates that its maker publishes."""
    directory.mkdir(parents=True, exist_ok=True)
    state = State.factory(serial, firmware)
    if firmware.has_attestation:
        ca.install(state)
    Store(state, directory / STATE_FILE).save()
    (directory / ROOTS_FILE).write_bytes(ca.published)


class Control:
    """The words that a line on stdin may begin with."""

    def __init__(self, reader: Reader, finger: Finger) -> None:
        self._reader, self._finger = reader, finger

    def finger(self, seconds: float | None) -> None:
        self._finger.touches_after(math.inf if seconds is None else seconds)

    def touch(self) -> None:
        self._finger.touch()

    def blinking(self) -> bool:
        """Wait until the card waits for the finger; false if it does not come to that."""
        return self._finger.until_waiting(PATIENCE)

    def touches(self) -> int:
        """How often the card has waited for the finger."""
        return self._finger.asked

    def age(self, seconds: float) -> None:
        """Let the touch cache become so much older."""
        self._finger.shift += seconds

    def timeout(self, seconds: float) -> None:
        self._finger.timeout = seconds

    def pull(self) -> None:
        self._reader.pull()

    def insert(self) -> None:
        self._reader.insert()

    def pull_at(self, number: int, executed: bool) -> None:
        """Pulled at the number-th APDU from now, 1 being the next: before it is executed, or before it is answered."""
        self._reader.pull_at(number, executed=executed)

    def inserted(self) -> bool:
        return self._reader.inserted

    def log(self) -> list[dict[str, Any]]:
        """The APDUs since the last call, without their data."""
        return self._reader.take_log()


def main() -> None:
    options = _options()
    path = options.state / STATE_FILE
    if not path.exists():
        firmware = Firmware.parse(options.firmware)
        make(options.state, options.serial, firmware, AttestationCa.make(firmware))
    finger = Finger(options.touch_timeout)
    reader = Reader(Card(Store.load(path), finger), options.port)
    reader.insert()
    control = Control(reader, finger)
    _answer("ready")
    for line in sys.stdin:
        word, *arguments = json.loads(line)
        _answer(getattr(control, word)(*arguments))
    reader.pull()


def _answer(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.support.virtual_yubikey", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory; made as from the factory if it is new")
    parser.add_argument("--port", type=int, default=0x8C7B, help="of the virtual reader (vpcd) on the loopback")
    parser.add_argument("--serial", type=int, default=12345678, help="of a new card")
    parser.add_argument("--firmware", default="5.4.3", help="of a new card")
    parser.add_argument("--touch-timeout", type=float, default=15.0, help="seconds that the card waits for a finger")
    return parser.parse_args()


if __name__ == "__main__":
    main()
