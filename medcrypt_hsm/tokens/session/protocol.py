"""What a command and a session's agent say to each other: frames of byte strings (docs/spec/session.md).

A frame is its length (4 bytes, big-endian) and as many bytes: one byte that says what it is, then ``lp`` of each field.
In: bytes from a socket. Out: ``Frame``; or ``ProtocolError`` for anything else. Errors travel as the name of their
class with message and hint, never as code. Not here: what is done about a frame (service.py, client.py).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from medcrypt_hsm import errors
from medcrypt_hsm.errors import Failed, MedcryptError, WrongPin
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Evidence, TokenInfo

VERSION = 1
LONGEST = 32 << 20  # bytes of a frame; a chat of 10,000 messages makes an audit entry of two million
CHUNK = 1 << 18  # bytes that one request to open several texts holds at most, but for a single longer one


class Op(IntEnum):
    """First byte of a frame. Requests, then answers, then what only an agent and the command that starts it say."""

    HELLO = 1
    STATUS = 2
    LOCK = 3
    CHECK = 4
    NAMES = 5
    PROFILES = 6
    MISSING = 7
    EVIDENCE = 8
    ATTESTATION = 9
    PUBLIC_KEY = 10
    SIGN = 11
    READ_OBJECTS = 12
    PUT_OBJECT = 13
    UNWRAP_KEYSET = 14
    SEAL = 15
    OPEN = 16
    OPEN_MANY = 17
    MAC = 18
    WRAP = 19
    UNWRAP_AEAD = 20
    UNWRAP_MAC = 21
    DESTROY = 22

    DONE = 64
    ERROR = 65
    TOUCH = 66  # the token waits for a finger; DONE or ERROR follows
    TOUCHED = 67

    BEGIN = 96
    ASK_PIN = 97
    PIN = 98


FIELDS = {
    Op.HELLO: 2,
    Op.STATUS: 0,
    Op.LOCK: 1,
    Op.CHECK: 0,
    Op.NAMES: 0,
    Op.PROFILES: 0,
    Op.MISSING: 1,
    Op.EVIDENCE: 1,
    Op.ATTESTATION: 1,
    Op.PUBLIC_KEY: 1,
    Op.SIGN: 2,
    Op.READ_OBJECTS: 1,
    Op.PUT_OBJECT: 2,
    Op.UNWRAP_KEYSET: 3,
    Op.SEAL: 4,
    Op.OPEN: 4,
    Op.MAC: 2,
    Op.WRAP: 2,
    Op.UNWRAP_AEAD: 2,
    Op.UNWRAP_MAC: 2,
    Op.DESTROY: 1,
    Op.ERROR: 4,
    Op.TOUCH: 0,
    Op.TOUCHED: 0,
    Op.BEGIN: 1,
    Op.ASK_PIN: 1,
    Op.PIN: 1,
}
"""How many fields a frame has; OPEN_MANY and DONE have any number."""


class ProtocolError(Exception):
    """The other side does not speak this. Says nothing of what it said."""


class Frame(NamedTuple):
    op: Op
    fields: list[bytes]

    def __repr__(self) -> str:
        return f"Frame({self.op.name}, {len(self.fields)} fields)"


def encode(op: Op, fields: Iterable[bytes] = ()) -> bytes:
    """The whole frame. Raises Failed for one that is too long."""
    parts = [b"", bytes((op,))]
    for value in fields:
        parts += (len(value).to_bytes(4, "big"), value)
    length = sum(map(len, parts))
    if length > LONGEST:
        raise Failed("that is too long for a session", "run the command again with --no-session")
    parts[0] = length.to_bytes(4, "big")
    return b"".join(parts)


def decode(payload: bytes) -> Frame:
    """A frame from what follows its length. Raises ProtocolError for anything but what ``encode`` makes."""
    try:
        op = Op(payload[0])
    except (IndexError, ValueError):
        raise ProtocolError("unknown frame") from None
    fields, at, end = [], 1, len(payload)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(payload[at:start], "big")
        if start > end or at > end:
            raise ProtocolError("a field is cut short")
        fields.append(payload[start:at])
    if len(fields) != FIELDS.get(op, len(fields)):
        raise ProtocolError("another number of fields")
    return Frame(op, fields)


def receive(connection: socket.socket) -> Frame | None:
    """The next frame; None where the other side has ended between two. Raises ProtocolError, OSError."""
    head = _exactly(connection, 4)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if not 1 <= length <= LONGEST:
        raise ProtocolError("a frame of that length")
    payload = _exactly(connection, length)
    if payload is None:
        raise ProtocolError("a frame is cut short")
    return decode(payload)


def _exactly(connection: socket.socket, length: int) -> bytes | None:
    first = connection.recv(length)
    if len(first) == length:
        return first
    if not first:
        return None
    parts, left = [first], length - len(first)
    while left:
        part = connection.recv(min(left, 1 << 20))
        if not part:
            raise ProtocolError("cut short")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


_MISUSE: Mapping[str, type[Exception]] = {kind.__name__: kind for kind in (KeyError, ValueError, RuntimeError)}


def _tree(kind: type[MedcryptError]) -> dict[str, type[MedcryptError]]:
    found = {kind.__name__: kind} if kind.__module__ == errors.__name__ else {}
    for below in kind.__subclasses__():
        found |= _tree(below)
    return found


def encode_error(exc: Exception) -> bytes:
    """An ERROR frame. Of what is no error of ours only the kind is told: its text may hold anything."""
    if isinstance(exc, MedcryptError):
        kind = next(name for name in (c.__name__ for c in type(exc).__mro__) if name in _tree(MedcryptError))
        tries = getattr(exc, "tries_left", None)
        fields = (kind, exc.message, exc.hint, "" if tries is None else str(tries))
    else:
        misuse = next((name for name, kind in _MISUSE.items() if isinstance(exc, kind)), "")
        # A KeyError is of a name that the other side has given; the others' words are this program's own.
        fields = (misuse, str(exc.args[0]) if misuse and exc.args else type(exc).__name__, "", "")
    return encode(Op.ERROR, [text.encode("utf-8", "replace") for text in fields])


def error(fields: Sequence[bytes]) -> Exception:
    """The error that an ERROR frame tells of."""
    kind, message, hint, tries = (field.decode("utf-8", "replace") for field in fields)
    if kind in _MISUSE:
        return _MISUSE[kind](message)
    known = _tree(MedcryptError).get(kind)
    if known is WrongPin:
        return WrongPin(message, hint, tries_left=int(tries) if tries.isascii() and tries.isdigit() else None)
    if known is not None:
        return known(message, hint)
    return Failed(t("the session failed ({reason})", reason=message), "run the command again with --no-session")


def text(field: bytes) -> str:
    """Raises ProtocolError."""
    try:
        return field.decode()
    except UnicodeDecodeError:
        raise ProtocolError("not UTF-8") from None


def number(field: bytes) -> int:
    """Raises ProtocolError."""
    if len(field) != 4:
        raise ProtocolError("not a number")
    return int.from_bytes(field, "big")


def document(field: bytes) -> dict[str, Any]:
    """A JSON object. Raises ProtocolError."""
    try:
        value = json.loads(field)
    except (ValueError, RecursionError):
        raise ProtocolError("not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("not an object")
    return value


def info_document(info: TokenInfo) -> dict[str, Any]:
    value = {name: getattr(info, name) for name in TokenInfo._fields if name != "name"}  # of vaults it knows nothing
    return value | {"pin_flags": sorted(info.pin_flags)}


def info_of(value: Mapping[str, Any]) -> TokenInfo:
    """Raises ProtocolError."""
    try:
        return TokenInfo(**{**value, "pin_flags": frozenset(value["pin_flags"])})
    except (KeyError, TypeError):
        raise ProtocolError("not what a token says of itself") from None


def encode_evidence(evidence: Evidence) -> bytes:
    return canonical(
        {"name": evidence.name, "claims": dict(evidence.claims), "problems": list(evidence.problems)},
    )


def evidence_of(field: bytes) -> Evidence:
    """Raises ProtocolError."""
    value = document(field)
    try:
        return Evidence(value["name"], value["claims"], tuple(value["problems"]))
    except (KeyError, TypeError):
        raise ProtocolError("not evidence of a key") from None
