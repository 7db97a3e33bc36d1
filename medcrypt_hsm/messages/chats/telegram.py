"""Telegram Desktop's result.json: one chat, or everything (``chats.list`` and ``left_chats.list``).

File → ``TelegramExport.messages`` → ``ChatMessage`` values. No keys here, and no memory that grows with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages.chats import FIRST_YEAR, LAST_YEAR, LONGEST, ChatMessage, too_long
from medcrypt_hsm.messages.chats.jsonstream import JsonStream, TooLarge, Unreadable
from medcrypt_hsm.messages.chats.pieces import pieces

_OBJECT = 4 * LONGEST  # characters of a message's JSON: it holds the text twice
_NAME = 4096
_HINT = "name the result.json that Telegram Desktop wrote: 'Export chat history', format JSON"


class TelegramExport:
    """An exported file; ``chats`` counts while it is gone through."""

    date_order = ""
    ambiguous = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.chats = 0

    def messages(self) -> Iterator[ChatMessage]:
        """Of a file that breaks off or is damaged, the last one is an error. Raises Malformed for no export at all."""
        self.chats = 0
        with closing(pieces(self._path)) as text:
            stream = JsonStream(text)
            if stream.peek() != "{":
                raise Malformed("this is not an export of Telegram: it is no JSON object", _HINT)
            try:
                yield from self._whole(stream)
                if stream.peek():
                    raise Malformed("something follows behind the export's end", "export the chat again")
            except Malformed as exc:
                if not self.chats:
                    raise
                yield ChatMessage("", error=exc.with_traceback(None))
        if not self.chats:
            raise Malformed("this is not an export of Telegram: there is no chat in it", _HINT)

    def _whole(self, stream: JsonStream) -> Iterator[ChatMessage]:
        """A file is a chat, with further keys if it is everything."""
        name = ""
        for key in stream.members():
            if key in ("chats", "left_chats") and stream.peek() == "{":
                yield from self._list(stream)
            elif key == "messages" and stream.peek() == "[":
                yield from self._chat(stream, name)
            elif key == "name":
                name = _name(stream)
            else:
                stream.skip()

    def _list(self, stream: JsonStream) -> Iterator[ChatMessage]:
        for key in stream.members():
            if key != "list" or stream.peek() != "[":
                stream.skip()
                continue
            for _ in stream.elements():
                if stream.peek() != "{":
                    stream.skip()
                    continue
                name = ""
                for inner in stream.members():
                    if inner == "messages" and stream.peek() == "[":
                        yield from self._chat(stream, name)
                    elif inner == "name":
                        name = _name(stream)
                    else:
                        stream.skip()

    def _chat(self, stream: JsonStream, name: str) -> Iterator[ChatMessage]:
        self.chats += 1
        for _ in stream.elements():
            try:
                message = stream.value(_OBJECT)
            except TooLarge:
                yield ChatMessage("", chat=name, error=too_long())
            except Unreadable as exc:
                error = Malformed("the chat message is not JSON: it was damaged", exc.hint)
                yield ChatMessage("", chat=name, error=error)
            else:
                if isinstance(message, dict):
                    yield _message(message, name)


def _name(stream: JsonStream) -> str:
    """Null for a deleted account, absent for saved messages."""
    try:
        name = stream.value(_NAME)
    except (TooLarge, Unreadable):
        return ""
    return name if isinstance(name, str) else ""


def _message(message: dict[str, Any], chat: str) -> ChatMessage:
    text, sender = message.get("text"), message.get("from")
    if not isinstance(text, str):
        text = _joined(text)
    if not text:
        text = _joined(message.get("text_entities"))
    when = _moment(message.get("date_unixtime"), message.get("date"))
    edited = _moment(message.get("edited_unixtime"), message.get("edited"))
    sender = sender if isinstance(sender, str) else ""
    if len(text) > LONGEST:
        return ChatMessage("", when, edited, sender, chat, too_long())
    return ChatMessage(text, when, edited, sender, chat)


def _joined(parts: object) -> str:
    """Text that Telegram cut where an entity begins or ends. Nothing stood between."""
    if not isinstance(parts, list):
        return ""
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def _moment(seconds: object, local: object) -> datetime | None:
    """Seconds since 1970, as text; older exports have only the exporting computer's local time."""
    try:
        if isinstance(seconds, (str, int)) and not isinstance(seconds, bool):
            moment = datetime.fromtimestamp(int(seconds), UTC)
        elif isinstance(local, str):
            moment = datetime.fromisoformat(local)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return moment if FIRST_YEAR <= moment.year <= LAST_YEAR else None
