"""Telegram Desktop's result.json: each quirk is a file in vectors/chats, with what is read of it; and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages.chats import ChatMessage, written
from medcrypt_hsm.messages.chats.telegram import TelegramExport
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = VECTOR_DIRECTORY / "chats"


EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED["telegram"])
def test_telegram(name: str, piece: int) -> None:
    read = list(TelegramExport(VECTORS / name).messages())
    assert [[written(m.when), m.sender, m.chat, m.text] for m in read] == EXPECTED["telegram"][name]
    assert [written(m.edited) for m in read if m.edited] == ["2026-12-01T12:00:00Z"] * (name == "telegram-one.json")
    assert not any(m.error for m in read)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "hola", "{}", '{"messages": 5}', '{"chats": {"list": 5}}', '{"a": "\x00"', "\ufeff{", '{"a" 1}'],
)
def test_no_telegram_export(tmp_path: Path, content: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(content)
    with pytest.raises(Malformed):
        list(TelegramExport(file).messages())


def test_a_telegram_export_that_breaks_off_anywhere_says_so(tmp_path: Path) -> None:
    whole = (VECTORS / "telegram-full.json").read_bytes()
    file = tmp_path / "result.json"
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        try:
            *_, last = TelegramExport(file).messages()
        except Malformed:
            continue  # before the first chat
        assert last.error is not None, end


def telegram(path: Path, messages: str) -> list[ChatMessage]:
    path.write_text(f'{{"name": "A", "messages": [{messages}, {{"text": "fin"}}]}}')
    return list(TelegramExport(path).messages())


def test_one_bad_message_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    inside = ['{"text": nul}', '{"text": "\\q"}', '{"text" "x"}', '{"id": ' + "9" * 5000 + "}"]
    for damaged in inside:
        first, last = telegram(file, damaged)
        assert (first.error is not None, last.text) == (True, "fin"), damaged
    for harmless in ["5", "null", "[]", '{"text": 5, "from": 5, "date_unixtime": true}', '{"text": [5, {"text": {}}]}']:
        *_, last = telegram(file, harmless)
        assert last == ChatMessage("fin", chat="A")


@pytest.mark.parametrize("brackets", ["[", '{"a":'])
def test_deep_nesting_ends_with_an_error(tmp_path: Path, brackets: str) -> None:
    file = tmp_path / "result.json"
    *_, last = telegram(file, brackets * 1_000_000)
    assert last.error is not None
    assert "deep" in last.error.message
    file.write_text('{"x": ' + brackets * 1_000_000)
    with pytest.raises(Malformed, match="deep"):
        list(TelegramExport(file).messages())
