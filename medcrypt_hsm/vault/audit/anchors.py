"""TODO."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from medcrypt_hsm.crypto.p256 import verify_signature
from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.notation import canonical, ctx, lp

if TYPE_CHECKING:
    pass


class Anchor(NamedTuple):
    """What a token remembers of the log."""

    vault_id: bytes
    token_id: bytes
    sequence: int
    hash: bytes
    time: str
    audit_keys: tuple[bytes, ...]

    def encode(self) -> bytes:
        return canonical(
            {
                "version": 1,
                "vault": self.vault_id.hex(),
                "token": self.token_id.hex(),
                "sequence": self.sequence,
                "hash": self.hash.hex(),
                "time": self.time,
                "audit_keys": sorted(key.hex() for key in self.audit_keys),
            }
        )

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
        return Anchor(
            bytes.fromhex(fields["vault"]),
            bytes.fromhex(fields["token"]),
            int(fields["sequence"]),
            bytes.fromhex(fields["hash"]),
            str(fields["time"]),
            tuple(bytes.fromhex(key) for key in fields["audit_keys"]),
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise Malformed("the token's anchor cannot be read") from exc
