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
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.messages.chats import FIRST_YEAR, LAST_YEAR, LONGEST, ChatMessage, too_long
from medcrypt_hsm.messages.chats.pieces import chat_pieces
from medcrypt_hsm.sentences import joined, t

DAY_FIRST, MONTH_FIRST, YEAR_FIRST = "day-first", "month-first", "year-first"
ORDERS = (DAY_FIRST, MONTH_FIRST)
_HINT = "name WhatsApp's _chat.txt, or the zip that 'Export chat' made"
_HEAD = 400  # characters in which a header ends
_NAME = 200  # characters of a name at most, or it is a sentence of the program's
# Marks that steer the reading direction, and a stray byte order mark: anywhere in a header, and no part of it.
_MARKS = "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff"
_M = f"[{_MARKS}]*+"
_S = f"[ \u00a0\u202f\u2009{_MARKS}]"
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


class _Numbers(NamedTuple):
    """Three numbers of which an order makes a date. Of one day the same: kept, not made for every message."""

    first: int
    second: int
    third: int
    year_first: bool

    def day(self, order: str) -> date | None:
        first, second, third, year_first = self
        if year_first:
            year, month, day = first, second, third
        else:
            year = third + 2000 if third < 100 else third
            day, month = (first, second) if order == DAY_FIRST else (second, first)
        try:
            return date(year, month, day) if FIRST_YEAR <= year <= LAST_YEAR else None
        except ValueError:
            return None


class _Head(NamedTuple):
    """A header as it stands there."""

    numbers: _Numbers
    clock: tuple[str, str, str | None, str | None, str | None]  # hour, minute, seconds, half of the day before or after
    match: re.Match[str]


class _Heads:
    """Finds headers. All of a file have one form: that of the first."""

    def __init__(self) -> None:
        self._form: tuple[bool, str, bool] | None = None  # bracket, separator of dates, seconds

    def at(self, line: str) -> _Head | None:
        """The header with which ``line`` begins."""
        match = _HEADER.match(line, 0, _HEAD) if _may_begin(line) else None
        if match is None:
            return None
        bracket, a, by, b, c, before, hour, minute, seconds, after, end = match.groups()
        own = (bracket == "[", by, seconds is not None)
        if own[0] != (end == "]") or self._form not in (None, own):
            return None
        numbers = _numbers(a, b, c)
        if numbers is None:
            return None
        self._form = own
        return _Head(numbers, (hour, minute, seconds, before, after), match)


class WhatsAppExport:
    """An exported file. ``date_order``: a person's word for it, instead of what the dates tell."""

    def __init__(self, path: Path, date_order: str | None = None) -> None:
        if date_order not in (None, *ORDERS):
            raise UsageError(
                t("{order!r} is no order of a date", order=date_order),
                t("give {orders}", orders=joined(t(" or "), ORDERS)),
            )
        self._path = path
        self._given = date_order
        self.date_order = date_order or ""
        self.ambiguous = False
        self.chats = 0

    def messages(self) -> Iterator[ChatMessage]:
        """Raises Malformed where nothing in the file is a message. Of a damaged zip the last message is an error."""
        self._look_at_dates()
        self.chats = 1
        heads, order = _Heads(), self.date_order
        begun: ChatMessage | None = None
        lines: list[str] = []
        length = 0
        damage: Malformed | None = None
        try:
            for line in _split(self._path):
                head = heads.at(line)
                if head is not None:
                    if begun is not None:
                        yield _message(begun, lines, length)
                    begun = _began(head, line, order)
                    lines, length = [begun.text], len(begun.text)
                elif begun is not None:
                    length += len(line) + 1
                    if length <= LONGEST:
                        lines.append(line)
        except Malformed as exc:
            damage = Malformed(exc.message, exc.hint)
        if begun is not None:
            yield _message(begun, lines, length)
        if damage is not None:
            yield ChatMessage("", error=damage)

    def _look_at_dates(self) -> None:
        heads, evidence = _Heads(), _Evidence()
        same_day = "\n"  # what no line begins with
        damage: Malformed | None = None
        try:
            for line in _split(self._path):
                if line.startswith(same_day):
                    continue  # whether a message begins there or not: its date says nothing new
                head = heads.at(line)
                if head is not None:
                    evidence.add(head.numbers)
                    same_day = line[: head.match.end("c") + 1]  # with what ends the year
        except Malformed as exc:
            damage = exc  # what stands before it is read all the same
        if not evidence.heads:
            raise damage or Malformed("this is not a chat of WhatsApp: no line in it begins like a message", _HINT)
        self.date_order, self.ambiguous = evidence.order(self._given)


