"""A card in a reader: answers frames in a thread of its own, can be pulled out at a chosen APDU, keeps a log."""

from __future__ import annotations

import threading
from typing import Any

from tests.support.virtual_yubikey.card import Card
from tests.support.virtual_yubikey.vpcd import ATR, POWER_OFF, POWER_ON, RESET, Wire

GET_DATA, PUT_DATA = 0xCB, 0xDB
PATIENCE = 10.0  # seconds for a pcscd that is just starting


class Reader:
    """``insert`` and ``pull``. While it is in, it is found again by a pcscd that was restarted."""

    def __init__(self, card: Card, port: int) -> None:
        self._card, self._port = card, port
        self._wire: Wire | None = None
        self._thread: threading.Thread | None = None
        self._out = threading.Event()
        self._lock = threading.Lock()  # of the fields below
        self._pull_in: int | None = None
        self._pull_executed = False
        self._log: list[dict[str, Any]] = []

    @property
    def inserted(self) -> bool:
        return self._thread is not None and not self._out.is_set()

    def insert(self) -> None:
        """Raises OSError where there is no reader."""
        self.pull()
        self._out.clear()
        self._card.finger.away(False)
        self._wire = Wire(self._port, patience=PATIENCE)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pull(self) -> None:
        self._out.set()
        if self._wire is not None:
            self._wire.pull()
        self._card.finger.away(True)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def pull_at(self, number: int, *, executed: bool) -> None:
        with self._lock:
            self._pull_in, self._pull_executed = number, executed

    def take_log(self) -> list[dict[str, Any]]:
        with self._lock:
            taken, self._log = self._log, []
        return taken

    def _run(self) -> None:
        while not self._out.is_set():
            assert self._wire is not None
            self._card.reset()
            self._serve(self._wire)
            self._wire.pull()
            while not self._out.wait(0.02):  # pcscd has gone: until it is back
                try:
                    self._wire = Wire(self._port, patience=0)
                except OSError:
                    continue
                break

    def _serve(self, wire: Wire) -> None:
        while not self._out.is_set() and (frame := wire.receive()) is not None:
            if len(frame) == 1:
                self._power(wire, frame[0])
                continue
            before, after = self._pulled_now()
            if before:
                self._out.set()
                return
            answer = self._card.transmit(frame)
            self._note(frame, answer)
            if after:
                self._out.set()
                return
            wire.send(answer)

    def _power(self, wire: Wire, code: int) -> None:
        if code in (POWER_OFF, POWER_ON, RESET):
            self._card.reset()
        elif code == ATR:
            wire.send(self._card.atr)

    def _pulled_now(self) -> tuple[bool, bool]:
        with self._lock:
            if self._pull_in is None:
                return False, False
            self._pull_in -= 1
            if self._pull_in:
                return False, False
            self._pull_in = None
            return not self._pull_executed, self._pull_executed

    def _note(self, frame: bytes, answer: bytes) -> None:
        """What was asked and how it ended. Never the data: a PIN is data."""
        name = type(self._card.selected).__name__.lower()
        cla, ins, p1, p2 = (*frame[:4], 0, 0, 0, 0)[:4]
        entry: dict[str, Any] = {"application": name, "cla": cla, "ins": ins, "p1": p1, "p2": p2}
        at = frame.find(b"\x5c\x03", 5)
        if ins in (GET_DATA, PUT_DATA) and 5 <= at <= 7:
            entry["object"] = int.from_bytes(frame[at + 2 : at + 5])
        entry["sw"] = int.from_bytes(answer[-2:])
        with self._lock:
            self._log.append(entry)
