"""The audit log's bytes: entries, hashes, heads and anchors (docs/spec/audit.md).

In: stored bytes, public keys. Out: parsed values, or an error that names the entry. Verification is quiet when all is
well. Not here: what follows from entries (hashchain.py), files, tokens, clocks; who signs and where rows are kept is
unlock.py's and vault.py's affair.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from medcrypt_hsm.context import ctx, lp, u64
from medcrypt_hsm.errors import AuditBroken, Malformed, NotAuthentic
from medcrypt_hsm.keys import AeadKey, canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

INTRODUCE = "token.introduce"
RESTORE = "vault.restore"
REKEY = "vault.rekey"
SYNC = "vault.sync"
DONE, INTENDED, UNDONE = "done", "intended", "undone"
BG_OPEN, BG_CLOSE = "breakglass.open", "breakglass.close"
CLEAR_ACTIONS = {
    INTRODUCE: (DONE,),
    RESTORE: (DONE,),
    REKEY: (INTENDED, DONE, UNDONE),
    SYNC: (INTENDED, DONE, UNDONE),
    BG_OPEN: (DONE,),
    BG_CLOSE: (DONE,),
}
"""What stands in the clear, so that a stranger can follow it, with the outcomes that it may have."""
P256_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # DER; behind it stands the point
PROFILES = ("aes-kw", "p256-hpke")  # of a token that is introduced, as tokens has them
GRADES = ("not-attested", "token-claimed", "device-attested")  # likewise, as tokens/attestation.py has them


class EntryRow(NamedTuple):
    """An entry and its head as the file keeps them."""

    sequence: int
    stored: bytes
    hash: bytes
    trust: bytes
    signer: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened, as the log tells it. ``detail`` never holds a key, a secret, a PIN or a plaintext."""

    time: str
    actor: str
    token: str
    action: str
    subject: str
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        return canonical({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Raises ValueError."""
        value = json.loads(data, parse_float=_refuse_number, parse_constant=_refuse_number)
        if not isinstance(value, dict) or set(value) != set(cls.__slots__) or canonical(value) != data:
            raise ValueError("not a canonical audit entry")
        if not isinstance(value["detail"], dict) or not all(
            isinstance(value[name], str) for name in cls.__slots__ if name != "detail"
        ):
            raise ValueError("not an audit entry")
        parse_time(value["time"])
        return cls(**value)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"canonical JSON has no number {text}")


def parse_time(text: str) -> datetime:
    """A time as the notation has it, which sorts as text. Raises ValueError."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}Z", text) is None:
        raise ValueError("not a UTC time")
    return datetime.fromisoformat(text)


def genesis(vault_id: bytes) -> bytes:
    """hash(0)."""
    return sha256(ctx("medcrypt/audit/genesis", vault_id)).digest()


def entry_hash(previous: bytes, sequence: int, trust: bytes, signer: bytes, stored: bytes) -> bytes:
    """hash(i): over the entry, the trust state behind it and who signed, so that a later head vouches for all three."""
    return sha256(ctx("medcrypt/audit/entry", previous, u64(sequence), trust, signer, stored)).digest()


def clear_entry(entry: Entry) -> bytes:
    return b"\x00" + entry.encode()


def seal_entry(entry: Entry, log_key: AeadKey, number: int, nonce: bytes, vault_id: bytes, sequence: int) -> bytes:
    sealed = log_key.seal(nonce, entry.encode(), _sealed_aad(vault_id, sequence, number))
    return b"\x01" + number.to_bytes(4, "big") + nonce + sealed


def _sealed_aad(vault_id: bytes, sequence: int, number: int) -> bytes:
    return ctx("medcrypt/audit/sealed", vault_id, u64(sequence), u64(number))


def read_clear(row: EntryRow) -> Entry | None:
    """The entry, or None if it is sealed. Raises AuditBroken."""
    if row.stored[:1] == b"\x01":
        return None
    try:
        if row.stored[:1] != b"\x00":
            raise ValueError("unknown kind of entry")
        entry = Entry.decode(row.stored[1:])
        if entry.outcome not in CLEAR_ACTIONS.get(entry.action, ()):
            raise ValueError("an entry that must be sealed is in the clear")
        return entry
    except (ValueError, RecursionError) as exc:
        raise AuditBroken(f"audit entry {row.sequence} cannot be read: {exc}", at=row.sequence) from exc


def log_key_number(row: EntryRow) -> int:
    """Which log key seals this entry. Raises AuditBroken."""
    number = int.from_bytes(row.stored[1:5], "big")
    if len(row.stored) < 1 + 4 + 12 + 16 or number < 1:
        raise AuditBroken(f"audit entry {row.sequence} is cut short, or names no log key", at=row.sequence)
    return number


def open_entry(row: EntryRow, log_key: AeadKey, vault_id: bytes) -> Entry:
    """A sealed entry's content. Raises AuditBroken."""
    number = log_key_number(row)
    try:
        data = log_key.open(row.stored[5:17], row.stored[17:], _sealed_aad(vault_id, row.sequence, number))
        entry = Entry.decode(data)
        if entry.action in CLEAR_ACTIONS:
            raise ValueError("an entry that must be in the clear is sealed")
        return entry
    except (NotAuthentic, ValueError, RecursionError) as exc:
        raise AuditBroken(f"audit entry {row.sequence} does not open under its log key", at=row.sequence) from exc


# Heads


def head_bytes(vault_id: bytes, sequence: int, hash_: bytes, trust: bytes) -> bytes:
    """What the audit key signs for every entry."""
    return ctx("medcrypt/head", vault_id, u64(sequence), hash_, trust)


def fingerprint(spki: bytes) -> bytes:
    """SHA-256 of the DER SubjectPublicKeyInfo; an audit key's is its token's id."""
    return sha256(spki).digest()


def verify_signature(spki: bytes, signature: bytes, data: bytes) -> None:
    """ECDSA P-256 with SHA-256, 64 bytes r || s (FIPS 186-5). Raises NotAuthentic."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    key = load_p256(spki)
    if len(signature) != 64:
        raise NotAuthentic("a signature is not 64 bytes long")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError) as exc:
        raise NotAuthentic("a signature does not verify") from exc


@functools.lru_cache(maxsize=64)  # a log has a few keys and a million heads, and loading one is slow
def load_p256(spki: bytes) -> EllipticCurvePublicKey:
    """A P-256 public key from its DER SubjectPublicKeyInfo (RFC 5480), point uncompressed. Raises NotAuthentic.

    No other encoding is taken: it would have another fingerprint, and be one key introduced as two tokens.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    if not spki.startswith(P256_SPKI + b"\x04"):
        raise NotAuthentic(_why_not_p256(spki))
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), spki[len(P256_SPKI) :])
    except ValueError as exc:
        raise NotAuthentic("that is not a public key") from exc


def _why_not_p256(spki: bytes) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return "that is not a public key"
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return "that is not a P-256 key"
    return "that P-256 key is not encoded as the spec says"


# Anchor


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
