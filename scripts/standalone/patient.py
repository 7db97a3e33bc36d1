#!/usr/bin/env python3
"""The patient's side of medcrypt messages and files, version 2, in one file: where an integrator starts.

In: the text of the doctor's pairing QR; texts and files to write; pasted chat text and files to read.
Out: a six-digit check code; wire texts to send, one a line; plaintexts; files.
Kept: one state file, sealed under a passphrase. The formats are in docs/spec/messages.md and docs/spec/files.md.

Not here, on purpose: version 1, and any code of medcrypt itself. This is the second implementation, and its agreement
with the first (tests/vectors/chain-v2.json) says something only while the two share nothing but the spec.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import getpass
import hashlib
import hmac
import itertools
import json
import mimetypes
import os
import re
import stat
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

USAGE, PASSPHRASE, NOT_AUTHENTIC, REFUSED = 2, 4, 5, 6
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
GRACE_DAYS = 7
SKEW = timedelta(days=1)
PAYLOAD_LIFE = timedelta(minutes=15)
MAX_WIRE = 4000  # Telegram allows 4,096 UTF-16 units; a wire text is ASCII
MAX_PARTS = 999
MAX_TEXT = 64 << 20  # bytes of what is read whole
MOST_MESSAGES = 10_000  # in one text
FILE_MAGIC, FILE_VERSION, FILE_HEADER = b"MEDCRYPT-FILE\n", 2, 93
CHUNK, MAX_CHUNKS, TAG = 2**16, 2**32, 16
MAX_WRITTEN = 2**20  # random 96-bit nonces under one key are good for 2^32; nobody types a million messages a month
SENDERS = {"d": "the doctor", "p": "the patient"}
ASK_AGAIN = "ask the doctor's practice for a new pairing code"
ASK_FILE = "fetch the file again, unchanged; if that does not help, ask for it to be sent again"
ASK_RESEND = "copy the message again, from [ to ]; if that does not help, ask for it to be sent again"


class Problem(Exception):
    """What happened, what to do about it, and the exit code. Never carries keys, passphrases or plaintext."""

    def __init__(self, code: int, what: str, hint: str) -> None:
        super().__init__(what)
        self.code, self.what, self.hint = code, what, hint


def now() -> datetime:
    """The one clock of this program."""
    at = datetime.now(UTC)
    if not 2000 <= at.year < 2100:
        raise Problem(REFUSED, f"the clock says {at.year}", "set this device's clock")
    return at


# --- Notation -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Month:
    """A calendar month in UTC, counted from 2000-01; 2099-12 is the last that exists."""

    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < 1200:
            raise ValueError("a month outside 2000-01 to 2099-12")

    @classmethod
    def parse(cls, text: str) -> Month:
        if not re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", text):
            raise ValueError("not a month")
        return cls((int(text[:4]) - 2000) * 12 + int(text[5:]) - 1)

    @classmethod
    def of(cls, moment: datetime) -> Month:
        return cls((moment.year - 2000) * 12 + moment.month - 1)

    def __str__(self) -> str:
        return f"{2000 + self.index // 12}-{self.index % 12 + 1:02}"

    def next(self) -> Month:
        return Month(self.index + 1)


def ctx(*items: str | bytes) -> bytes:
    """lp(a) lp(b) …: every item after its length, so that no two lists give the same bytes."""
    raw = [item.encode() if isinstance(item, str) else item for item in items]
    return b"".join(len(item).to_bytes(4, "big") + item for item in raw)


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2.3 with SHA-256."""
    if not 0 < length <= 255 * 32:
        raise ValueError("HKDF-Expand gives 1 to 8160 bytes")
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        output, counter = output + block, counter + 1
    return output[:length]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def unb64(text: str, length: int | None = None) -> bytes:
    """Strict: only the one canonical text of these bytes, else two wire texts could mean the same message."""
    raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if b64(raw) != text or (length is not None and len(raw) != length):
        raise ValueError("not canonical base64 of the length due")
    return raw


# --- Key schedule ---------------------------------------------------------------------------------------------------


def message_key(chain_key: bytes, pairing: bytes, month: Month) -> bytes:
    return hkdf_expand(chain_key, ctx("medcrypt/v2/message", pairing, str(month)), 32)


def next_chain(chain_key: bytes, pairing: bytes, next_month: Month) -> bytes:
    """The chain key of next_month from that of the month before it. There is no way back: that is the point."""
    return hkdf_expand(chain_key, ctx("medcrypt/v2/chain", pairing, str(next_month)), 32)


def check_code(secret: bytes, pairing: bytes) -> str:
    return f"{int.from_bytes(hkdf_expand(secret, ctx('medcrypt/v2/check', pairing), 8), 'big') % 10**6:06}"


