"""``JsonStream``: JSON read from front to back, by a caller who knows what to look for.

In: pieces of text. Out: keys, and values of bounded size. What nobody asks for is skipped without being kept, strings
included, so memory grows neither with the file nor with any value in it. Nesting is bounded too. Telegram's control
characters, ``\\x0B``, which are no JSON, are read as what they mean. Not here: what a chat is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.sentences import t

DEEPEST = 64  # brackets inside each other; Telegram writes ten
_SPACE = re.compile(r"[ \t\r\n]*+")
_COMMA = re.compile(r"[ \t\r\n]*+,[ \t\r\n]*+")
# Groups are not possessive here: before Python 3.11.5 such a group forgets where it began when it fails.
_PLAIN = re.compile(r'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*"[^"\[\]{}]*+)*', re.DOTALL)  # strings, and no bracket
_IN_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*', re.DOTALL)
_SCALAR = re.compile(r"[^\s,\[\]{}\":]*+")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}
_DECODER = json.JSONDecoder(strict=False)
_CUT_OFF = "the file ends in the middle: it was cut off"
_HINT = "export the chat again"


class CutOff(Malformed):
    """The file ends before its JSON does."""

    hint = _HINT


class TooLarge(Malformed):
    """A value that is longer than was asked for; the stream has passed it."""


class Unreadable(Malformed):
    """A value whose brackets match but whose inside is no JSON; the stream has passed it."""

    hint = _HINT


class JsonStream:
    """Every method raises CutOff, or Malformed where the structure is broken; then there is no going on."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._at = 0

    # One character

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        character = self._text[self._at : self._at + 1]
        if character > " ":
            return character
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        if not self.skip_if(character):
            raise CutOff(_CUT_OFF) if self.peek() == "" else _not_json()

    def skip_if(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self._at += 1
        return True

    # Objects and arrays

    def members(self) -> Iterator[str]:
        """Of the object that comes next. Whoever gets a key reads or skips its value before asking on."""
        self.expect("{")
        if self.skip_if("}"):
            return
        while True:
            if self.peek() not in ('"', ""):
                raise _not_json()
            yield self._key()
            if self.skip_if("}"):
                return
            self.expect(",")

    def elements(self) -> Iterator[None]:
        """Of the array that comes next, in the same way."""
        self.expect("[")
        if self.skip_if("]"):
            return
        while True:
            yield
            if match := _COMMA.match(self._text, self._at):  # nearly always; it may be in the next piece
                self._at = match.end()
                continue
            if self.skip_if("]"):
                return
            self.expect(",")

    def _key(self) -> str:
        key: object = ""
        try:
            key = self.value(4096)
        except (TooLarge, Unreadable):
            key = ""  # none that anybody looks for
        self.expect(":")
        return key if isinstance(key, str) else ""

    # Values

    def value(self, longest: int) -> Any:
        """The next value. Raises TooLarge or Unreadable, having passed it."""
        self.peek()
        try:
            value, end = _DECODER.raw_decode(self._text, self._at)
            # A number at the end of the piece may go on in the next one.
            if end < len(self._text) and end - self._at <= longest:
                self._at = end
                return value
        except (ValueError, RecursionError):
            pass  # not whole yet, or with Telegram's escapes, or no JSON
        kept: list[str] | None = []
        for piece in self._passed():
            longest -= len(piece)
            if longest < 0:
                kept = None
            if kept is not None:
                kept.append(piece)
        if kept is None:
            raise TooLarge("a value is too long")
        text = "".join(kept)
        if "\\x" in text:
            text = _ESCAPE.sub(_json_escape, text)
        try:
            return _DECODER.decode(text)
        except (ValueError, RecursionError):
            raise Unreadable("this is no JSON") from None  # its message would hold the text

    def skip(self) -> None:
        for _ in self._passed():
            pass

    def _passed(self) -> Iterator[str]:
        """The next value's text in pieces; the stream has passed each piece that it yields."""
        first = self.peek()
        if first == "":
            raise CutOff(_CUT_OFF)
        if first == '"':
            yield from self._string()
        elif first in _CLOSING:
            yield from self._nested()
        else:
            yield from self._scalar()

    def _string(self) -> Iterator[str]:
        self._at += 1
        yield '"'
        while True:
            match = _IN_STRING.match(self._text, self._at)
            assert match is not None
            piece, self._at = match[0], match.end()
            if self._at < len(self._text) and self._text[self._at] == '"':
                self._at += 1
                yield piece
                yield '"'
                return
            yield piece
            if not self._more():  # a lone backslash at the end of the piece stays until then
                raise CutOff(_CUT_OFF)

    def _nested(self) -> Iterator[str]:
        open_: list[str] = []
        while True:
            match = _PLAIN.match(self._text, self._at)
            assert match is not None
            start, self._at = self._at, match.end()
            character = self._text[self._at : self._at + 1]
            if character == "":
                yield self._text[start : self._at]
                if not self._more():
                    raise CutOff(_CUT_OFF)
                continue
            if character == '"':  # of a string that does not end in this piece
                yield self._text[start : self._at]
                yield from self._string()
                continue
            self._at += 1
            if character in _CLOSING:
                open_.append(_CLOSING[character])
                if len(open_) > DEEPEST:
                    raise Malformed(
                        t("the file nests more than {most} levels deep: no export does", most=DEEPEST), _HINT
                    )
            elif open_.pop() != character:
                raise _not_json()
            yield self._text[start : self._at]
            if not open_:
                return

    def _scalar(self) -> Iterator[str]:
        empty = True
        while True:
            match = _SCALAR.match(self._text, self._at)
            assert match is not None
            empty = empty and not match[0]
            self._at = match.end()
            yield match[0]
            if self._at < len(self._text) or not self._more():
                break
        if empty:
            raise _not_json()

    def _more(self) -> bool:
        """Forget what was passed, and take the next piece. False at the end of the file."""
        piece = next(self._pieces, "")
        self._text = self._text[self._at :] + piece
        self._at = 0
        return bool(piece)


def _json_escape(match: re.Match[str]) -> str:
    """``\\x0B`` as JSON has it; any other escape, ``\\\\`` before an x among them, as it is."""
    return match[0] if match[1] is None else f"\\u00{match[1]}"


def _not_json() -> Malformed:
    return Malformed("the file is not JSON, or was damaged", _HINT)
