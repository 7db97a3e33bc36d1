"""Files of version 2 (docs/spec/files.md): header, metadata and chunks, as bytes ↔ values.

``sealed`` and ``opened`` are STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015). In: a file key and something to read
from. Out: pieces of a mebibyte or so, however long the file. What ``opened`` yields is authentic; that the file is
complete is known only when the generator has ended. Not here: message keys, months, names on a disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from medcrypt_hsm.crypto.gcm import TAG_BYTES, Gcm
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import Malformed, NotAuthentic, UsageError
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import ctx
from medcrypt_hsm.sentences import t

MAGIC = b"MEDCRYPT-FILE\n"
HEADER_BYTES = 93
CHUNK = 1 << 16
STORED = CHUNK + TAG_BYTES
MOST_CHUNKS = 1 << 32
KEY_BYTES, PREFIX_BYTES, NONCE_BYTES = 32, 7, 12
NAME_BYTES = 255
UNKNOWN_TYPE = "application/octet-stream"
_VERSION = 2
_HEAD_BYTES = 45  # all before the sealed file key
_AT_ONCE = 16  # chunks that are read and written together
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII)
_AGAIN = t("fetch the file again, unchanged; if that does not help, ask its sender for it")


class Source(Protocol):
    """What is read from: a file opened without a buffer of its own will do."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class FileHeader(NamedTuple):
    """A well-formed header that nobody has authenticated yet. ``sealed`` is the file key, and ``text`` the whole of it.

    It is named as a message's fields are, for it is read like one: its plaintext is the file key.
    """

    pairing: bytes
    month: Month
    sender: str
    prefix: bytes
    nonce: bytes
    sealed: bytes
    text: bytes

    @property
    def aad(self) -> bytes:
        return key_aad(self.text[:_HEAD_BYTES])

    @classmethod
    def parse(cls, raw: bytes) -> FileHeader:
        """Read the first 93 bytes of a file. Raises Malformed."""
        if not raw.startswith(MAGIC):
            hint = t("for messages use 'medcrypt decrypt'; {otherwise}", otherwise=_AGAIN)
            raise Malformed("this is not a MedCrypt file", hint)
        if len(raw) < HEADER_BYTES:
            raise Malformed("the file is cut off within its header", _AGAIN)
        if raw[14] != _VERSION:
            raise Malformed("the file's version is unknown", "update this program, or ask for the file again")
        month, sender = int.from_bytes(raw[23:25], "big"), raw[25:26]
        if month >= 1200:
            raise Malformed("the file's month is after 2099-12", _AGAIN)
        if sender not in (b"d", b"p"):
            raise Malformed("the file's sender is neither d nor p", _AGAIN)
        return cls(raw[15:23], Month(month), sender.decode(), raw[26:33], raw[33:45], raw[45:93], raw[:93])


def head(pairing: bytes, month: Month, sender: str, prefix: bytes, nonce: bytes) -> bytes:
    """The header up to the sealed file key. Raises ValueError for fields of no file."""
    if (len(pairing), len(prefix), len(nonce)) != (8, PREFIX_BYTES, NONCE_BYTES) or sender not in ("d", "p"):
        raise ValueError("a pairing is 8 bytes, a prefix 7, a nonce 12, and a sender 'd' or 'p'")
    return MAGIC + bytes([_VERSION]) + pairing + month.ordinal.to_bytes(2, "big") + sender.encode() + prefix + nonce


def key_aad(head: bytes) -> bytes:
    """What the sealed file key is bound to."""
    return ctx("medcrypt/v2/file", head)


def check_length(length: int) -> None:
    """Can a file have so many bytes? Raises Malformed."""
    last = (length - HEADER_BYTES) % STORED
    if length < HEADER_BYTES + TAG_BYTES + 1 or 1 <= last <= TAG_BYTES:
        raise Malformed("the file is cut off: no whole file has its length", _AGAIN)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The file's name and media type, as the sender says. Raises ValueError for what no file carries."""

    name: str = field(repr=False)  # as confidential as the content
    media_type: str = UNKNOWN_TYPE

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.encode()) <= NAME_BYTES or _TYPE.fullmatch(self.media_type) is None:
            raise ValueError("a name has 1 to 255 bytes, and a media type is type/subtype")

    def encode(self) -> bytes:
        name, media_type = self.name.encode(), self.media_type.encode()
        return bytes([len(name)]) + name + bytes([len(media_type)]) + media_type

    @classmethod
    def parse(cls, payload: memoryview) -> tuple[Metadata, memoryview]:
        """From the beginning of a payload; and what follows it. Raises Malformed."""
        name, rest = _counted(payload)
        media_type, rest = _counted(rest)
        text = name.decode("utf-8", "replace")
        if not name or text.encode() != name:  # compared, not caught: a UnicodeDecodeError carries the name along
            raise _odd(t("name"))
        said = media_type.decode("ascii", "replace")
        if _TYPE.fullmatch(said) is None:
            raise _odd(t("media type"))
        return cls(text, said), rest


