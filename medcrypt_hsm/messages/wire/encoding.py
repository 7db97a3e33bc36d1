"""Strict base64 and base32: text in, bytes out, and exactly one text for every value.

Python's decoders forgive foreign characters, surplus padding and non-zero trailing bits. Here a text is accepted only
if encoding its value gives the same text again, so no two wire texts ever mean the same bytes.
"""

from __future__ import annotations

import base64
import binascii

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.sentences import t


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
    return base64.b32encode(value).decode("ascii").rstrip("=")


def decode_base32(text: str, *, field: str) -> bytes:
    """The one value whose unpadded base32 is ``text``. Raises Malformed."""
    try:
        value = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError as exc:
        raise Malformed(t("the {field} is not base32 in upper case", field=field)) from exc
    if encode_base32(value) != text:
        raise Malformed(t("the {field} is not canonical base32", field=field))
    return value
