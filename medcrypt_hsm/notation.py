"""``ctx``: the one way in which bytes are bound to their meaning (docs/spec/notation.md).

Every MAC, AAD, signature and HKDF info in MedCrypt is over a ``ctx``, so that no two meanings share bytes. Beside it:
how times, octets, base64, base32 and JSON are written, everywhere in the same way. Python's decoders forgive foreign
characters, surplus padding and non-zero trailing bits; here a text is accepted only if encoding its value gives the
same text again, so that no two texts ever mean the same bytes.
"""

from __future__ import annotations

import binascii
import json
import re

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.sentences import t

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from datetime import datetime
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
    from datetime import UTC

    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """A time as the notation has it, which sorts as text. Raises ValueError."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}Z", text) is None:
        raise ValueError("not a UTC time")
    from datetime import datetime

    return datetime.fromisoformat(text)


def canonical(value: Any) -> bytes:
    """Canonical JSON (docs/spec/notation.md)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def encode_base64(value: bytes, *, padded: bool) -> str:
    """RFC 4648 section 4, with or without ``=``."""
    text = binascii.b2a_base64(value, newline=False).decode("ascii")
    return text if padded else text.rstrip("=")


def decode_base64(text: str, *, padded: bool, field: str) -> bytes:
    """The one value whose encoding is ``text``. Raises Malformed, naming ``field`` and never showing its content."""
    try:
        value = binascii.a2b_base64(text if padded else text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as exc:
        raise Malformed(t("the {field} is not base64", field=field)) from exc
    if encode_base64(value, padded=padded) != text:
        raise Malformed(t("the {field} is not canonical base64", field=field))
    return value


def encode_base32(value: bytes) -> str:
    """RFC 4648 section 6, upper case, without ``=``."""
    import base64

    return base64.b32encode(value).decode("ascii").rstrip("=")


def decode_base32(text: str, *, field: str) -> bytes:
    """The one value whose unpadded base32 is ``text``. Raises Malformed."""
    import base64

    try:
        value = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError as exc:
        raise Malformed(t("the {field} is not base32 in upper case", field=field)) from exc
    if encode_base32(value) != text:
        raise Malformed(t("the {field} is not canonical base32", field=field))
    return value