@dataclass(frozen=True)
class Payload:
    """What the pairing QR holds."""

    pairing: bytes
    month: Month
    expires: datetime
    secret: bytes = field(repr=False)

    def check_fresh(self, at: datetime) -> None:
        if at >= self.expires:
            raise Problem(REFUSED, "this pairing code has expired", ASK_AGAIN)
        if self.expires - at > PAYLOAD_LIFE + SKEW:
            raise Problem(REFUSED, "this pairing code is from the future", "set this device's clock, then scan again")
        if self.month not in (Month.of(self.expires - PAYLOAD_LIFE), Month.of(self.expires)):
            raise Problem(NOT_AUTHENTIC, "this pairing code's month and expiry contradict each other", ASK_AGAIN)


def parse_payload(text: str) -> Payload:
    """`MEDCRYPT:P2:` and 76 characters of base32. 47 bytes leave 4 bits over, which must be zero: re-encoding sees."""
    try:
        prefix, body = text[:12], text[12:]
        raw = base64.b32decode(body + "====")
        if prefix != "MEDCRYPT:P2:" or len(raw) != 47 or raw[0] != 1:
            raise ValueError("another prefix, length or version")
        if base64.b32encode(raw).decode().rstrip("=") != body:
            raise ValueError("not canonical base32")
        month = Month(int.from_bytes(raw[9:11], "big"))
        expires = EPOCH + timedelta(minutes=int.from_bytes(raw[11:15], "big"))
        return Payload(raw[1:9], month, expires, raw[15:])
    except (ValueError, OverflowError) as exc:
        raise Problem(NOT_AUTHENTIC, "this is not a medcrypt pairing code, version 2", ASK_AGAIN) from exc


# --- Messages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One well-formed wire text. Nothing in it is to be believed before open_."""

    pairing: bytes
    month: Month
    sender: str
    index: int
    count: int
    message_id: str
    nonce: bytes
    sealed: bytes
    aad: bytes

    def digest(self) -> str:
        return hashlib.sha256(ctx(self.aad, self.nonce, self.sealed)).hexdigest()


def seal(key: bytes, pairing: bytes, month: Month, sender: str, part: str, plaintext: bytes, nonce: bytes) -> str:
    """One wire text. The nonce is an argument for the vectors' sake: everyone else passes os.urandom(12)."""
    # The header is the AAD: a message cannot be moved to another pairing, month, direction, position or count.
    header = f"MEDCRYPT:v2:{b64(pairing)}:{month}:{sender}:{part}"
    sealed = AESGCM(key).encrypt(nonce, plaintext, header.encode("ascii"))
    return f"[{header}:{b64(nonce)}:{b64(sealed[:-16])}:{b64(sealed[-16:])}]"


def open_(key: bytes, message: Message) -> bytes:
    try:
        return AESGCM(key).decrypt(message.nonce, message.sealed, message.aad)
    except InvalidTag as exc:
        raise Problem(NOT_AUTHENTIC, "not authentic: altered on the way, or under another key", ASK_RESEND) from exc


def parse_message(inner: str) -> Message:
    """What lies between [ and ]."""
    try:
        version = inner.split(":")[1]
        if version == "v1":
            raise Problem(REFUSED, "a version 1 message", "read it with the program it was made for")
        if len(inner) + 2 > MAX_WIRE:
            raise ValueError("longer than a wire text is")
        _, version, pairing, month, sender, part, nonce, ciphertext, tag = inner.split(":")
        if version != "v2" or sender not in SENDERS:
            raise ValueError("unknown version or sender")
        number = "([1-9][0-9]{0,2})"
        match = re.fullmatch(rf"{number}\.{number}(?:\.([A-Za-z0-9+/]{{6}}))?", part)
        if not match:
            raise ValueError("not a part")
        index, count, message_id = int(match[1]), int(match[2]), match[3] or ""
        if index > count or (count > 1) != bool(message_id):
            raise ValueError("a part that cannot be")
        if message_id:
            unb64(message_id, 4)
        sealed, aad = unb64(ciphertext) + unb64(tag, 16), inner.rsplit(":", 3)[0].encode("ascii")
        whose, when = unb64(pairing, 8), Month.parse(month)
        return Message(whose, when, sender, index, count, message_id, unb64(nonce, 12), sealed, aad)
    except ValueError as exc:
        raise Problem(NOT_AUTHENTIC, "malformed message", ASK_RESEND) from exc


def find_messages(text: str) -> Iterator[Message | Problem]:
    """Every candidate in its place; what is around them is chat and is ignored."""
    for number, match in enumerate(re.finditer(r"\[(MEDCRYPT:[^\[\]]*)(\]?)", text)):
        if number == MOST_MESSAGES:
            what = f"there are more than {number:,} messages in this text: the rest was not read"
            yield Problem(NOT_AUTHENTIC, what, "give it in pieces")
            return
        try:
            if not match[2]:
                raise Problem(NOT_AUTHENTIC, "malformed message: its end is missing", ASK_RESEND)
            yield parse_message(match[1])
        except Problem as problem:
            yield problem


