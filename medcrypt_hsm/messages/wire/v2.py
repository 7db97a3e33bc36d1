"""Messages of version 2 (docs/spec/messages.md, "Version 2").

Text → ``parse`` → ``MessageV2``; the way back is ``encode``. ``split`` cuts a plaintext into the bytes of each part;
wire/parts.py brings parts together again. What is not here: keys, clocks, and what a reader may read.

``FORM`` is the whole grammar in one pattern, trailing bits of base64 included, because a year of chat is read in one
call: a message that matches needs no second look at its fields.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from functools import lru_cache
from typing import NamedTuple

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import encode_base64
from medcrypt_hsm.sentences import t

WIRE_CHARACTERS = 4000
MOST_PARTS = 999
PAIRING_BYTES = 8
MESSAGE_ID_BYTES = 4
NONCE_BYTES = 12
TAG_BYTES = 16
_PREFIX = "[MEDCRYPT:v2:"
_B64 = "[A-Za-z0-9+/]"
# Unless the bytes are a multiple of three, the last character has unused bits, which are zero: two after 3k + 2 bytes,
# four after 3k + 1.
_TWO_ZERO_BITS = "AEIMQUYcgkosw048"
_FOUR_ZERO_BITS = "AQgw"
_MONTH = "20[0-9]{2}-(?:0[1-9]|1[0-2])"
_COUNT = "[1-9][0-9]{0,2}"
_PART = rf"1\.1|{_COUNT}\.{_COUNT}\.{_B64}{{5}}[{_FOUR_ZERO_BITS}]"
# Groups: pairing, month, sender, part, nonce, ciphertext, tag. Every field but the ciphertext is bounded, and the
# ciphertext's repeat is possessive, so a failed match costs one pass over its candidate and no more.
FORM = (
    rf"\[MEDCRYPT:v2:({_B64}{{10}}[{_TWO_ZERO_BITS}]):({_MONTH}):([dp]):({_PART})"
    rf":({_B64}{{16}}):({_B64}*+):({_B64}{{21}}[{_FOUR_ZERO_BITS}])\]"
)
_FORM = re.compile(FORM)
_FIELDS = (
    ("pairing", re.compile(f"{_B64}{{10}}[{_TWO_ZERO_BITS}]"), "8 bytes in base64 without padding"),
    ("month", re.compile(_MONTH), "YYYY-MM, from 2000-01 to 2099-12"),
    ("sender", re.compile("[dp]"), "d or p"),
    ("part", re.compile(_PART), "1.1, or i.n and a message id"),
    ("nonce", re.compile(f"{_B64}{{16}}"), "12 bytes in base64 without padding"),
    ("ciphertext", re.compile(f"{_B64}*+"), "base64 without padding"),
    ("tag", re.compile(f"{_B64}{{21}}[{_FOUR_ZERO_BITS}]"), "16 bytes in base64 without padding"),
)


class Part(NamedTuple):
    """Which part of how many. ``message_id`` (4 bytes) binds the parts of one message; a whole message has none."""

    index: int  # type: ignore[assignment]  # this and the next are methods of every tuple, which nobody asks for
    count: int  # type: ignore[assignment]
    message_id: bytes | None

    def __str__(self) -> str:
        if self.message_id is None:
            return f"{self.index}.{self.count}"
        return f"{self.index}.{self.count}.{encode_base64(self.message_id, padded=False)}"


WHOLE = Part(1, 1, None)
_PART_AT = len("[MEDCRYPT:v2:") + 11 + len(":YYYY-MM:d:")  # where the part begins: all before it has one length


class MessageV2(NamedTuple):
    """A well-formed message that nobody has authenticated yet. ``sealed`` is ciphertext || tag.

    A tuple and not a dataclass: a frozen dataclass takes several times as long to make, and a year of chat makes many.
    """

    pairing: bytes
    month: Month
    sender: str
    part: Part
    nonce: bytes
    sealed: bytes
    text: str

    @property
    def aad(self) -> bytes:
        """The wire text itself, from ``MEDCRYPT`` up to and including the part: never a re-encoding."""
        part = "1.1" if self.part is WHOLE else str(self.part)
        return self.text[1 : _PART_AT + len(part)].encode("ascii")


def parse(text: str) -> MessageV2:
    """Read one message, from ``[`` to ``]`` and nothing around it. Raises Malformed, naming the field at fault."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise _fault(text)
    return read(match[0], *match.groups())


def read(
    text: str, pairing: str, month: str, sender: str, part: str, nonce: str, ciphertext: str, tag: str
) -> MessageV2:
    """A message from the groups of ``FORM``. What the pattern could not say is checked here. Raises Malformed."""
    if len(text) > WIRE_CHARACTERS:
        raise Malformed("the message is longer than 4,000 characters")
    spare = len(ciphertext) % 4
    if spare:
        if spare == 1 or ciphertext[-1] not in (_FOUR_ZERO_BITS if spare == 2 else _TWO_ZERO_BITS):
            raise Malformed("the ciphertext is not canonical base64")
        ciphertext += "=="[spare - 2 :]
    return MessageV2(
        *_address(pairing, month),
        sender,
        WHOLE if part == "1.1" else _part(part),
        a2b_base64(nonce),
        a2b_base64(ciphertext) + a2b_base64(tag + "=="),
        text,
    )


