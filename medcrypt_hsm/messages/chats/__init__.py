"""Chats as other programs export them: Telegram Desktop's result.json, WhatsApp's _chat.txt or the zip that holds it.

    telegram.py, whatsapp.py  an exported file → ``ChatMessage`` values: strangers' words, no key, no vault
    conversation.py           finds MedCrypt's messages in them, joins their parts, has them decrypted batch by batch
    saving.py, html.py        the result in a new file
    pieces.py, jsonstream.py  a file's text, and JSON, in pieces of bounded size

In: an exported file. Out: its messages as read, in the chat's order. Memory grows with none of it. Not here: keys and
vaults (api/chats.py brings them together). The formats as understood here, and every limit: docs/spec/imports.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.sentences import t

FIRST_YEAR, LAST_YEAR = 2001, 2098  # of a date that counts: the months around it are months too
LONGEST = 1 << 20  # characters of one chat message; chat programs stop at 65,536


class ChatMessage(NamedTuple):
    """One message of a chat, as the file tells it: nothing of it is proven. ``error``: what is there is no message."""

    text: str
    when: datetime | None = None  # aware (UTC) where the export says so, else the exporting phone's local time
    edited: datetime | None = None
    sender: str = ""
    chat: str = ""
    error: Malformed | None = None


class Export(Protocol):
    """An exported file. It can be gone through again."""

    @property
    def chats(self) -> int:
        """How many chats have begun so far."""

    @property
    def date_order(self) -> str:
        """``day-first``, ``month-first``, ``year-first``, or empty where dates have no order to choose."""

    @property
    def ambiguous(self) -> bool:
        """Would the other order fit all dates as well?"""

    def messages(self) -> Iterator[ChatMessage]:
        """All of them, in the file's order. Raises Malformed for a file that is no such export, OSError."""


def written(moment: datetime | None) -> str | None:
    """ISO 8601, with Z where it is UTC and nothing where it is some phone's local time."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        return moment.isoformat(timespec="seconds")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def too_long() -> Malformed:
    return Malformed(
        t("the chat message is longer than {most:,} characters: no chat program writes that", most=LONGEST),
        "see what it is; export the chat again",
    )


def check_readable(path: Path) -> None:
    """Raises UsageError, before anybody is asked for a PIN."""
    try:
        if path.exists() and not path.is_file():  # it may be read twice
            raise UsageError(t("{path} is not a file", path=path), "name the exported file itself")
        path.open("rb").close()
    except OSError as exc:
        raise UsageError(
            t("{path} cannot be read: {reason}", path=path, reason=exc.strerror), "name the exported file itself"
        ) from exc