def _counted(payload: memoryview) -> tuple[bytes, memoryview]:
    end = 1 + payload[0] if payload else 1
    if len(payload) < end:
        raise _odd(t("beginning"))
    return bytes(payload[1:end]), payload[end:]


def _odd(what: str) -> Malformed:
    return Malformed(t("the file is authentic, but its {part} is not as it should be", part=what), "tell its sender")


def most_content(metadata: Metadata) -> int:
    """How many bytes fit after ``metadata``: some 256 TiB."""
    return MOST_CHUNKS * CHUNK - len(metadata.encode())


def chunk_nonce(prefix: bytes, counter: int, *, last: bool) -> bytes:
    """Raises UsageError where the counter ends: it must never begin again under one key."""
    if counter >= MOST_CHUNKS:
        raise UsageError("the file is too long for the format", "send it in several files")
    return prefix + counter.to_bytes(4, "big") + (b"\1" if last else b"\0")


def sealed(key: Secret, header: FileHeader, metadata: Metadata, source: Source) -> Iterator[memoryview]:
    """The chunks that follow ``header``, several at once. Each view is valid until the next is asked for."""
    aad = _chunk_aad(header)
    out = memoryview(bytearray(_AT_ONCE * STORED))
    counter = 0
    for batch, ends in _batches(source, _AT_ONCE * CHUNK, metadata.encode()):
        cipher = Gcm(key.value)
        written = 0
        for start in range(0, len(batch), CHUNK):
            chunk = batch[start : start + CHUNK]
            nonce = chunk_nonce(header.prefix, counter, last=ends and start + CHUNK >= len(batch))
            written += cipher.seal_into(nonce, chunk, aad, out[written : written + len(chunk) + TAG_BYTES])
            counter += 1
        yield out[:written]


def opened(key: Secret, header: FileHeader, source: Source) -> Iterator[memoryview]:
    """The payload from the chunks that follow ``header``. Each view is valid until the next is asked for.

    The first holds the metadata whole. Raises NotAuthentic, also at the very end: only then is the file known to be
    whole.
    """
    aad = _chunk_aad(header)
    out = memoryview(bytearray(_AT_ONCE * CHUNK))
    counter = 0
    for batch, ends in _batches(source, _AT_ONCE * STORED):
        cipher = Gcm(key.value)
        written = 0
        for start in range(0, len(batch), STORED):
            chunk = batch[start : start + STORED]
            last = ends and start + STORED >= len(batch)
            if len(chunk) <= TAG_BYTES:
                raise NotAuthentic("the file is cut off: its end is missing", _AGAIN)
            into = out[written : written + len(chunk) - TAG_BYTES]
            try:
                written += cipher.open_into(chunk_nonce(header.prefix, counter, last=last), chunk, aad, into)
            except NotAuthentic as exc:
                raise _wrong(cipher, header, counter, chunk, aad, last=last) from exc
            counter += 1
        yield out[:written]


def _chunk_aad(header: FileHeader) -> bytes:
    return ctx("medcrypt/v2/file/chunk", header.text)


def _wrong(cipher: Gcm, header: FileHeader, counter: int, chunk: memoryview, aad: bytes, *, last: bool) -> NotAuthentic:
    """Why a chunk did not open: does the file only end at the wrong place?"""
    if not cipher.is_authentic(chunk_nonce(header.prefix, counter, last=not last), chunk, aad):
        return NotAuthentic("the file was altered", _AGAIN)
    return NotAuthentic(
        "the file is cut off: its end is missing" if last else "the file goes on behind its end: something was added",
        _AGAIN,
    )


def _batches(source: Source, size: int, first: bytes = b"") -> Iterator[tuple[memoryview, bool]]:
    """``first`` and all that ``source`` gives in pieces of ``size``; and of each whether it is the last.

    One is read ahead: where the file ends is known before the piece that ends there is handed out.
    """
    here, ahead = memoryview(bytearray(size)), memoryview(bytearray(size))
    here[: len(first)] = first
    filled = len(first) + _fill(source, here[len(first) :])
    while True:
        more = _fill(source, ahead) if filled == size else 0
        yield here[:filled], not more
        if not more:
            return
        here, ahead, filled = ahead, here, more


def _fill(source: Source, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer) and (count := source.readinto(buffer[filled:])):
        filled += count
    return filled
