"""Anchors: what a token remembers of the log, so that an older or another file is found out (docs/spec/audit.md).

In: an object's content from a token, and the audit key on record for it. Out: an ``Anchor`` whose signature is right,
or the bytes to sign and to keep. Not here: writing one to a token, and what follows from one (vault/anchoring.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from medcrypt_hsm.crypto.p256 import verify_signature
from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.notation import canonical, ctx, lp
from medcrypt_hsm.vault.audit.fields import NUMBER, OCTETS, TEXT, Codec, Fields


def _read_keys(keys: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(key) for key in keys)


def _write_keys(keys: Sequence[bytes]) -> list[str]:
    return sorted(key.hex() for key in keys)


_FIELDS = Fields(
    audit_keys=Codec(_read_keys, _write_keys),
    hash=OCTETS,
    sequence=NUMBER,
    time=TEXT,
    token=OCTETS.called("token_id"),
    vault=OCTETS.called("vault_id"),
)


class Anchor(NamedTuple):
    """What a token remembers of the log."""

    vault_id: bytes
    token_id: bytes
    sequence: int
    hash: bytes
    time: str
    audit_keys: tuple[bytes, ...]

    def encode(self) -> bytes:
        return canonical({"version": 1} | _FIELDS.value(self))

    def signed(self, signature: bytes) -> bytes:
        return lp(self.encode()) + signature

    @property
    def to_sign(self) -> bytes:
        return ctx("medcrypt/anchor", self.encode())


def parse_anchor(value: bytes, spki: bytes) -> Anchor:
    """An anchor object's content, once its signature is right. Raises NotAuthentic or Malformed."""
    length = int.from_bytes(value[:4], "big")
    data, signature = value[4 : 4 + length], value[4 + length :]
    verify_signature(spki, signature, ctx("medcrypt/anchor", data))
    try:
        fields = json.loads(data)
        if fields["version"] != 1:
            raise ValueError("unknown version")
        return Anchor(**_FIELDS.read(fields))
    except (ValueError, KeyError, TypeError) as exc:
        raise Malformed("the token's anchor cannot be read") from exc
