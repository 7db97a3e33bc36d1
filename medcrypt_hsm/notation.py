"""``ctx``: the one way in which bytes are bound to their meaning (docs/spec/notation.md).

Every MAC, AAD, signature and HKDF info in MedCrypt is over a ``ctx``, so that no two meanings share bytes. Beside it:
how times, octets and JSON are written, everywhere in the same way.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

_HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)


def lp(value: bytes) -> bytes:
    """The 4-byte big-endian length of ``value``, then ``value``."""
    return len(value).to_bytes(4, "big") + value


def u64(number: int) -> bytes:
    """A sequence number or generation inside a ``ctx``: 8 bytes, big-endian."""
    return number.to_bytes(8, "big")


def ctx(label: str, *parts: bytes | str) -> bytes:
    """``lp(label) lp(part) …``, text in UTF-8."""
    joined: list[bytes] = []  # a loop and not ``lp`` in a generator: a re-key makes a hundred thousand of these
    for part in (label, *parts):
        data = part.encode() if isinstance(part, str) else part
        joined += (len(data).to_bytes(4, "big"), data)
    return b"".join(joined)


def octets(text: Any, size: int | None = None) -> bytes:
    """Bytes from lower-case hex, which they are inside JSON. Raises ValueError, also for what is no text."""
    if not isinstance(text, str) or _HEX.fullmatch(text) is None or size not in (None, len(text) // 2):
        raise ValueError("not lower-case hex of the right length")
    return bytes.fromhex(text)


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """A time as the notation has it, which sorts as text. Raises ValueError."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}Z", text) is None:
        raise ValueError("not a UTC time")
    return datetime.fromisoformat(text)


def canonical(value: Any) -> bytes:
    """Canonical JSON (docs/spec/notation.md)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
