"""An export without a vault: where each message stood, and where batches end. With one: tests/api/test_chats.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from medcrypt_hsm.errors import UnknownPairing
from medcrypt_hsm.messages.chats import conversation
from medcrypt_hsm.messages.chats.conversation import Conversation
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.messages.plan import Dates
from medcrypt_hsm.messages.wire import Bad, Message, Part, v2
from medcrypt_hsm.month import Month


def text(part: Part = v2.WHOLE, nonce: bytes = bytes(12)) -> str:
    return v2.encode(bytes(8), Month.parse("2026-11"), "p", part, nonce, bytes(16))


def chat(directory: Path, *lines: str) -> Conversation:
    """Each said a minute after the one before."""
    file = directory / "_chat.txt"
    file.write_text("".join(f"22/11/26, 10:{minute} - Luz: {line}\n" for minute, line in enumerate(lines, 10)))
    begun = Conversation(WhatsAppExport(file))
    begun.begin()
    return begun


def unknown(found: Sequence[Message | Bad], dates: Sequence[Dates]) -> list[Opened]:
    """What a vault says to which none of them belongs."""
    error = UnknownPairing("the message belongs to no pairing of this vault")
    return [Opened(number, "v2", "", "2026-11", "p", "1.1", None, error) for number, _ in enumerate(found, 1)]


def test_each_is_told_with_where_it_stood(tmp_path: Path) -> None:
    begun = chat(tmp_path, "hola", f"{text()} y {text()}", "[MEDCRYPT:v9:x]")
    (batch,) = begun.read(unknown)
    assert [(read.number, read.origin.position) for read in batch] == [(1, 2), (2, 2), (3, 3)]
    assert batch[2].document() == {
        "number": 3, "position": 3, "chat": "", "from": "Luz", "date": "2026-11-22T10:12:00", "edited": None,
        "patient": None, "version": "v2", "month": None, "sender": None, "part": "1.1", "text": None,
        "status": "unknown-pairing", "message": "the message belongs to no pairing of this vault",
        "hint": "no patient of this vault uses it; see 'medcrypt patient list'",
    }  # fmt: skip
    assert begun.summary.document() == {
        "chats": 1, "chat_messages": 3, "without": 1, "messages": 3, "ok": 0, "seen": 0, "bad": {"unknown-pairing": 3},
        "date_order": "day-first", "ambiguous_dates": False,
    }  # fmt: skip


def test_whoever_decrypts_is_told_the_chats_dates(tmp_path: Path) -> None:
    told: list[Dates] = []

    def decrypt(found: Sequence[Message | Bad], dates: Sequence[Dates]) -> list[Opened]:
        told.extend(dates)
        return unknown(found, dates)

    list(chat(tmp_path, text(), "hola", text()).read(decrypt))
    assert told == [(datetime(2026, 11, 22, 10, minute), None) for minute in (10, 12)]  # noqa: DTZ001 - some phone's


def test_a_batch_ends_where_no_message_has_begun_and_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "SOON", 2)
    whole, first, last = text(), text(Part(1, 2, b"abcd")), text(Part(2, 2, b"abcd"))
    batches = list(chat(tmp_path, whole, first, whole, last, whole, whole, whole).read(unknown))
    assert [[read.number for read in batch] for batch in batches] == [[1, 2, 3, 4], [5, 6], [7]]
