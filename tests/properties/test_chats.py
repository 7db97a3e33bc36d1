"""Exports from nowhere: what is written comes back; what was damaged gives an error or messages, and never hangs."""

from __future__ import annotations

import json
import random
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages.chats import LONGEST, ChatMessage, pieces
from medcrypt_hsm.messages.chats.telegram import TelegramExport
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
from tests.support.checkout import FULL, VECTOR_DIRECTORY

VECTORS = VECTOR_DIRECTORY / "chats"
MUTANTS = 20_000 if FULL else 400

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
sizes = st.sampled_from([1, 3, 10, 1 << 18])


def read(kind: Callable[[Path], Any], content: bytes, piece: int = 1 << 18) -> list[ChatMessage]:
    before, pieces.PIECE = pieces.PIECE, piece
    try:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "export"
            file.write_bytes(content)
            return list(kind(file).messages())
    finally:
        pieces.PIECE = before


# Telegram


@st.composite
def telegram_messages(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A message as Telegram Desktop writes it, and its text."""
    parts = draw(st.lists(texts, max_size=4))
    text = "".join(parts)
    cut: Any = [part if number % 2 else {"type": "bold", "text": part} for number, part in enumerate(parts)]
    message: dict[str, Any] = {"id": draw(st.integers()), "text": draw(st.sampled_from([text, cut]))}
    message["text_entities"] = [{"type": "plain", "text": part} for part in parts]
    if draw(st.booleans()):
        del message["text"]
    return message, text


def as_telegram_writes(text: str) -> str:
    """Control characters as that program escapes them, which is no JSON."""
    escaped = json.dumps(text, ensure_ascii=False)
    for code in [*range(8), 8, 11, 12, *range(14, 32)]:
        name = {8: "\\b", 12: "\\f"}.get(code, f"\\u{code:04x}")
        pieces_ = escaped.split("\\\\")  # not after an escaped backslash
        escaped = "\\\\".join(piece.replace(name, f"\\x{code:02X}") for piece in pieces_)
    return escaped


@given(st.lists(telegram_messages(), max_size=5), sizes, st.sampled_from([None, 1]))
def test_telegram_comes_back(given_: list[tuple[dict[str, Any], str]], piece: int, indent: int | None) -> None:
    chat = {"name": "A", "messages": [message for message, _ in given_]}
    for document in (
        chat,
        {"chats": {"list": [chat]}},
        {"x": [[{}], "]"], "left_chats": {"about": "{", "list": [chat]}},
    ):
        found = read(TelegramExport, json.dumps(document, indent=indent, ensure_ascii=False).encode(), piece)
        assert [message.text for message in found] == [text for _, text in given_]
        assert not any(message.error for message in found)


@given(texts, sizes)
def test_telegrams_own_escapes_mean_their_characters(text: str, piece: int) -> None:
    text += "\x0b\\x0B\x1f\\\\x0b"
    found = read(TelegramExport, f'{{"messages": [{{"text": {as_telegram_writes(text)}}}]}}'.encode(), piece)
    assert [message.text for message in found] == [text]


# WhatsApp

FORMS = {
    "[%d/%m/%y, %H:%M:%S] ": "\r\n",
    "\u200e[%d/%m/%Y, %I:%M:%S\u202f%p] ": "\r\n",
    "%d/%m/%y, %H:%M - ": "\n",
    "%d/%m/%Y %I:%M\u00a0%p - ": "\n",
    "%d.%m.%y, %H:%M - ": "\n",
    "%Y-%m-%d, %H:%M - ": "\n",
}
moments = st.datetimes(datetime(2009, 1, 1), datetime(2098, 12, 31)).map(lambda m: m.replace(microsecond=0))  # noqa: DTZ001
bodies = texts.map(lambda text: "\n".join(line.lstrip("[0123456789") for line in text.replace("\r", "").split("\n")))


@given(st.lists(st.tuples(moments, bodies), min_size=1, max_size=5), st.sampled_from(list(FORMS)), sizes)
def test_whatsapp_comes_back(given_: list[tuple[datetime, str]], form: str, piece: int) -> None:
    given_ = [(moment if ":%S" in form else moment.replace(second=0), f"b{body}") for moment, body in given_]
    written = "".join(f"{moment:{form}}Ana: {body}{FORMS[form]}" for moment, body in given_)

    def day_first(path: Path) -> WhatsAppExport:
        return WhatsAppExport(path, "day-first")

    found = read(day_first, written.encode(), piece)
    expected = [(moment, body) for moment, body in given_]
    if not any(unusual(body) for _, body in given_):
        assert [(message.when, message.text) for message in found] == expected
    assert {message.sender for message in found} == {"Ana"}


def unusual(body: str) -> bool:
    """Might a line of it pass for a header? Other digits and marks may begin one too."""
    return any(line[:1].isdigit() or not line[:1].isascii() for line in body.split("\n"))


# Damaged


def mutants(content: bytes, seed: int, count: int) -> Iterable[bytes]:
    some = random.Random(seed)
    spice = [
        b'"',
        b"\\",
        b"{",
        b"]",
        b"[",
        b"\\x",
        b"\\u",
        b"\xff",
        b"\x00",
        b"\n",
        b":",
        b",",
        b"[MEDCRYPT:v2:",
        b"9" * 30,
    ]
    for _ in range(count):
        data = bytearray(content)
        for _ in range(some.randint(1, 4)):
            at, length = some.randrange(len(data) + 1), some.choice([1, 1, 2, 20, 200])
            match some.randrange(5):
                case 0:
                    del data[at : at + length]
                case 1:
                    data[at:at] = some.choice(spice)
                case 2:
                    data[at:at] = data[at // 2 : at // 2 + length]
                case 3 if at < len(data):
                    data[at] ^= 1 << some.randrange(8)
                case _:
                    data[at : at + length] = some.randbytes(length)
        yield bytes(data)


def zipped(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "chat.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("_chat.txt", content)
            file.writestr("PHOTO.jpg", b"\xff\xd8")
        return path.read_bytes()


CORPUS: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "telegram-one": (TelegramExport, (VECTORS / "telegram-one.json").read_bytes()),
    "telegram-full": (TelegramExport, (VECTORS / "telegram-full.json").read_bytes()),
    "ios": (WhatsAppExport, (VECTORS / "ios-12h.txt").read_bytes()),
    "mexico": (WhatsAppExport, (VECTORS / "mexico.txt").read_bytes()),
    "zip": (WhatsAppExport, zipped((VECTORS / "android-24h.txt").read_bytes())),
}


@pytest.mark.parametrize("name", CORPUS)
def test_mutants(name: str) -> None:
    kind, content = CORPUS[name]
    for number, mutant in enumerate(mutants(content, len(name), MUTANTS)):
        start = time.monotonic()
        try:
            found = read(kind, mutant, [7, 1 << 18][number % 2])
        except Malformed:
            continue
        finally:
            assert time.monotonic() - start < 20, mutant
        assert all(len(message.text) <= LONGEST for message in found)
        assert all(message.when is None or message.when.replace(tzinfo=UTC).year >= 2000 for message in found)