def split(text: str) -> list[bytes]:
    """Plaintext parts, each as long as fits into one wire text, none cutting a character."""
    data = text.encode()
    fixed = len("[MEDCRYPT:v2:::::::]") + 11 + 7 + 1 + 16 + 22  # pairing, month, sender, nonce, tag
    if len(data) <= (MAX_WIRE - fixed - len("1.1")) * 3 // 4:
        return [data]
    for digits in (1, 2, 3):  # how long "i.n" is depends on n, and n on how long it is
        parts: list[bytes] = []
        start = 0
        while start < len(data) and len(parts) < MAX_PARTS + 1:
            label = len(str(len(parts) + 1)) + 1 + digits + 7
            end = min(start + (MAX_WIRE - fixed - label) * 3 // 4, len(data))
            while end < len(data) and data[end] & 0xC0 == 0x80:  # inside a UTF-8 sequence
                end -= 1
            parts.append(data[start:end])
            start = end
        if len(str(len(parts))) == digits:
            return parts
    raise Problem(REFUSED, f"the text needs more than {MAX_PARTS} parts", "send it as a file, or in several messages")


# --- State ----------------------------------------------------------------------------------------------------------


@dataclass
class PatientState:
    """Everything the patient keeps. The chain key of a month gone by is not in it; message keys are, to read back."""

    pairing: bytes
    check_code: str = field(repr=False)
    month: Month  # of the chain key
    chain_key: bytes = field(repr=False)
    message_keys: dict[Month, bytes] = field(repr=False)
    seen: dict[Month, dict[str, str]] = field(default_factory=dict, repr=False)  # nonce -> digest of its message
    written: dict[Month, int] = field(default_factory=dict)

    @classmethod
    def pair(cls, payload: Payload) -> PatientState:
        key = message_key(payload.secret, payload.pairing, payload.month)
        code = check_code(payload.secret, payload.pairing)
        return cls(payload.pairing, code, payload.month, payload.secret, {payload.month: key})

    def check_clock(self, at: datetime, named: Month | None) -> None:
        """Before read and write: no clock is believed blindly, for there is no way back from the month it names."""
        month = Month.of(at)
        if named not in (None, month):
            raise Problem(REFUSED, f"the clock says {month}, not {named}", "set this device's clock, or correct --to")
        if named is None and month.index > self.month.index + 1:
            what = f"the newest month here is {self.month}, but the clock says {month}"
            raise Problem(REFUSED, what, f"if the clock is right, repeat this with --to {month}; otherwise set it")

    def step_to(self, month: Month) -> None:
        """Opens every month up to this one: each gets its message key, and its chain key overwrites the last."""
        while self.month < month:
            upcoming = self.month.next()
            self.chain_key = next_chain(self.chain_key, self.pairing, upcoming)
            self.month = upcoming
            self.message_keys[upcoming] = message_key(self.chain_key, self.pairing, upcoming)

    def writing_key(self, at: datetime, count: int = 1) -> tuple[Month, bytes]:
        """The current month and its key, for that many texts or files."""
        month = Month.of(at)
        if month < self.month:
            what = f"the clock says {month}, but {self.month} was already reached"
            raise Problem(REFUSED, what, "set this device's clock, then write again")
        self.step_to(month)
        if self.written.get(month, 0) + count > MAX_WRITTEN:
            raise Problem(REFUSED, f"too many messages written in {month}", "wait for the next month, or pair again")
        self.written[month] = self.written.get(month, 0) + count
        return month, self.message_keys[month]

    def write(self, text: str, at: datetime) -> list[str]:
        parts = split(text)
        month, key = self.writing_key(at, len(parts))
        suffix = f".{len(parts)}" + (f".{b64(os.urandom(4))}" if len(parts) > 1 else "")
        return [
            seal(key, self.pairing, month, "p", f"{i}{suffix}", part, os.urandom(12)) for i, part in enumerate(parts, 1)
        ]

    def reading_key(self, month: Month, at: datetime, archive: bool) -> bytes:
        """The reader's rules: which months are open at this moment."""
        current = Month.of(at)
        if month > current:
            if month != Month.of(at + SKEW):
                raise Problem(REFUSED, f"from {month}, a month still to come", "check this device's clock")
            if month not in self.message_keys and month == self.month.next():
                # In memory only: a wrong clock must not cost the patient the chain key of the month that still runs.
                return message_key(next_chain(self.chain_key, self.pairing, month), self.pairing, month)
        elif month < current and not archive and not self.in_grace(month, at):
            # An old message sent again must not pass for today's advice.
            raise Problem(REFUSED, f"from {month}, a month that is closed", "to read back, add --archive")
        if month not in self.message_keys:
            raise Problem(REFUSED, f"from {month}, a month with no key here", "check this device's clock; " + ASK_AGAIN)
        return self.message_keys[month]

    @staticmethod
    def in_grace(month: Month, at: datetime) -> bool:
        return month.index == Month.of(at).index - 1 and at.day <= GRACE_DAYS


@dataclass(frozen=True)
class Plaintext:
    text: str = field(repr=False)
    sender: str
    month: Month
    notes: str


def read(state: PatientState, text: str, at: datetime, archive: bool = False) -> list[Plaintext | Problem]:
    """Every message of the text, whole or with what is wrong with it, in the order in which they begin."""
    state.step_to(Month.of(at))
    groups: dict[object, list[tuple[int, Message]]] = {}
    results: dict[int, Plaintext | Problem] = {}  # by place
    for place, found in enumerate(find_messages(text)):
        if isinstance(found, Problem):
            results[place] = found
        else:
            whole = (found.pairing, found.month, found.sender, found.message_id, found.count)
            groups.setdefault(whole if found.count > 1 else place, []).append((place, found))
    if not groups and not results:
        raise Problem(NOT_AUTHENTIC, "no message in this text", "copy the whole message, from [MEDCRYPT: to ]")
    transient: dict[Month, dict[str, str]] = {}  # a month not yet opened leaves nothing in the state
    for group in groups.values():
        place, first = group[0]
        genuine: dict[int, tuple[Message, bytes]] = {}
        forged: dict[int, Plaintext | Problem] = {}
        try:
            if first.pairing != state.pairing:
                raise Problem(REFUSED, "a message of another pairing", "read it with the state file of that pairing")
            key = state.reading_key(first.month, at, archive)
            for place, message in group:
                try:
                    genuine[place] = message, open_(key, message)
                except Problem as problem:  # it must not spoil the message that it claims to be a part of
                    forged = forged or {place: problem}
            results |= forged
            if genuine:
                place = min(genuine)
                seen = (state.seen if first.month in state.message_keys else transient).setdefault(first.month, {})
                results[place] = join(state, list(genuine.values()), at, seen)
        except Problem as problem:
            results[place] = problem
    return [results[place] for place in sorted(results)]


def join(state: PatientState, group: list[tuple[Message, bytes]], at: datetime, seen: dict[str, str]) -> Plaintext:
    """One message from its authentic parts, in whatever order they came. All of it or none of it."""
    first = group[0][0]
    before = set(seen)
    parts: dict[int, tuple[str, bytes]] = {}
    for message, plaintext in group:
        digest = message.digest()
        # The text is authentic here, so a forged one can neither occupy a genuine one's nonce nor pass for its reuse.
        if seen.setdefault(message.nonce.hex(), digest) != digest:
            raise Problem(REFUSED, "its nonce was used before for another text", "tell the doctor's practice")
        if parts.setdefault(message.index, (digest, plaintext))[0] != digest:
            raise Problem(NOT_AUTHENTIC, f"malformed: part {message.index} comes twice and differs", ASK_RESEND)
    missing = [str(i) for i in range(1, first.count + 1) if i not in parts]
    if missing:
        what = f"incomplete: missing of its {first.count} parts: {', '.join(missing)}"
        raise Problem(REFUSED, what, "copy all parts together, in any order, and read them in one go")
    try:
        text = b"".join(parts[i][1] for i in sorted(parts)).decode()
    except UnicodeDecodeError as exc:
        raise Problem(NOT_AUTHENTIC, "malformed: authentic, but not text", "ask what was sent") from exc
    notes = ", seen before" if all(m.nonce.hex() in before for m, _ in group) else ""
    if first.month < Month.of(at) and not state.in_grace(first.month, at):
        notes += ", archive"
    return Plaintext(text, first.sender, first.month, notes)


# --- Files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileHeader:
    """The first 93 bytes of a file, well-formed. Nothing in it is to be believed before its sealed key opens."""

    pairing: bytes
    month: Month
    sender: str
    prefix: bytes
    nonce: bytes
    sealed_key: bytes
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> FileHeader:
        if not raw.startswith(FILE_MAGIC) or len(raw) < FILE_HEADER:
            raise Problem(NOT_AUTHENTIC, "this is not a medcrypt file, or only its beginning", ASK_FILE)
        if raw[14] != FILE_VERSION:
            raise Problem(NOT_AUTHENTIC, f"malformed: a file of version {raw[14]}", "get a newer program")
        month, sender = int.from_bytes(raw[23:25], "big"), chr(raw[25])
        if month >= 1200 or sender not in SENDERS:
            raise Problem(NOT_AUTHENTIC, "malformed: no such month or sender", ASK_FILE)
        return cls(raw[15:23], Month(month), sender, raw[26:33], raw[33:45], raw[45:93], raw[:93])

    def digest(self) -> str:
        return hashlib.sha256(ctx("file", self.raw)).hexdigest()

    def file_key(self, key: bytes) -> bytes:
        try:
            return AESGCM(key).decrypt(self.nonce, self.sealed_key, ctx("medcrypt/v2/file", self.raw[:45]))
        except InvalidTag as exc:
            raise Problem(NOT_AUTHENTIC, "not authentic: altered on the way, or under another key", ASK_FILE) from exc

    def chunk_nonce(self, counter: int, last: bool) -> bytes:
        if counter >= MAX_CHUNKS:
            raise Problem(REFUSED, "longer than a file may be", "send it in several files")
        return self.prefix + counter.to_bytes(4, "big") + bytes([last])


def read_chunks(source: BinaryIO, size: int, first: bytes = b"") -> Iterator[tuple[int, bytes, bool]]:
    """Counter, chunk, and whether it is the last: one is read ahead, since the end is known by nothing else."""
    chunk = first + source.read(size - len(first))
    for counter in itertools.count():
        ahead = source.read(size)
        yield counter, chunk, not ahead
        if not ahead:
            return
        chunk = ahead


def seal_file(
    key: bytes, pairing: bytes, month: Month, sender: str, name: str, media_type: str, source: BinaryIO, random: bytes
) -> Iterator[bytes]:
    """A file, piece by piece. random: file key 32, prefix 7, nonce 12; everyone but the vectors passes urandom."""
    file_key, prefix, nonce = random[:32], random[32:39], random[39:51]
    head = FILE_MAGIC + bytes([FILE_VERSION]) + pairing + month.index.to_bytes(2, "big") + sender.encode()
    head += prefix + nonce
    header = FileHeader.parse(head + AESGCM(key).encrypt(nonce, file_key, ctx("medcrypt/v2/file", head)))
    yield header.raw
    metadata = b"".join(bytes([len(raw)]) + raw for raw in (name.encode(), media_type.encode()))
    cipher, aad = AESGCM(file_key), ctx("medcrypt/v2/file/chunk", header.raw)
    for counter, chunk, last in read_chunks(source, CHUNK, metadata):
        yield cipher.encrypt(header.chunk_nonce(counter, last), chunk, aad)


def open_file(key: bytes, header: FileHeader, source: BinaryIO) -> Iterator[bytes]:
    """The payload after the header, chunk by chunk. That it is whole is known only when this has ended."""
    cipher, aad = AESGCM(header.file_key(key)), ctx("medcrypt/v2/file/chunk", header.raw)
    for counter, chunk, last in read_chunks(source, CHUNK + TAG):
        try:
            if len(chunk) <= TAG:
                raise Problem(NOT_AUTHENTIC, "malformed: the file is cut off", ASK_FILE)
            yield cipher.decrypt(header.chunk_nonce(counter, last), chunk, aad)
        except InvalidTag as exc:
            raise Problem(NOT_AUTHENTIC, "not authentic: altered, cut off or added to on the way", ASK_FILE) from exc


def parse_metadata(payload: bytes) -> tuple[str, str, bytes]:
    """Name, media type, and the content that begins in the first chunk."""
    try:
        end = 1 + payload[0]
        name, kind = payload[1:end], payload[end + 1 : end + 1 + payload[end]]
        part = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
        if len(kind) != payload[end] or not name or not re.fullmatch(f"{part}/{part}", kind.decode("ascii")):
            raise ValueError("not metadata")
        return name.decode(), kind.decode("ascii"), payload[end + 1 + len(kind) :]
    except (IndexError, ValueError):
        # Without the error's cause, which may hold the name.
        raise Problem(NOT_AUTHENTIC, "malformed: authentic, but without a name", "ask what was sent") from None


def safe_name(name: str) -> str:
    """A name that a stranger chose, made harmless: docs/spec/files.md, "What is written on the disk"."""

    def harmless(char: str) -> str:
        kind, joins = unicodedata.category(char), char in "\u200c\u200d"
        hidden = kind in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and not joins
        return " " if kind == "Zs" else "_" if hidden or char in '<>:"|?*' else char

    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    name = "".join(map(harmless, name)).strip(" .\u200c\u200d")
    device = r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])\s*(\..*)?"
    if name.startswith(("-", "medcrypt-not-whole-")) or re.fullmatch(device, name, re.IGNORECASE):
        name = "_" + name
    stem, extension = split_name(name)
    if len(name.encode()) > 200:
        stem = stem.encode()[: 200 - len(extension.encode())].decode(errors="ignore").rstrip(" .\u200c\u200d")
    beside = "journal|wal|shm|mj|creating|restoring|session|queue|lock|notes|backup|certificate|found|partial"
    beside = rf"(?ai)[-.](?=({beside})(-?[0-9a-f]+)?(\.json|\.md)?$)"
    return re.sub(beside, "_", stem + extension) or "file"


