"""WhatsApp's ``_chat.txt``, or the zip that holds it, as iOS and Android write it in many countries.

File → ``WhatsAppExport.messages`` → ``ChatMessage`` values. A message begins with a line that has a header, and has all
lines up to the next one. Every header of a file has one form, that of its first: a pasted chat of another form stays
inside its message. Whether the day or the month comes first is told by all dates of the file together, so it is gone
through twice. No keys here, and no memory that grows with the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path

from medcrypt_hsm.chats import LONGEST, ChatMessage, too_long
from medcrypt_hsm.chats.pieces import chat_pieces
from medcrypt_hsm.errors import Malformed, UsageError

DAY_FIRST, MONTH_FIRST, YEAR_FIRST = "day-first", "month-first", "year-first"
ORDERS = (DAY_FIRST, MONTH_FIRST)
_HINT = "name WhatsApp's _chat.txt, or the zip that 'Export chat' made"
_HEAD = 400  # characters in which a header ends
_NAME = 200  # characters of a name at most, or it is a sentence of the program's

# Marks that steer the reading direction, and a stray byte order mark: anywhere in a header, and no part of it.
_MARKS = "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff"
_M = f"[{_MARKS}]*+"
_S = f"[ \u00a0\u202f\u2009{_MARKS}]"
_MORNING = ("am", "上午", "午前", "오전", "ص", "πμ")
_AFTERNOON = ("pm", "下午", "午後", "오후", "م", "μμ")
_HALF = rf"(?:[ap]\.?{_S}?m\.?|上午|下午|午前|午後|오전|오후|ص|م|[πμ]\.?μ\.?)"
_HEADER = re.compile(
    rf"{_M}(?P<bracket>\[?){_M}"
    rf"(?P<a>\d{{1,4}}){_M}(?P<by>[./-]){_S}?(?P<b>\d{{1,2}}){_M}(?P=by){_S}?(?P<c>\d{{1,4}}){_M}\.?"
    rf"(?:[,،]?{_S}+|[,،])(?:(?:klo|kl\.|à|às|at|um|om|ob|в){_S}+)?"
    rf"(?:(?P<before>{_HALF}){_S}*)?"
    rf"(?P<hour>\d{{1,2}})[:.](?P<minute>\d{{2}})(?P<seconds>[:.]\d{{2}})?{_M}"
    rf"(?:{_S}*(?P<after>{_HALF}))?{_M}"
    rf"(?P<end>\]|{_S}*[-–]){_S}*",
    re.IGNORECASE,
)
_STRIPPED = re.compile(f"[{_MARKS}]")
_TO_HALF = re.compile(rf"[.\s{_MARKS}]")


@dataclass(frozen=True, slots=True)
class _Form:
    """What all headers of one file have in common."""

    bracket: bool
    by: str
    seconds: bool


@dataclass(slots=True)
class _Head:
    """A header as it stands there: three numbers of which an order makes a date."""

    numbers: tuple[int, int, int]
    year_digits: int
    time: time | None  # of no zone: some phone's
    sender: str
    body: str

    def day(self, order: str) -> date | None:
        first, second, third = self.numbers
        if self.year_first:
            year, month, day = first, second, third
        else:
            year = third + 2000 if self.year_digits <= 2 else third
            day, month = (first, second) if order == DAY_FIRST else (second, first)
        try:
            return date(year, month, day) if 2000 <= year <= 2098 else None
        except ValueError:
            return None

    @property
    def year_first(self) -> bool:
        return self.numbers[0] >= 1000

    def moment(self, order: str) -> datetime | None:
        day = self.day(order)
        return None if day is None or self.time is None else datetime.combine(day, self.time)


class WhatsAppExport:
    """An exported file. ``date_order``: a person's word for it, instead of what the dates tell."""

    def __init__(self, path: Path, date_order: str | None = None) -> None:
        if date_order not in (None, *ORDERS):
            raise UsageError(f"{date_order!r} is no order of a date", f"give {' or '.join(ORDERS)}")
        self._path = path
        self._given = date_order
        self.date_order = date_order or ""
        self.ambiguous = False
        self.chats = 0

    def messages(self) -> Iterator[ChatMessage]:
        """Raises Malformed where nothing in the file is a message. Of a damaged zip the last message is an error."""
        self._look_at_dates()
        self.chats = 1
        order = self.date_order
        head: _Head | None = None
        lines: list[str] = []
        length = 0
        damage: Malformed | None = None
        try:
            for found, line in self._lines():
                if found is not None:
                    if head is not None:
                        yield _message(head, lines, length, order)
                    head, lines, length = found, [found.body], len(found.body)
                elif head is not None:
                    length += len(line) + 1
                    if length <= LONGEST:
                        lines.append(line)
        except Malformed as exc:
            damage = Malformed(exc.message, exc.hint)
        if head is not None:
            yield _message(head, lines, length, order)
        if damage is not None:
            yield ChatMessage("", error=damage)

    def _look_at_dates(self) -> None:
        evidence = _Evidence()
        damage: Malformed | None = None
        try:
            for head, _ in self._lines():
                if head is not None:
                    evidence.add(head)
        except Malformed as exc:
            damage = exc  # what stands before it is read all the same
        if not evidence.heads:
            raise damage or Malformed("this is not a chat of WhatsApp: no line in it begins like a message", _HINT)
        self.date_order, self.ambiguous = evidence.order(self._given)

    def _lines(self) -> Iterator[tuple[_Head | None, str]]:
        """Each line; with its header, if a message begins there."""
        form: _Form | None = None
        for line in _split(self._path):
            match = _HEADER.match(line, 0, _HEAD) if _may_begin(line) else None
            if match is not None:
                own = _Form(match["bracket"] == "[", match["by"], match["seconds"] is not None)
                if own.bracket == (match["end"] == "]") and form in (None, own):
                    head = _head(match, line)
                    if head is not None:
                        form = own
                        yield head, ""
                        continue
            yield None, line


