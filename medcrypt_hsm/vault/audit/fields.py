"""The forms that values in the details of audit entries in the clear have (docs/spec/audit.md, rekey.md).

Each function takes a value that was parsed from JSON, and raises ValueError, or NotAuthentic for what is no key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medcrypt_hsm.crypto.p256 import load_p256

HEX = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)
TOLD = ("audit_key", "id", "serial", "model", "profile", "kek", "attestation")


def introduction(token: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The detail of a ``token.introduce`` entry, from the token's row in the trust state."""
    return {"name": name} | {member: token[member] for member in TOLD}


def p256_key(text: str) -> bytes:
    """DER from lower-case hex. Raises ValueError or NotAuthentic."""
    spki = bytes.fromhex(text)
    if spki.hex() != text:
        raise ValueError("not lower-case hex")
    load_p256(spki)
    return spki


def check_kek(profile: str, kek: str) -> None:
    """Raises ValueError or NotAuthentic."""
    if profile == "p256-hpke":
        p256_key(kek)
    elif kek != "":  # nor null, which is no text
        raise ValueError("a public key for a KEK that has none")


def number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:  # type(): True is an int to isinstance
        raise ValueError("not a number in range")
    return value


def texts(value: Any, form: re.Pattern[str]) -> list[str]:
    """Texts of one form, sorted, each once."""
    if (
        not isinstance(value, list)
        or not all(isinstance(item, str) and form.fullmatch(item) for item in value)
        or value != sorted(set(value))
    ):
        raise ValueError("not a sorted list")
    return value


def token_ids(value: Any) -> list[bytes]:
    """A list of token ids in hex."""
    return [bytes.fromhex(text) for text in texts(value, HEX)]


def refs(value: Any) -> None:
    """Names of rows: whoever has the token compares them with the rows."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of rows")


def only(detail: Mapping[str, Any], *members: str, optional: Sequence[str] = ()) -> None:
    """Everything that is named is there, and nothing more; ``optional`` may be."""
    if not set(members) <= set(detail) <= {*members, *optional}:
        raise ValueError("it has other members than the spec's")
