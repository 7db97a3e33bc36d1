"""Wire formats: any text → ``find`` or ``parse`` → messages, as untrusted values without a key.

Each version is a module of its own (v1.py, v2.py); this one only finds candidates and picks the version. parts.py joins
the parts of long messages, pairing.py is the QR code, files.py the format of files. Not here: keys, clocks, patients,
exported chats (messages/chats/).

A text comes from strangers. Whatever it holds, ``find`` takes time linear in its length, gives at most ``MOST`` items
and one that says so, and does not raise; no error repeats any of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages.wire import v1, v2
from medcrypt_hsm.messages.wire.v1 import MessageV1
from medcrypt_hsm.messages.wire.v2 import MessageV2, Part
from medcrypt_hsm.sentences import t

__all__ = ["Bad", "Message", "MessageV1", "MessageV2", "Part", "exactly", "find", "parse"]
MOST = 10_000  # messages in one text
Message: TypeAlias = MessageV1 | MessageV2
# A candidate runs to the first "]", or is cut off by the next "[" or the end: no two overlap, so none is read twice.
_CANDIDATE = re.compile(rf"{v2.FORM}|\[MEDCRYPT:[^\[\]]*+\]?")


class Bad(NamedTuple):
    """A candidate that is no message: its number in the text (from 1), where it begins, what is wrong with it."""

    number: int
    offset: int
    error: Malformed


def find(text: str) -> list[Message | Bad]:
    """Every message in any text, in order of appearance, malformed ones in their place. Item k is number k + 1.

    Of a text with more than ``MOST`` the last item says that the rest was not read.
    """
    found: list[Message | Bad] = []
    end = 0
    while match := _CANDIDATE.search(text, end):  # for a text of one message in less time than ``finditer``
        groups, end = match.groups(), match.end()
        if len(found) == MOST:
            error = Malformed(
                t("there are more than {most:,} messages in this text: the rest was not read", most=MOST),
                "give it in pieces, or a whole exported chat to 'medcrypt import'",
            )
            found.append(Bad(MOST + 1, match.start(), error))
            break
        try:
            found.append(_slowly(match[0]) if groups[0] is None else v2.read(match[0], *groups))
        except Malformed as error:
            # The traceback's frames hold the whole text.
            found.append(Bad(len(found) + 1, match.start(), error.with_traceback(None)))
    return found


def exactly(texts: Sequence[str | None]) -> list[Message | Bad]:
    """Each text one candidate and nothing around it, as ``find`` gives them; None stands for one that is no message.

    Raises ValueError for a text that ``find`` would not take whole.
    """
    found: list[Message | Bad] = []
    for number, text in enumerate(texts, 1):
        if text is None:
            found.append(Bad(number, 0, Malformed("this is not a message")))
            continue
        match = _CANDIDATE.fullmatch(text)
        if match is None:
            raise ValueError("not one candidate")
        groups = match.groups()
        try:
            found.append(_slowly(text) if groups[0] is None else v2.read(text, *groups))
        except Malformed as error:
            found.append(Bad(number, 0, error.with_traceback(None)))
    return found


def parse(text: str) -> Message:
    """Read exactly one message, white space around it allowed. Raises Malformed."""
    candidate = text.strip()
    if _CANDIDATE.fullmatch(candidate) is None:
        if _CANDIDATE.search(candidate) is None:
            raise Malformed("there is no MedCrypt message in this text")
        raise Malformed("there is more in this text than one MedCrypt message")
    return _slowly(candidate)


def _slowly(candidate: str) -> Message:
    if not candidate.endswith("]"):
        raise Malformed("the message is cut off: its ']' is missing")
    match candidate[1:-1].split(":", 2)[1]:
        case "v1":
            return v1.parse(candidate)
        case "v2":
            return v2.parse(candidate)
        case _:
            raise Malformed("the message's version is unknown", hint="update this program, or copy the message again")