def _may_begin(line: str) -> bool:
    """Most lines of a long text can be told at their first character."""
    first = line[:1]
    return first == "[" or first.isdigit() or (first != "" and not first.isascii())


def _split(path: Path) -> Iterator[str]:
    """Lines of at most a little more than the longest message; what is longer goes on, cut, and counts as too long.

    A line ends with a line feed, alone or after a carriage return: other line breaks may be part of a message.
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


@lru_cache(maxsize=1024)
def _numbers(a: str, b: str, c: str) -> _Numbers | None:
    """None where they are no date in any order."""
    first, second, third = int(a), int(b), int(c)
    if len(a) == 4:
        fits = len(c) <= 2 and 1 <= second <= 12 and 1 <= third <= 31
    else:
        fits = len(a) <= 2 and len(c) in (2, 4) and 1 <= min(first, second) <= 12 and max(first, second) <= 31
    return _Numbers(first, second, third, len(a) == 4) if fits else None


def _began(head: _Head, line: str, order: str) -> ChatMessage:
    """A message with what stands in its first line."""
    when = _moment(_day(head.numbers, order), *head.clock)
    start = head.match.end()
    colon = line.find(":", start, start + _NAME + 1)
    if colon < 0 or line[colon + 1 : colon + 2] not in ("", " "):
        return ChatMessage(line[start:], when)  # the program's own words
    name = line[start:colon]
    if not name.isascii():
        name = _STRIPPED.sub("", name).strip(" \u00a0\u202f\u2009")
    return ChatMessage(line[colon + 2 :], when, None, name)


@lru_cache(maxsize=1024)
def _day(numbers: _Numbers, order: str) -> date | None:
    return numbers.day(order)


def _moment(
    day: date | None, hours: str, minutes: str, seconds: str | None, before: str | None, after: str | None
) -> datetime | None:
    """Of no zone: some phone's."""
    hour, minute, second = _hour(hours, before or after), int(minutes), 0 if seconds is None else int(seconds[1:])
    if day is None or hour > 23 or minute > 59 or second > 59:
        return None
    return datetime(day.year, day.month, day.day, hour, minute, second)  # noqa: DTZ001 - of no zone


@lru_cache(maxsize=1024)
def _hour(hours: str, half: str | None) -> int:
    """Of 24, if it is one."""
    hour = int(hours)
    if half is not None and 1 <= hour <= 12:  # some phones write 21:29 PM
        hour = hour % 12 + (12 if _TO_HALF.sub("", half).lower() in _AFTERNOON else 0)
    return hour


def _message(head: ChatMessage, lines: list[str], length: int) -> ChatMessage:
    if length > LONGEST:
        return head._replace(text="", error=too_long())
    return head if len(lines) == 1 else head._replace(text="\n".join(lines))


@dataclass(slots=True)
class _Evidence:
    """What the dates of a file say about their order. Chats run forward, so the wrong order is seen to jump back."""

    heads: int = 0
    years_first: int = 0
    only: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ORDERS, 0))
    back: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ORDERS, 0))
    last: dict[str, date] = field(default_factory=dict)
    numbers: _Numbers | None = None

    def add(self, numbers: _Numbers) -> None:
        self.heads += 1
        if numbers.year_first:
            self.years_first += 1
            return
        if numbers == self.numbers:
            return  # the same day again says nothing new
        self.numbers = numbers
        days = {order: numbers.day(order) for order in ORDERS}
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