def split_name(name: str) -> tuple[str, str]:
    stem, point, extension = name.rpartition(".")
    return (stem, point + extension) if stem and len(extension.encode()) <= 16 else (name, "")


@contextmanager
def unfinished(directory: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file that says by its name that it is not whole; gone at the end. Those of killed runs go first: nobody has
    them locked."""
    for left in directory.glob("medcrypt-not-whole-*.partial"):
        with suppress(OSError), open(os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    path = directory / f"medcrypt-not-whole-{os.urandom(4).hex()}.partial"
    out = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield out, path
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk is full once more
            out.close()


def give_name(out: BinaryIO, path: Path, names: Iterator[str]) -> Path:
    """Whole and on the disk: only now its own name, the first that is free. Nothing is ever overwritten."""
    out.flush()
    os.fsync(out.fileno())
    for name in names:
        with suppress(FileExistsError):
            os.link(path, path.with_name(name))
            return path.with_name(name)
    raise Problem(USAGE, "there is a file of this name", "choose another name: nothing is overwritten")


def open_input(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe must not wait for anybody
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Problem(USAGE, "this is not a regular file", "save it as a file first")
    return os.fdopen(descriptor, "rb")


def write_file(file: StateFile, state: PatientState, at: datetime, source: Path, target: Path) -> str:
    name = source.name
    if len(name.encode(errors="replace")) > 255 or name.encode(errors="replace").decode() != name:
        raise Problem(USAGE, "the file's name is not UTF-8 of at most 255 bytes", "give it another name")
    kind, packed = mimetypes.guess_type("x" + source.suffix)
    kind = kind if kind and not packed else "application/octet-stream"
    month, key = state.writing_key(at)
    with open_input(source) as given, unfinished(target.parent) as (out, path):
        before = os.fstat(given.fileno())
        for piece in seal_file(key, state.pairing, month, "p", name, kind, given, os.urandom(51)):
            out.write(piece)
            if given.tell() > before.st_size:  # one that somebody goes on writing would never end
                break
        after = os.fstat(given.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Problem(USAGE, "the file changed while it was read", "try again when nobody writes it")
        file.save(state)  # before it leaves: what was sent must have been counted
        return str(give_name(out, path, iter([target.name])))


def read_file(
    file: StateFile, state: PatientState, at: datetime, archive: bool, source: Path, directory: Path
) -> tuple[str, str]:
    """Where it is now, and what is to be said of it."""
    state.step_to(Month.of(at))
    with open_input(source) as given, unfinished(directory) as (out, path):
        header = FileHeader.parse(given.read(FILE_HEADER))
        if header.pairing != state.pairing:
            raise Problem(REFUSED, "a file of another pairing", "read it with the state file of that pairing")
        payload = open_file(state.reading_key(header.month, at, archive), header, given)
        name, kind, content = parse_metadata(next(payload))
        size = out.write(content)
        for content in payload:
            size += out.write(content)
        seen = state.seen.setdefault(header.month, {}) if header.month in state.message_keys else {}
        notes = ", seen before" if header.nonce.hex() in seen else ""
        if seen.setdefault(header.nonce.hex(), header.digest()) != header.digest():
            raise Problem(REFUSED, "its nonce was used before for another text", "tell the doctor's practice")
        file.save(state)  # before it is there: what was shown must be known as seen
        stem, extension = split_name(safe_name(name))
        names = itertools.chain([stem + extension], (f"{stem} ({n}){extension}" for n in itertools.count(2)))
        where = give_name(out, path, names)
    return str(where), f"from {SENDERS[header.sender]}, {header.month}{notes}, {kind}, {size} bytes"


# --- State file: a JSON header on the first line, then AES-256-GCM of the JSON state under scrypt(passphrase) --------

# Fixed by the version and compared as a whole: parameters from a file are a way to ask for none, or for all memory.
KDF = {"version": 1, "kdf": "scrypt", "n": 2**15, "r": 8, "p": 1}


class StateFile:
    """The state at rest: 0600, replaced whole or not at all."""

    def __init__(self, path: Path, salt: bytes, passphrase: str) -> None:
        self.path, self.salt = path, salt
        normal = unicodedata.normalize("NFC", passphrase).encode()  # phones and computers type accents differently
        self.key = Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(normal)

    @classmethod
    def load(cls, path: Path, passphrase: str) -> tuple[StateFile, PatientState]:
        try:
            with open_input(path) as kept:
                line, sealed = kept.read(MAX_TEXT).split(b"\n", 1)
            header = json.loads(line)
            salt, nonce = bytes.fromhex(header.pop("salt")), bytes.fromhex(header.pop("nonce"))
            if header != KDF or len(salt) != 16 or len(nonce) != 12:
                raise ValueError("unknown header")
            file = cls(path, salt, passphrase)
            body = json.loads(AESGCM(file.key).decrypt(nonce, sealed, line))
            state = PatientState(
                bytes.fromhex(body["pairing"]),
                body["check_code"],
                Month.parse(body["month"]),
                bytes.fromhex(body["chain_key"]),
                {Month.parse(m): bytes.fromhex(key) for m, key in body["message_keys"].items()},
                {Month.parse(m): dict(nonces) for m, nonces in body["seen"].items()},
                {Month.parse(m): int(count) for m, count in body["written"].items()},
            )
        except InvalidTag as exc:
            what = "the passphrase is wrong, or the state file was altered"
            raise Problem(PASSPHRASE, what, "try the passphrase again") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise Problem(NOT_AUTHENTIC, "this is not a state file of this program", "check the path") from exc
        return file, state

    def save(self, state: PatientState) -> None:
        nonce = os.urandom(12)
        line = json.dumps({**KDF, "salt": self.salt.hex(), "nonce": nonce.hex()}).encode()
        body: dict[str, Any] = {
            "pairing": state.pairing.hex(),
            "check_code": state.check_code,
            "month": str(state.month),
            "chain_key": state.chain_key.hex(),
            "message_keys": {str(m): key.hex() for m, key in state.message_keys.items()},
            "seen": {str(m): nonces for m, nonces in state.seen.items()},
            "written": {str(m): count for m, count in state.written.items()},
        }
        sealed = AESGCM(self.key).encrypt(nonce, json.dumps(body).encode(), line)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".patient-")  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(line + b"\n" + sealed)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename too must survive a power cut, or a deleted chain key comes back
        finally:
            os.close(directory)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time from load to save, or the later one would forget what the earlier one saw. The directory
    is what is locked: the state file itself is a new one after every save."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


# --- Command line ---------------------------------------------------------------------------------------------------


def get_passphrase(variable: str | None, new: bool) -> str:
    """From the named environment variable or the terminal; never an argument, which every process list shows."""
    passphrase = os.environ.get(variable, "") if variable else ""
    try:
        if not variable:
            with warnings.catch_warnings():
                # Without a terminal getpass would read, and echo, from stdin: that is where the message comes from.
                warnings.simplefilter("error", getpass.GetPassWarning)
                passphrase = getpass.getpass("Passphrase: ")
                if new and passphrase and getpass.getpass("Again: ") != passphrase:
                    raise Problem(PASSPHRASE, "the two passphrases differ", "try again")
        passphrase.encode()
    except (getpass.GetPassWarning, EOFError, UnicodeEncodeError):
        passphrase = ""
    if not passphrase:
        hint = "type it at a terminal, or name the environment variable that holds it: --passphrase-env NAME"
        raise Problem(PASSPHRASE, "no passphrase", hint)
    if new and len(passphrase) < 8:
        raise Problem(PASSPHRASE, "the passphrase is too short", "use 8 characters or more; several words are best")
    return passphrase


def visible(text: str) -> str:
    """For a terminal: what could move the cursor, recolour, reorder or hide text is shown as its escape, and every
    line is set off, so that a message cannot draw a header of its own."""

    def harmless(char: str) -> bool:
        # The joiners belong to emoji and to Persian and Indic spelling.
        return char in "\n\t\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn")

    shown = "".join(c if harmless(c) else c.encode("unicode_escape").decode() for c in text)
    return "".join(f"| {line}\n" for line in shown.removesuffix("\n").split("\n"))


def complain(problem: Problem, where: str = "") -> int:
    print(f"error: {where}{problem.what}\nhint: {problem.hint}", file=sys.stderr, flush=True)
    return problem.code


def emit(data: str) -> None:
    sys.stdout.buffer.write(data.encode(errors="surrogateescape"))  # no newline translation, no locale
    sys.stdout.flush()


def show(results: list[Plaintext | Problem], quiet: bool) -> int:
    codes, terminal = [0], sys.stdout.isatty()
    for number, result in enumerate(results, 1):
        if isinstance(result, Problem):
            codes.append(complain(result, f"message {number} of {len(results)}: " if len(results) > 1 else ""))
            continue
        about = f"from {SENDERS[result.sender]}, {result.month}{result.notes}"
        if terminal or len(results) > 1:
            # The length lets a program find the end of a text that holds a line like this one.
            emit(f"== message {number} of {len(results)}: {about}, {len(result.text.encode())} bytes ==\n")
            emit(visible(result.text) if terminal else result.text + "\n")
            continue
        if not quiet:
            print(about, file=sys.stderr)
        emit(result.text)
    return NOT_AUTHENTIC if NOT_AUTHENTIC in codes else max(codes)


def read_input(path: str | None, errors: str) -> str:
    if path is None and sys.stdin.isatty():
        print("Type or paste the text, then Ctrl-D on a line of its own.", file=sys.stderr)
    with nullcontext(sys.stdin.buffer) if path is None else open_input(Path(path)) as given:
        raw = given.read(MAX_TEXT + 1)
    if len(raw) > MAX_TEXT:
        raise Problem(USAGE, "the text is too long to be read whole", "give it in pieces")
    try:
        return raw.decode("utf-8", errors)
    except UnicodeDecodeError as exc:
        raise Problem(USAGE, "the input is not UTF-8 text", "convert it to UTF-8 first") from exc


def run(options: argparse.Namespace) -> int:
    path = Path(options.state).resolve()  # through a symbolic link, so that a save does not replace the link
    if options.command == "pair":
        if path.exists():
            raise Problem(REFUSED, "this state file exists already", "choose another name: a pairing has its own file")
        payload = parse_payload(read_input(options.file, "replace").strip())
        payload.check_fresh(now())
        file = StateFile(path, os.urandom(16), get_passphrase(options.passphrase_env, new=True))
        payload.check_fresh(now())  # again: choosing a passphrase can take its time
        with locked(path):
            if path.exists():
                raise Problem(REFUSED, "this state file exists already", "choose another name")
            state = PatientState.pair(payload)
            file.save(state)
        emit(f"check code: {state.check_code}\n")
        return 0
    if not path.exists():
        raise Problem(USAGE, "there is no such state file", "make one with: patient.py pair STATE")
    passphrase = get_passphrase(options.passphrase_env, new=False)
    if options.command == "code":
        emit(f"check code: {StateFile.load(path, passphrase)[1].check_code}\n")
        return 0
    text = ""
    if not options.command.endswith("-file"):
        text = read_input(options.file, "strict" if options.command == "write" else "replace")
    with locked(path):
        file, state = StateFile.load(path, passphrase)
        state.check_clock(at := now(), options.to)
        if options.command == "write-file":
            emit(write_file(file, state, at, Path(options.file), Path(options.target)) + "\n")
            return 0
        if options.command == "read-file":
            where, about = read_file(file, state, at, options.archive, Path(options.file), Path(options.out or "."))
            if not options.quiet:
                print(about, file=sys.stderr)
            emit(where + "\n")
            return 0
        if options.command == "write":
            if not text:
                raise Problem(USAGE, "there is nothing to write", "give the text on stdin or name a file")
            lines = state.write(text, at)
            file.save(state)  # before the texts leave: what was sent must have been counted
            emit("".join(line + "\n" for line in lines))
            return 0
        results = read(state, text, at, options.archive)
        file.save(state)  # before the texts are shown: what was shown must be known as seen
    return show(results, options.quiet)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(USAGE, message, f"see {self.prog} --help")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="patient.py",
        description="The patient's side of medcrypt messages and files, version 2.",
        epilog="pair takes the text of the pairing QR and shows the check code, code shows it again; write makes wire "
        "texts of a text, one a line; read finds the messages in a text and shows what they say; write-file encrypts "
        "FILE into OUT, and read-file decrypts FILE into a new file, whose name it shows.",
    )
    parser.register("type", "month", Month.parse)
    parser.add_argument("command", choices=["pair", "code", "write", "read", "write-file", "read-file"])
    parser.add_argument("state", metavar="STATE", help="the passphrase-protected state file")
    parser.add_argument("file", metavar="FILE", nargs="?", help="input, instead of stdin")
    parser.add_argument("target", metavar="OUT", nargs="?", help="for write-file: the new file")
    parser.add_argument("--out", metavar="DIR", help="for read-file: where to, instead of the current directory")
    parser.add_argument("--archive", action="store_true", help="read back months that are closed too")
    parser.add_argument("--to", metavar="YYYY-MM", type="month", help="the clock's month, where several are due")
    parser.add_argument("--passphrase-env", metavar="NAME", help="environment variable that holds the passphrase")
    parser.add_argument("--quiet", action="store_true", help="no remarks on stderr; errors are still said")
    try:
        options = parser.parse_intermixed_args(arguments)  # FILE may stand after the options
        months = options.archive or options.to
        about_files, wanted = options.command.endswith("-file"), options.command == "write-file"
        no_such = {
            "pair": months,
            "code": months or options.file,
            "write": options.archive,
            "write-file": options.archive,
        }
        if no_such.get(options.command) or (options.out and options.command != "read-file"):
            parser.error(f"{options.command} takes no such argument")
        if (options.file is None and about_files) or (options.target is not None) != wanted:
            parser.error(f"{options.command} takes {'FILE and OUT' if wanted else 'one FILE'}")
        return run(options)
    except Problem as problem:
        return complain(problem)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        return USAGE
    except OSError as exc:
        return complain(Problem(USAGE, f"a file could not be used: {exc.strerror}", "check the path and its rights"))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