def header(pairing: bytes, month: Month, sender: str, part: Part) -> bytes:
    """What encryption authenticates beside the plaintext: the AAD. Raises ValueError for fields of no message."""
    if len(pairing) != PAIRING_BYTES or sender not in ("d", "p"):
        raise ValueError("a pairing is 8 bytes, and a sender is 'd' or 'p'")
    if not 1 <= part.index <= part.count <= MOST_PARTS:
        raise ValueError("a part is numbered from 1 to its count, at most 999")
    if len(part.message_id or b"") != (MESSAGE_ID_BYTES if part.count > 1 else 0):
        raise ValueError("parts of one message, and no other, share a message id of 4 bytes")
    return f"MEDCRYPT:v2:{encode_base64(pairing, padded=False)}:{month}:{sender}:{part}".encode("ascii")


def encode(pairing: bytes, month: Month, sender: str, part: Part, nonce: bytes, sealed: bytes) -> str:
    """The wire text. Raises ValueError for fields of no message, or of one that is too long (``split`` prevents it)."""
    if len(nonce) != NONCE_BYTES or len(sealed) < TAG_BYTES:
        raise ValueError("a nonce is 12 bytes, and a sealed text ends in a tag of 16")
    fields = (nonce, sealed[:-TAG_BYTES], sealed[-TAG_BYTES:])
    text = "[{}:{}]".format(
        header(pairing, month, sender, part).decode("ascii"),
        ":".join(encode_base64(field, padded=False) for field in fields),
    )
    if len(text) > WIRE_CHARACTERS:
        raise ValueError("a wire text is at most 4,000 characters")
    return text


def split(plaintext: str) -> list[bytes]:
    """The plaintext bytes of each part, cut between characters, each as long as fits; one part where one is enough.

    Raises UsageError for what needs more than 999 parts, or is not Unicode text.
    """
    data = plaintext.encode("utf-8", "replace")
    # Compared, not caught: a UnicodeEncodeError carries the plaintext along.
    if data.decode() != plaintext:
        raise UsageError("the text holds half a character (a lone surrogate)", hint="save it as UTF-8")
    if len(data) <= _room(WHOLE):
        return [data]
    # The part's number takes room from its text, so the number of digits of the count is tried, not computed.
    for digits in (1, 2, 3):
        chunks = _chunks(data, digits)
        if len(chunks) < 10**digits:
            return chunks
    raise UsageError("the text needs more than 999 parts", hint="send it as several messages")


def _chunks(data: bytes, digits: int) -> list[bytes]:
    chunks: list[bytes] = []
    start = 0
    while start < len(data) and len(chunks) < 10**digits:
        end = start + _room(Part(len(chunks) + 1, 10**digits - 1, bytes(MESSAGE_ID_BYTES)))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # inside a character's UTF-8
            end -= 1
        chunks.append(data[start:end])
        start = end
    return chunks


_FRAME_CHARACTERS = len(encode(bytes(PAIRING_BYTES), Month(0), "d", WHOLE, bytes(NONCE_BYTES), bytes(TAG_BYTES)))


def _room(part: Part) -> int:
    """How many bytes fit beside ``part``: every 3 bytes take 4 characters, 2 take 3, 1 takes 2."""
    return (WIRE_CHARACTERS - _FRAME_CHARACTERS + len(str(WHOLE)) - len(str(part))) * 3 // 4


@lru_cache(maxsize=1200)
def _address(pairing: str, month: str) -> tuple[bytes, Month]:
    """Of all messages of one patient and month the same."""
    return a2b_base64(pairing + "="), Month.parse(month)


def _part(text: str) -> Part:
    index, count, message_id = text.split(".")
    part = Part(int(index), int(count), a2b_base64(message_id + "=="))
    if part.count == 1:
        raise Malformed("a message of one part is numbered 1.1, without a message id")
    if part.index > part.count:
        raise Malformed("the part's number is beyond the count of parts")
    return part


def _fault(text: str) -> Malformed:
    """What is wrong with a text that ``FORM`` does not match, without repeating any of it."""
    if not (text.startswith(_PREFIX) and text.endswith("]")):
        return Malformed("this is not a message of version 2")
    fields = text[len(_PREFIX) : -1].split(":", 7)
    if len(fields) != len(_FIELDS):
        return Malformed("a message of version 2 has seven fields behind its version")
    for (name, form, meaning), field in zip(_FIELDS, fields, strict=True):
        if form.fullmatch(field) is None:
            return Malformed(t("the {field} is not {meaning}", field=name, meaning=meaning))
    return Malformed("this is not a message of version 2")
