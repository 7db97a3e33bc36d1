"""What holds of every format: each file in vectors/chats is expected, and what is too long is said in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medcrypt_hsm.messages.chats import LONGEST, ChatMessage
from medcrypt_hsm.messages.chats.telegram import TelegramExport
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = VECTOR_DIRECTORY / "chats"
EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text())
LINE = "22/11/26, 10:15 - Ana: hola\n"


def test_every_vector_is_expected() -> None:
    assert {path.name for path in VECTORS.iterdir()} == {"expected.json", *EXPECTED["telegram"], *EXPECTED["whatsapp"]}


def telegram(path: Path, messages: str) -> list[ChatMessage]:
    path.write_text(f'{{"name": "A", "messages": [{messages}, {{"text": "fin"}}]}}')
    return list(TelegramExport(path).messages())


def test_what_is_too_long_is_said_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    for many in (LONGEST + 1, 5 * LONGEST):
        first, last = telegram(file, json.dumps({"text": "x" * many}))
        assert first.error is not None
        assert "longer than" in first.error.message
        assert last.text == "fin"
    chat = tmp_path / "_chat.txt"
    for body in ("x" * (LONGEST + 1), "x\n" * LONGEST):
        chat.write_text(LINE + f"22/11/26, 10:15 - Ana: {body}\n" + LINE)
        before, long, after = WhatsAppExport(chat).messages()
        assert (before.text, after.text) == ("hola", "hola")
        assert long.error is not None
        assert (long.text, long.sender) == ("", "Ana")
