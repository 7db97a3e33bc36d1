"""Messages of version 1, byte for byte those of MedCrypt v1 (docs/spec/messages.md, "Version 1").

Text → ``parse`` → ``MessageV1``; the way back is ``encode``. ``month_key`` is version 1's whole key schedule. What is
not here: the decision when a version 1 message may still be read or written.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import decode_base64, encode_base64

ROUNDS = 600_000
NONCE_BYTES = 12
TAG_BYTES = 16
PATIENT_ID_BYTES = 128
_PREFIX = "[MEDCRYPT:v1:"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class MessageV1(NamedTuple):
    """A well-formed message that nobody has authenticated yet. ``sealed`` is ciphertext || tag."""

    patient_id: str
    nonce: bytes
    sealed: bytes
    text: str

    @property
    def aad(self) -> bytes:
        return self.patient_id.encode()


def parse(text: str) -> MessageV1:
    """Read one message, from ``[`` to ``]`` and nothing around it. Raises Malformed, naming the field at fault."""
    if not (text.startswith(_PREFIX) and text.endswith("]")):
        raise Malformed("this is not a message of version 1")
    fields = text[len(_PREFIX) : -1].split(":", 4)
    if len(fields) != 4:
        raise Malformed("a message of version 1 has four fields behind its version")
    carried = decode_base64(fields[0], padded=True, field="patient id")
    nonce = decode_base64(fields[1], padded=True, field="nonce")
    ciphertext = decode_base64(fields[2], padded=True, field="ciphertext")
    tag = decode_base64(fields[3], padded=True, field="tag")
    if fault := _id_fault(carried):
        raise Malformed(fault)
    if len(nonce) != NONCE_BYTES:
        raise Malformed("the nonce is not 12 bytes")
    if len(tag) != TAG_BYTES:
        raise Malformed("the tag is not 16 bytes")
    return MessageV1(carried.decode(), nonce, ciphertext + tag, text)


def encode(patient_id: str, nonce: bytes, sealed: bytes) -> str:
    """The wire text. Raises UsageError for an id that no message can carry, ValueError for wrong lengths."""
    if len(nonce) != NONCE_BYTES or len(sealed) < TAG_BYTES:
        raise ValueError("a nonce is 12 bytes, and a sealed text ends in a tag of 16")
    carried = check_patient_id(patient_id)
    fields = (carried, nonce, sealed[:-TAG_BYTES], sealed[-TAG_BYTES:])
    return _PREFIX + ":".join(encode_base64(field, padded=True) for field in fields) + "]"


def check_patient_id(patient_id: str) -> bytes:
    """The id in UTF-8, if version 1 can carry it: 1 to 128 bytes, no control characters. Raises UsageError."""
    carried = patient_id.encode("utf-8", "replace")
    # Compared, not caught: a UnicodeEncodeError carries the id along, and errors end up in logs.
    fault = _id_fault(carried) if carried.decode() == patient_id else "the patient id is not Unicode text"
    if fault:
        raise UsageError(fault, hint="version 1 carries 1 to 128 bytes without control characters")
    return carried


def month_key(secret: str | bytes, month: Month) -> bytes:
    """The 32-byte AES key of ``month``: PBKDF2-HMAC-SHA256 (RFC 8018), salted with the month. Slow on purpose."""
    carried = secret.encode() if isinstance(secret, str) else secret
    salt = hmac.digest(carried, str(month).encode("ascii"), "sha256")[:16]
    return hashlib.pbkdf2_hmac("sha256", carried, salt, ROUNDS, 32)


def _id_fault(carried: bytes) -> str:
    if not 1 <= len(carried) <= PATIENT_ID_BYTES:
        return "the patient id is not 1 to 128 bytes long"
    patient_id = carried.decode("utf-8", "replace")
    if patient_id.encode() != carried:
        return "the patient id is not UTF-8"
    if _CONTROL.search(patient_id):
        return "the patient id holds a control character"
    return ""
