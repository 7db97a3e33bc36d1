"""What a command and a session's agent say to each other: frames of one JSON object each (docs/spec/session.md).

A frame is its length (4 bytes, big-endian, which does not count itself), one byte that says what it is, and a JSON
object in UTF-8. In: bytes from a socket. Out: the kind and the object; or ``ProtocolError``. Files go along as
descriptors. Not here: which members an object has (requests.py), and what is done about it.

Loaded by every command that a session serves, so it imports next to nothing.
"""

from __future__ import annotations

import json
import os
import socket
import time

from medcrypt_hsm.errors import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Lock
    from typing import Any, TypeAlias

    Frame: TypeAlias = tuple[int, dict[str, Any], list[int]]

VERSION = 2
TEXTS, CHARACTERS = 10_000, 16 << 20  # of one request to open messages: how many, and how long together, in bytes
SHORT, LONG, ANSWER = 1 << 16, CHARACTERS + (1 << 20), 64 << 20  # bytes of a frame; an answer comes in pieces of PIECE
PIECE = 1 << 20
PATIENCE = 30.0  # seconds in which the rest of a request must come

HELLO, STATUS, LOCK = 1, 2, 3
ENCRYPT, DECRYPT, IMPORT, SEND_FILE, TAKE_FILE, KEPT = 16, 17, 18, 19, 20, 21
PATIENTS, PATIENT, MONTH, VAULT = 24, 25, 26, 27
LOG, EXPORT, MORE, VERIFY, CHECKPOINT = 32, 33, 34, 35, 36
ADD, CONFIRM, QR, REPAIR = 40, 41, 42, 43
DONE, ERROR, TOUCH, TOUCHED, OPENED, SOME = 64, 65, 66, 67, 68, 69
BEGIN, ASK_PIN, PIN = 96, 97, 98

REQUESTS = {
    HELLO: SHORT,
    STATUS: SHORT,
    LOCK: SHORT,
    ENCRYPT: LONG,
    DECRYPT: LONG,
    IMPORT: LONG,
    SEND_FILE: SHORT,
    TAKE_FILE: SHORT,
    KEPT: SHORT,
    PATIENTS: SHORT,
    PATIENT: SHORT,
    MONTH: SHORT,
    VAULT: SHORT,
    LOG: SHORT,
    EXPORT: SHORT,
    MORE: SHORT,
    VERIFY: SHORT,
    CHECKPOINT: SHORT,
    ADD: SHORT,
    CONFIRM: SHORT,
    QR: SHORT,
    REPAIR: SHORT,
}
"""What a command may send, and how long it may be."""
ANSWERS = dict.fromkeys((DONE, ERROR, TOUCH, TOUCHED, OPENED, SOME), ANSWER)
STARTING = dict.fromkeys((BEGIN, ASK_PIN, PIN, DONE, ERROR, TOUCH, TOUCHED), SHORT)
"""What is spoken on the socket pair of an agent and the command that starts it."""


class ProtocolError(Exception):
    """The other side does not speak this. Says nothing of what it said."""


def encode(kind: int, value: dict[str, Any] | None = None) -> bytes:
    """The whole frame. Raises Failed for one that is too long."""
    data = json.dumps(value or {}, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(data) + 1 > REQUESTS.get(kind, ANSWER):
        raise Failed("that is too long for a session", "run the command again with --no-session")
    return (len(data) + 1).to_bytes(4, "big") + bytes((kind,)) + data


def receive(connection: socket.socket, kinds: dict[int, int], long: Lock | None = None) -> Frame | None:
    """The next frame of one of ``kinds``, with their longest lengths, and the descriptors that came with its head.

    None where the other side has ended between two. ``long`` is held while a long one comes in. Raises ProtocolError,
    OSError.
    """
    head, fds = _head(connection)
    if not head:
        _close(fds)
        return None
    try:
        length, kind = int.from_bytes(head[:4], "big"), head[4]
        if not 1 < length <= kinds.get(kind, 0):
            raise ProtocolError("no such frame, or not of that length")
        if long is None:
            return kind, parse(_exactly(connection, length - 1)), fds
        if length <= SHORT:
            return kind, _parse_short(_exactly(connection, length - 1, PATIENCE)), fds
        with long:
            return kind, parse(_exactly(connection, length - 1, PATIENCE)), fds
    except BaseException:
        _close(fds)
        raise


def _head(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The first five bytes. Descriptors beyond two are not even taken: the kernel keeps them from us."""
    head, fds = b"", []
    while len(head) < 5:
        part, more, _, _ = socket.recv_fds(connection, 5 - len(head), 2)
        fds += more
        if not part:
            if head:
                _close(fds)
                raise ProtocolError("cut short")
            break
        head += part
    return head, fds


def _exactly(connection: socket.socket, length: int, within: float | None = None) -> bytearray:
    data = bytearray(length)
    end = None if within is None else time.monotonic() + within
    with memoryview(data) as view:
        at = 0
        while at < length:
            if end is not None:
                connection.settimeout(max(0.001, end - time.monotonic()))
            count = connection.recv_into(view[at:])
            if not count:
                raise ProtocolError("cut short")
            at += count
    if end is not None:
        connection.settimeout(None)
    return data


def _parse_short(data: bytearray) -> dict[str, Any]:
    """The same, and no copy is left here: it may hold a PIN."""
    try:
        return parse(data)
    finally:
        data[:] = bytes(len(data))


def _close(fds: list[int]) -> None:
    for fd in fds:
        closed_by(fd)


closed_by = os.close
"""How a descriptor that came along is closed: an agent keeps those of the vault's own files (session/transfer.py)."""


def parse(data: bytes | bytearray) -> dict[str, Any]:
    """A JSON object, no member twice, and no number but whole ones. Raises ProtocolError."""
    try:
        value = _DECODE(data.decode("utf-8"))
    except (ValueError, RecursionError):  # a UnicodeDecodeError is one, and carries the data along
        value = None
    if not isinstance(value, dict):
        raise ProtocolError("not a JSON object")
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member that is there twice")
    return found


def _refuse(text: str) -> object:
    raise ValueError("not a whole number")


_DECODE = json.JSONDecoder(object_pairs_hook=_members, parse_float=_refuse, parse_constant=_refuse).decode
