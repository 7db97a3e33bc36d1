"""As much of D-Bus as it takes to hear signals: connect, ask for some, read them (D-Bus Specification 0.38 and later).

In: a bus's address and match rules. Out: ``Signal`` values as they come. Only unix sockets, and nothing is called but
the bus itself. A message that cannot be read ends the connection: ``BusLost``, as when the bus goes.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

CALL, ANSWER, FAILED, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _REPLY_TO, _DESTINATION, _SENDER, _SIGNATURE = 1, 2, 3, 5, 6, 7, 8
_TYPES = {_PATH: "o", _INTERFACE: "s", _MEMBER: "s", _DESTINATION: "s", _SIGNATURE: "g"}
_ARGUMENTS = {str: "s", bool: "b", int: "u"}
_LONGEST = 1 << 20  # bytes of a message that is read at all
_PATIENCE = 2.0  # seconds for the bus to answer
_THE_BUS = {_PATH: "/org/freedesktop/DBus", _INTERFACE: "org.freedesktop.DBus", _DESTINATION: "org.freedesktop.DBus"}


class BusLost(Exception):
    """There is no bus, or it has gone, or says what nobody understands."""


class Signal(NamedTuple):
    path: str
    interface: str
    member: str
    yes: bool  # the first argument, if that is a boolean; else True


class _Message(NamedTuple):
    kind: int
    fields: dict[int, str | int]
    order: str  # of bytes, as struct has it
    body: bytes

    @property
    def yes(self) -> bool:
        if not str(self.fields.get(_SIGNATURE, "")).startswith("b"):
            return True
        return len(self.body) >= 4 and struct.unpack_from(self.order + "I", self.body)[0] == 1


class Bus:
    """A connection to one bus. ``fileno`` is for ``select``."""

    def __init__(self, address: str) -> None:
        """Raises BusLost."""
        self._buffer = bytearray()
        self._serial = 0
        self._socket = _connected(address)
        try:
            self._authenticate()
            self.call("Hello")
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _authenticate(self) -> None:
        """SASL EXTERNAL: the bus knows from the socket who we are."""
        self._send(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        answer = bytearray()
        while not answer.endswith(b"\r\n"):
            answer += self._received()
        if not answer.startswith(b"OK "):
            raise BusLost
        self._send(b"BEGIN\r\n")

    def call(self, member: str, *arguments: str) -> bool:
        """A method of the bus itself; its answer if that is a boolean. Raises BusLost."""
        serial = self.send(CALL, _THE_BUS | {_MEMBER: member}, *arguments)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            for message in self._messages():
                if message.fields.get(_REPLY_TO) == serial:
                    if message.kind != ANSWER:
                        raise BusLost
                    return message.yes
            self._buffer += self._received()
        raise BusLost

    def listen(self, **rule: str) -> None:
        """Ask for signals that fit. Raises BusLost."""
        self.call("AddMatch", ",".join(f"{key}='{value}'" for key, value in ({"type": "signal"} | rule).items()))

    def signals(self) -> Iterator[Signal]:
        """Those that have come, once ``select`` says that something has. Raises BusLost."""
        self._buffer += self._received()
        for message in self._messages():
            if message.kind == SIGNAL:
                path, interface, member = (str(message.fields.get(f, "")) for f in (_PATH, _INTERFACE, _MEMBER))
                yield Signal(path, interface, member, message.yes)

    def send(self, kind: int, fields: dict[int, str], *arguments: str | bool | int) -> int:
        """A message with strings, booleans and unsigned numbers for arguments; its serial. Raises BusLost."""
        self._serial += 1
        body = bytearray()
        for value in arguments:
            _align(body, 4)
            body += _string(value) if isinstance(value, str) else struct.pack("<I", value)
        if arguments:
            fields = fields | {_SIGNATURE: "".join(_ARGUMENTS[type(value)] for value in arguments)}
        head = bytearray()
        for code, value in fields.items():
            _align(head, 8)
            kind_of = _TYPES[code]
            head += bytes((code, 1)) + kind_of.encode() + b"\0"
            head += bytes((len(value),)) + value.encode() + b"\0" if kind_of == "g" else _string(value)
        length = len(head)
        _align(head, 8)
        fixed = struct.pack("<cBBBII", b"l", kind, 0, 1, len(body), self._serial) + struct.pack("<I", length)
        self._send(fixed + bytes(head) + bytes(body))
        return self._serial

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as exc:
            raise BusLost from exc

    def _received(self) -> bytes:
        try:
            data = self._socket.recv(65536)
        except OSError as exc:
            raise BusLost from exc
        if not data:
            raise BusLost
        return data

    def _messages(self) -> Iterator[_Message]:
        """Those that are whole in the buffer; they leave it."""
        while len(self._buffer) >= 16:
            order = {b"l": "<", b"B": ">"}.get(bytes(self._buffer[:1]))
            if order is None:
                raise BusLost
            body_length, _, length = struct.unpack_from(order + "III", self._buffer, 4)
            start = 16 + -(-length // 8) * 8
            if start + body_length > _LONGEST:
                raise BusLost
            if len(self._buffer) < start + body_length:
                return
            data = bytes(self._buffer[: start + body_length])
            del self._buffer[: start + body_length]
            try:
                fields = dict(_fields(data[16 : 16 + length], order))
            except (struct.error, UnicodeDecodeError, IndexError) as exc:
                raise BusLost from exc
            yield _Message(data[1], fields, order, data[start:])


def _fields(head: bytes, order: str) -> Iterator[tuple[int, str | int]]:
    """The header fields. Every one that the specification knows has one of four types."""
    at = 0
    while at < len(head):
        at = -(-at // 8) * 8
        code, kind = head[at], head[at + 2 : at + 3]
        at += 4
        if kind == b"u":
            (number,) = struct.unpack_from(order + "I", head, at)
            yield code, number
            at += 4
            continue
        if kind == b"g":
            length, begin = head[at], at + 1
        elif kind in (b"s", b"o"):
            (length,) = struct.unpack_from(order + "I", head, at)
            begin = at + 4
        else:
            raise IndexError
        if begin + length >= len(head):  # the NUL after it is in the header too
            raise IndexError
        yield code, head[begin : begin + length].decode()
        at = begin + length + 1


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _align(data: bytearray, to: int) -> None:
    data += bytes(-len(data) % to)


def _connected(address: str) -> socket.socket:
    """To the first of several addresses that answers. Raises BusLost."""
    for one in address.split(";"):
        kind, _, rest = one.partition(":")
        pairs = dict(pair.partition("=")[::2] for pair in rest.split(","))
        where = pairs.get("path") or ("\0" + pairs["abstract"] if pairs.get("abstract") else "")
        if kind != "unix" or not where:
            continue
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(unquote(where))
            return connection
        except (OSError, ValueError):
            connection.close()
    raise BusLost
