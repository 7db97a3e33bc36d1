"""What goes to stdout, and how text from outside is made safe to show.

``visible`` is for anything that is one line of ours; ``framed`` for plaintext of several lines. Plaintext comes from
strangers: it may hold terminal commands, characters that turn the reading direction, or a line that looks like one of
this program's. Nothing here decides what is printed, only how.
"""

from __future__ import annotations

import sys
import unicodedata

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

SCHEMA = 1
FRAME = "│ "
CONTINUED = "┆ "  # a line that the terminal's width broke
_JOINERS = "\u200c\u200d"  # inside words of some scripts and emoji; they move nothing


def write(text: str) -> None:
    """To stdout, exactly."""
    sys.stdout.write(text)


def write_document(document: dict[str, Any]) -> None:
    """The one JSON document of a command, ASCII only, so that no terminal takes a part of it for a command."""
    write(json_line({"schema": SCHEMA, **document}) + "\n")


def json_line(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, ensure_ascii=True)


def visible(text: str) -> str:
    """``text`` in one line: control, escape, bidirectional and line-breaking characters are shown escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if _is_active(c) else c for c in text)


def _is_active(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Zl", "Zp", "Cs") or (category == "Cf" and character not in _JOINERS)


def _escape(character: str) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    point = ord(character)
    if character in known:
        return known[character]
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def framed(text: str, columns: int | None = None) -> list[str]:
    """Lines of a plaintext, each after ``FRAME``, so that none can pass for a line of this program.

    ``columns``: the terminal's width; broken here, because a line that the terminal breaks would go on in the first
    column.
    """
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = "\t".join(visible(piece) for piece in line.split("\t"))
        lead = FRAME
        for piece in _broken(shown, columns - len(FRAME) - 1) if columns else (shown,):
            lines.append(lead + piece)
            lead = CONTINUED
    return lines


def _broken(line: str, columns: int) -> Iterable[str]:
    """Pieces of at most ``columns``, however wide a terminal shows each character: the widest is counted."""
    columns = max(columns, 8)
    start = width = 0
    for at, character in enumerate(line):
        more = 1 if character.isascii() else 2
        if character == "\t":
            more = 8
        if width + more > columns:
            yield line[start:at]
            start, width = at, 0
        width += more
    yield line[start:]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns, two spaces apart, never cut. Every cell is made visible."""
    cells = [list(heads), *([visible(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell + " " * (w - _width(cell)) for cell, w in zip(row, widths, strict=True)) for row in cells)
    return "".join(line.rstrip() + "\n" for line in lines)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """``name: value`` lines with the values below each other."""
    shown = [(f"{name}:", visible(str(value))) for name, value in pairs]
    width = max(len(name) for name, _ in shown)
    return "".join(f"{name:<{width}} {value}".rstrip() + "\n" for name, value in shown)


def write_exactly(text: str) -> None:
    """Into a pipe or file: a stream's own encoding and error handling must not touch these bytes."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())


def moment(value: Any) -> str:
    """A datetime as every timestamp of the program is written."""
    return str(value.strftime("%Y-%m-%dT%H:%M:%SZ"))