def _may_begin(line: str) -> bool:
    """Most lines of a long text can be told at their first character."""
    first = line[:1]
    return first == "[" or first.isdigit() or (first != "" and not first.isascii())


def _split(path: Path) -> Iterator[str]:
    """Lines of at most a little more than the longest message; what is longer goes on, cut, and counts as too long.

    Ended by a line feed alone, or behind a carriage return: other characters that break lines may be in a message.
    """
    rest: list[str] = []
    length = 0
    with closing(chat_pieces(path)) as text:
        for piece in text:
            first, *lines = piece.split("\n")
            if length <= LONGEST + 2 * _HEAD:
                rest.append(first)
            length += len(first)
            if not lines:
                continue
            yield _ended("".join(rest))
            for line in lines[:-1]:
                yield _ended(line)
            rest, length = [lines[-1]], len(lines[-1])
    if length:
        yield _ended("".join(rest))


def _ended(line: str) -> str:
    return line[:-1] if line.endswith("\r") else line


def _head(match: re.Match[str], line: str) -> _Head | None:
    """None where the numbers are no date in any order."""
    a, b, c = int(match["a"]), int(match["b"]), int(match["c"])
    year_first = len(match["a"]) == 4
    if year_first:
        if len(match["c"]) > 2 or not 1 <= b <= 12 or not 1 <= c <= 31:
            return None
    elif (
        len(match["a"]) > 2 or len(match["c"]) not in (2, 4) or not (1 <= a <= 31 and 1 <= b <= 31 and min(a, b) <= 12)
    ):
        return None
    rest = line[match.end() :]
    name, colon, body = rest.partition(":")
    if not colon or len(name) > _NAME or (body and body[0] != " "):
        sender, body = "", rest  # the program's own words
    else:
        sender, body = _STRIPPED.sub("", name).strip(" \u00a0\u202f\u2009"), body[1:]
    return _Head((a, b, c), len(match["c"]), _time(match), sender, body)


def _time(match: re.Match[str]) -> time | None:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int((match["seconds"] or ":0")[1:])
    half = _TO_HALF.sub("", match["before"] or match["after"] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            half = ""  # some phones write 21:29 PM
        elif half in _MORNING:
            hour %= 12
        elif half in _AFTERNOON:
            hour = hour % 12 + 12
    return time(hour, minute, second) if hour < 24 and minute < 60 and second < 60 else None


def _message(head: _Head, lines: list[str], length: int, order: str) -> ChatMessage:
    if length > LONGEST:
        return ChatMessage("", head.moment(order), None, head.sender, "", too_long())
    return ChatMessage("\n".join(lines), head.moment(order), None, head.sender)


@dataclass(slots=True)
class _Evidence:
    """What the dates of a file say about their order. Chats run forward, so the wrong order is seen to jump back."""

    heads: int = 0
    years_first: int = 0
    only: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ORDERS, 0))
    back: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ORDERS, 0))
    last: dict[str, date] = field(default_factory=dict)
    numbers: tuple[int, int, int] | None = None

    def add(self, head: _Head) -> None:
        self.heads += 1
        if head.year_first:
            self.years_first += 1
            return
        if head.numbers == self.numbers:
            return  # the same day again says nothing new
        self.numbers = head.numbers
        days = {order: head.day(order) for order in ORDERS}
        for order, day in days.items():
            if day is None:
                continue
            if None in days.values():
                self.only[order] += 1
            if day < self.last.get(order, day):
                self.back[order] += 1
            self.last[order] = day

    def order(self, given: str | None) -> tuple[str, bool]:
        """The order, and whether the other one would do as well."""
        if self.years_first == self.heads:
            return YEAR_FIRST, False
        if given is not None:
            return given, False
        day, month = (self.only[order] for order in ORDERS)
        if day != month:
            return (DAY_FIRST if day > month else MONTH_FIRST), day > 0 and month > 0
        if day == 0 and self.back[DAY_FIRST] != self.back[MONTH_FIRST]:
            return min(ORDERS, key=lambda order: self.back[order]), False
        return DAY_FIRST, True
