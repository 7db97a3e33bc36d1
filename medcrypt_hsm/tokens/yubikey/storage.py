"""The directory and small objects on the card, in data objects of our own. yubikit's errors pass through.

Whatever is kept has two places, and each version a counter: an odd one goes to the second place, an even one to the
first. So the newest is never overwritten, and a write that is cut off leaves the one before it.

Any program can read these objects without the PIN, and write them with the management key: nothing secret is in them.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

from yubikit.core.smartcard import SW, ApduError
from yubikit.piv import PivSession

from medcrypt_hsm.errors import TokenUnfit
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.yubikey import directory
from medcrypt_hsm.tokens.yubikey.directory import Directory

# Away from SP 800-73's (5FC1xx) and from 5FFF00 to 5FFF15, which the vendor's and Microsoft's programs use.
DIRECTORY = (0x5F4D00, 0x5F4D01)
FIRST_OBJECT = 0x5F4D10
PAIRS = directory.PAIRS
LARGEST = 3000  # bytes in one data object; the firmware takes little more
_MAGIC = b"MCO\x01"
_HEAD = struct.Struct(">4sI")


def read(session: PivSession, object_id: int) -> bytes:
    """Empty for one that is not there."""
    try:
        return bytes(session.get_object(object_id))
    except ApduError as exc:
        if exc.sw == SW.FILE_NOT_FOUND:
            return b""
        raise


def load(session: PivSession) -> Directory:
    return directory.newest(read(session, object_id) for object_id in DIRECTORY)


def store(session: PivSession, entries: Directory) -> Directory:
    """Write it as the next version, and give that back. Raises TokenUnfit if it is too large."""
    written = replace(entries, counter=entries.counter + 1)
    _write(session, DIRECTORY[written.counter % 2], directory.encode(written), t("the names on it"))
    return written


def values(session: PivSession, index: int) -> list[tuple[int, bytes]]:
    """Counter and value of each version of a small object that is there, newest first."""
    stored = (_parse(read(session, object_id)) for object_id in _pair(index))
    return sorted((version for version in stored if version is not None), reverse=True)


def put(session: PivSession, index: int, value: bytes) -> None:
    """Write it as the next version, then empty the place of the one before."""
    counter = max((counter for counter, _ in values(session, index)), default=0) + 1
    body = _HEAD.pack(_MAGIC, counter) + value
    _write(session, _pair(index)[counter % 2], body + hashlib.sha256(body).digest(), t("what is to be kept on it"))
    _empty(session, _pair(index)[(counter + 1) % 2])


def clear(session: PivSession, index: int) -> None:
    for object_id in _pair(index):
        _empty(session, object_id)


def _pair(index: int) -> tuple[int, int]:
    return FIRST_OBJECT + 2 * index, FIRST_OBJECT + 2 * index + 1


def _empty(session: PivSession, object_id: int) -> None:
    if read(session, object_id):
        session.put_object(object_id, b"")


def _write(session: PivSession, object_id: int, data: bytes, what: str) -> None:
    if len(data) > LARGEST:
        raise TokenUnfit(
            t(
                "{object} would take {count} bytes, and a YubiKey keeps {most} in one object",
                object=what,
                count=len(data),
                most=LARGEST,
            )
        )
    session.put_object(object_id, data)


def _parse(data: bytes) -> tuple[int, bytes] | None:
    body, digest = data[:-32], data[-32:]
    if len(body) < _HEAD.size or hashlib.sha256(body).digest() != digest:
        return None
    magic, counter = _HEAD.unpack_from(body)
    return (counter, body[_HEAD.size :]) if magic == _MAGIC else None
