"""The card as a whole: power, reset, SELECT, and the application that answers."""

from __future__ import annotations

from typing import Protocol

from tests.support.virtual_yubikey.apdu import (
    CHAINED,
    NO_CLASS,
    NO_INSTRUCTION,
    NOT_FOUND,
    OK,
    SELECT,
    Chaining,
    Command,
    Refused,
    parse,
)
from tests.support.virtual_yubikey.finger import Finger
from tests.support.virtual_yubikey.management import Management, Otp
from tests.support.virtual_yubikey.piv import Piv
from tests.support.virtual_yubikey.store import Store

SHORTEST_AID = 5  # bytes of an application's name that are enough to select it


class Application(Protocol):
    aid: bytes

    def select(self) -> bytes: ...
    def forget(self) -> None: ...
    def handle(self, command: Command) -> bytes: ...


class Card:
    """Answers APDUs. ``selected`` is the application that does."""

    def __init__(self, store: Store, finger: Finger | None = None) -> None:
        self.store = store
        self.finger = finger or Finger()
        self._applications: list[Application] = [Piv(store, self.finger), Management(store)]
        if store.state.firmware.major < 5:
            self._applications.append(Otp(store))
        self._chaining = Chaining()
        self.selected: Application | None = None

    @property
    def atr(self) -> bytes:
        return self.store.state.firmware.atr

    def reset(self) -> None:
        """Power came back, or the reader asked for it: nothing is selected or proven any more."""
        for application in self._applications:
            application.forget()
        self._chaining.clear()
        self.selected = None

    def transmit(self, raw: bytes) -> bytes:
        """The answer to one command APDU: data and status word."""
        try:
            command = parse(raw)
            if command.cla & ~CHAINED:
                raise Refused(NO_CLASS)
            data, sw = self._chaining.run(command, self._execute)
        except Refused as refused:
            data, sw = b"", refused.sw
        if sw >> 8 not in (OK >> 8, 0x61):
            data = b""
        return data + sw.to_bytes(2)

    def _execute(self, command: Command) -> bytes:
        if command.ins == SELECT:
            return self._select(command)
        if self.selected is None:
            raise Refused(NO_INSTRUCTION)
        return self.selected.handle(command)

    def _select(self, command: Command) -> bytes:
        """By the application's name or the beginning of it (ISO/IEC 7816-4, 11.2.2). One not found changes nothing."""
        if command.p1 != 0x04 or command.p2 != 0x00:
            raise Refused(NOT_FOUND)
        for application in self._applications:
            if len(command.data) >= SHORTEST_AID and application.aid.startswith(command.data):
                if self.selected is not None:
                    self.selected.forget()
                self.selected = application
                return application.select()
        raise Refused(NOT_FOUND)
