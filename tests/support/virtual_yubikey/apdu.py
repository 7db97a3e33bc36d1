"""Command APDUs in all their forms, command chaining, GET RESPONSE and BER-TLV (ISO/IEC 7816-4, 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

OK = 0x9000
TRIES_LEFT = 0x63C0  # and the number
WRONG_LENGTH = 0x6700
SECURITY_STATUS = 0x6982
BLOCKED = 0x6983
CONDITIONS = 0x6985
WRONG_DATA = 0x6A80
NOT_FOUND = 0x6A82
NO_SPACE = 0x6A84
NO_REFERENCE = 0x6A88
WRONG_P1P2 = 0x6B00
NO_INSTRUCTION = 0x6D00
NO_CLASS = 0x6E00

SELECT, GET_RESPONSE = 0xA4, 0xC0
CHAINED = 0x10  # bit of CLA: not the last part of a command
BUFFER = 3072  # of the device, for one command's data however it came (yubico-piv-tool: CB_BUF_MAX_YK4)


class Refused(Exception):
    """The command ends with this status word and no data."""

    def __init__(self, sw: int) -> None:
        self.sw = sw
        super().__init__(f"{sw:04X}")


@dataclass(frozen=True)
class Command:
    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = field(default=b"", repr=False)  # a PIN, for example
    expected: int = 256  # bytes that fit one answer

    @property
    def p1p2(self) -> int:
        return self.p1 << 8 | self.p2


def parse(raw: bytes) -> Command:
    """One command APDU, short or extended. Raises Refused(6700) for lengths that do not add up."""
    if len(raw) < 4:
        raise Refused(WRONG_LENGTH)
    header, body = raw[:4], raw[4:]
    match len(body):
        case 0:
            data, expected = b"", 256
        case 1:
            data, expected = b"", body[0] or 256
        case 3 if body[0] == 0:
            data, expected = b"", int.from_bytes(body[1:]) or 65536
        case _:
            data, expected = _data_and_le(body)
    cla, ins, p1, p2 = header
    return Command(cla, ins, p1, p2, data, expected)


def _data_and_le(body: bytes) -> tuple[bytes, int]:
    if body[0]:
        size, rest, most = body[0], body[1:], 256
    else:
        size, rest, most = int.from_bytes(body[1:3]), body[3:], 65536
    data, le = rest[:size], rest[size:]
    if size == 0 or len(data) < size or len(le) not in ((0, 1) if most == 256 else (0, 2)):
        raise Refused(WRONG_LENGTH)
    return data, int.from_bytes(le) or most


class Chaining:
    """Puts the parts of a chained command together, and deals out an answer too long for one APDU."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._parts: Command | None = None
        self._rest = b""

    def run(self, part: Command, execute: Callable[[Command], bytes]) -> tuple[bytes, int]:
        """The answer and status word to one part. ``execute`` gets the whole command when its last part has come."""
        if part.ins == GET_RESPONSE and self._parts is None:
            if not self._rest:
                raise Refused(CONDITIONS)
            return self._deal(self._rest, part.expected)
        self._rest = b""
        command = self._joined(part)
        if part.cla & CHAINED:
            self._parts = command
            return b"", OK
        return self._deal(execute(replace(command, cla=part.cla)), part.expected)

    def _joined(self, part: Command) -> Command:
        before, self._parts = self._parts, None
        if before is None or (before.ins, before.p1p2) != (part.ins, part.p1p2):
            joined = part  # another command in between ends the chain
        else:
            joined = replace(part, data=before.data + part.data)
        if len(joined.data) > BUFFER:
            raise Refused(WRONG_LENGTH)
        return joined

    def _deal(self, answer: bytes, expected: int) -> tuple[bytes, int]:
        answer, self._rest = answer[:expected], answer[expected:]
        if self._rest:
            return answer, 0x6100 | (len(self._rest) if len(self._rest) < 256 else 0)
        return answer, OK


def tlv(tag: int, value: bytes = b"") -> bytes:
    """One BER-TLV with the shortest form of its length."""
    size = len(value)
    if size < 0x80:
        length = bytes([size])
    elif size < 0x100:
        length = bytes([0x81, size])
    else:
        length = b"\x82" + size.to_bytes(2)
    return tag.to_bytes((tag.bit_length() + 7) // 8 or 1) + length + value


def tlvs(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """The BER-TLVs, one after the other, with tags of one or two bytes. Raises Refused(6A80)."""
    while encoded:
        size = 2 if encoded[0] & 0x1F == 0x1F else 1
        tag, encoded = int.from_bytes(encoded[:size]), encoded[size:]
        if not encoded:
            raise Refused(WRONG_DATA)
        length, encoded = encoded[0], encoded[1:]
        if length in (0x81, 0x82):
            more = length & 0x7F
            if len(encoded) < more:
                raise Refused(WRONG_DATA)
            length, encoded = int.from_bytes(encoded[:more]), encoded[more:]
        elif length >= 0x80:
            raise Refused(WRONG_DATA)
        if len(encoded) < length:
            raise Refused(WRONG_DATA)
        yield tag, encoded[:length]
        encoded = encoded[length:]


def tlv_dict(encoded: bytes) -> dict[int, bytes]:
    """Like ``tlvs``; a tag that comes twice is wrong."""
    pairs = list(tlvs(encoded))
    if len(dict(pairs)) != len(pairs):
        raise Refused(WRONG_DATA)
    return dict(pairs)
