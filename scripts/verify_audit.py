#!/usr/bin/env python3
"""Verify a medcrypt vault's audit log with public keys alone. Needs Python 3.11, `cryptography` and nothing else.

In: a vault file or backup, the audit keys one trusts (PEM), and checkpoints kept elsewhere. Out: what was verified and
exit code 0, or what is wrong, with the entry's number, and exit code 5; wrong usage is 2. It follows docs/spec
(notation, vault, audit) and shares no line with the program that writes vaults: two readers of one spec must agree.

What exit code 0 does not say:
- that the log is complete at its end. Somebody with an older copy of the file, or who cuts entries back to one with
  the same trust state, has a file that verifies. Only a checkpoint kept elsewhere, or a token's anchor, shows it.
- what sealed entries say, or that `records`, `sealed` and `seen` hold what they should: that needs the token
  (`medcrypt audit verify`).
- anything against someone who holds a token and its PIN: they can sign.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

VERIFIED, NOT_VERIFIED = 0, 5
APPLICATION_ID, SCHEMA_VERSION = 0x4D454443, 1
SCHEMA = {
    ("table", "trust", "trust"): "CREATE TABLE trust (kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, "
    "PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID",
    ("table", "entries", "entries"): "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, stored BLOB NOT NULL, "
    "hash BLOB NOT NULL, trust BLOB NOT NULL, signer BLOB NOT NULL, signature BLOB NOT NULL) STRICT",
    ("table", "records", "records"): "CREATE TABLE records (purpose TEXT NOT NULL, pairing BLOB NOT NULL, "
    "month TEXT NOT NULL, sequence INTEGER NOT NULL, wrapped BLOB NOT NULL, mac BLOB NOT NULL, "
    "PRIMARY KEY (purpose, pairing, month)) STRICT, WITHOUT ROWID",
    ("table", "sealed", "sealed"): "CREATE TABLE sealed (purpose TEXT NOT NULL, pairing BLOB NOT NULL, "
    "lookup BLOB NOT NULL, sequence INTEGER NOT NULL, nonce BLOB NOT NULL, body BLOB NOT NULL, "
    "PRIMARY KEY (purpose, pairing)) STRICT, WITHOUT ROWID",
    ("index", "sealed_lookup", "sealed"): "CREATE INDEX sealed_lookup ON sealed (lookup)",
    ("table", "seen", "seen"): "CREATE TABLE seen (pairing BLOB NOT NULL, month TEXT NOT NULL, nonce BLOB NOT NULL, "
    "digest BLOB NOT NULL, PRIMARY KEY (pairing, month, nonce)) STRICT, WITHOUT ROWID",
}
TRUST_ROWS = {
    "vault": {"created", "generation", "id", "log_key"},
    "policy": {"grace_days", "require_attestation", "retain_months"},
    "token": {"attestation", "audit_key", "id", "kek", "label", "model", "profile", "serial", "touch", "uri"},
    "keyset": {"token", "wrapped"},
    "month": {"opened"},
    "adding": {"begun", "serial", "uri"},
}
TIMES, NUMBERS = {"created", "opened", "begun"}, {"generation", "log_key", "grace_days", "retain_months"}
INTRODUCED = ("attestation", "audit_key", "id", "kek", "model", "profile", "serial")  # as in the token's row
PROFILES, GRADES = ("aes-kw", "p256-hpke"), ("not-attested", "token-claimed", "device-attested")
ENTRY_MEMBERS = {"action", "actor", "detail", "outcome", "subject", "time", "token"}
CLEAR, SEALED = 0x00, 0x01
SEALED_OVERHEAD = 1 + 4 + 12 + 16  # leading byte, log key number, nonce, tag
LARGEST_VALUE = 64 << 20  # of one stored value: a hostile file must not decide how much memory we take
LARGEST_ARGUMENT = 1 << 16  # of a PEM or checkpoint file
RESTORES_SHOWN = 100  # likewise; all are counted


class NotVerified(Exception):
    """The file, a key or a checkpoint is not as the spec says; `entry` is the sequence number concerned, if any."""

    def __init__(self, what: str, entry: int | None = None) -> None:
        super().__init__(what)
        self.entry = entry


def lp(x: bytes) -> bytes:
    return len(x).to_bytes(4, "big") + x


def ctx(label: str, *parts: bytes) -> bytes:
    return lp(label.encode()) + b"".join(lp(part) for part in parts)


def u64(n: int) -> bytes:
    return n.to_bytes(8, "big")


def sha256(x: bytes) -> bytes:
    return hashlib.sha256(x).digest()


def canonical_object(stored: object, what: str) -> dict[str, Any]:
    """A stored canonical JSON object; anything that would not be encoded back to the same bytes is refused."""

    def refuse(text: str) -> NoReturn:
        raise ValueError(text)

    try:
        if not isinstance(stored, bytes):
            raise ValueError("not a blob")
        value = json.loads(stored.decode(), parse_float=refuse, parse_constant=refuse)
        # One re-encoding finds them all: duplicate members (two readers would see two things), order, spaces, escapes.
        encoded = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # ValueError: also bad UTF-8 and integers of thousands of digits
        raise NotVerified(f"{what} is not canonical JSON") from error
    if encoded != stored or not isinstance(value, dict):
        raise NotVerified(f"{what} is not a canonical JSON object")
    return value


def text(members: dict[str, Any], name: str, what: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise NotVerified(f"{what}: {name!r} is not text")
    return value


def octets(members: dict[str, Any], name: str, what: str, size: int | None = None) -> bytes:
    """Bytes written as lower-case hex."""
    value = text(members, name, what)
    if not re.fullmatch(r"(?:[0-9a-f]{2})+", value) or size not in (None, len(value) // 2):
        raise NotVerified(f"{what}: {name!r} is not lower-case hex of the right length")
    return bytes.fromhex(value)


def counter(members: dict[str, Any], name: str, what: str, least: int) -> int:
    value = members.get(name)
    if type(value) is not int or not least <= value < 1 << 63:  # type(): True is an int to isinstance
        raise NotVerified(f"{what}: {name!r} is not a number in range")
    return value


def utc(value: str, what: str) -> str:
    """The time as it was; this form sorts as text."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", value):
            datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%z")
            return value
    except ValueError:
        pass
    raise NotVerified(f"{what}: {value!a} is not a UTC time")


@dataclass(frozen=True)
class AuditKey:
    key: ec.EllipticCurvePublicKey
    der: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.der)

    def signed(self, signature: bytes, data: bytes) -> bool:
        try:
            self.key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def audit_key(encoded: bytes, what: str, *, pem: bool) -> AuditKey:
    try:
        key = load_pem_public_key(encoded) if pem else load_der_public_key(encoded)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NotVerified(f"{what} is not a public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise NotVerified(f"{what} is not a P-256 key")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # Another encoding of the same key would be another token id: one key introduced as two tokens.
    if not pem and der != encoded:
        raise NotVerified(f"{what} is not encoded as the spec says")
    return AuditKey(key, der)


def verify_kek(members: dict[str, Any], what: str) -> None:
    """A p256-hpke KEK has a public key, which an auditor compares with an attestation; an aes-kw KEK has none."""
    if members["profile"] not in PROFILES or members["attestation"] not in GRADES:
        raise NotVerified(f"{what} has an unknown profile or attestation")
    if members["profile"] == "p256-hpke":
        audit_key(octets(members, "kek", what), f"the KEK of {what}", pem=False)
    elif members["kek"]:
        raise NotVerified(f"{what} has a public key for a KEK that can have none")


@dataclass
class IntroducedToken:
    name: str
    key: AuditKey
    told: dict[str, str]
    introduced: int
    signed: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A signed note as read: not yet believed. What it signs is `body`, with its final newline."""

    file: str
    vault: bytes
    sequence: int
    hash: bytes
    trust: bytes
    time: str
    body: bytes
    key_id: bytes
    signature: bytes

    @classmethod
    def parse(cls, note: bytes, file: str) -> Checkpoint:
        what = f"checkpoint {file!a}"
        form = (
            r"(medcrypt/([0-9a-f]{32})\n([1-9][0-9]{0,18})\n([^\n]+)\n([^\n]+)\n([^\n]+)\n)"
            "\n\u2014 medcrypt/\\2 ([^\n]+)\n"
        )
        try:
            found = re.fullmatch(form, note.decode())
            if not found:
                raise ValueError("form")
            body, vault, sequence, *encoded, time, signed = found.groups()
            hash_, trust, line = (base64.b64decode(x, validate=True) for x in (*encoded, signed))
            again = [base64.b64encode(x).decode() for x in (hash_, trust, line)]
            if again != [*encoded, signed] or len(hash_) != 32 or len(trust) != 32 or len(line) < 5:
                raise ValueError("base64")
        except (ValueError, binascii.Error) as error:
            raise NotVerified(f"{what} is not a medcrypt checkpoint with one signature") from error
        return cls(file, bytes.fromhex(vault), int(sequence), hash_, trust, utc(time, what), body.encode(),
                   line[:4], line[4:])  # fmt: skip

    def fail(self, why: str) -> NoReturn:
        raise NotVerified(f"checkpoint {self.file!a}: {why}", self.sequence)


@dataclass
class Log:
    """What the walk over the entries has established so far; it grows with tokens, never with entries."""

    vault: bytes
    sequence: int = 0
    hash: bytes = b""
    trust: bytes = b""
    signer: bytes = b""
    time: str | None = None  # of the newest entry; None if that is sealed
    newest_clear_time: str = ""
    highest_log_key: int = 0
    tokens: dict[bytes, IntroducedToken] = field(default_factory=dict)
    restores: list[dict[str, Any]] = field(default_factory=list)
    restore_count: int = 0

    def __post_init__(self) -> None:
        self.hash = sha256(ctx("medcrypt/audit/genesis", self.vault))

    def append(self, row: tuple[Any, ...]) -> None:
        """Verify one row of `entries` as the next entry."""
        sequence, stored, hash_, trust, signer, signature = row
        if sequence != self.sequence + 1:
            raise NotVerified(f"entry {self.sequence + 1} is missing: the next in the file is {sequence!a}")
        # STRICT guards the columns' types only against writers that use SQLite: look again.
        sizes = ((hash_, 32), (trust, 32), (signer, 32), (signature, 64))
        if not all(isinstance(blob, bytes) and len(blob) == size for blob, size in sizes):
            raise NotVerified("hash, trust, signer or signature is not a blob of the right length")
        if not isinstance(stored, bytes) or not stored:
            raise NotVerified("the stored entry is empty or not a blob")
        if sha256(ctx("medcrypt/audit/entry", self.hash, u64(sequence), trust, signer, stored)) != hash_:
            raise NotVerified("its hash does not follow from the entry before and the stored bytes")

        self.time = entry = introduced = None
        if stored[0] == CLEAR:
            entry = self.clear(stored[1:])
            if entry["action"] == "token.introduce":
                introduced = self.introduction(entry["detail"], sequence)
        elif stored[0] == SEALED:
            self.sealed(stored)
        else:
            raise NotVerified(f"its first byte is {stored[0]:#04x}: neither clear nor sealed")
        if sequence == 1:
            if introduced is None or introduced.key.id != signer:
                raise NotVerified("the first entry does not introduce the token that signed it")
            self.tokens[signer] = introduced  # trusted for nothing yet: trust_begins() decides at the end
        token = self.tokens.get(signer)
        if token is None:
            raise NotVerified(f"signed by {signer.hex()}, which was not introduced before")
        rs = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        if not token.key.signed(rs, ctx("medcrypt/head", self.vault, u64(sequence), hash_, trust)):
            raise NotVerified(f"its head's signature is not that of token {token.name!a}")
        if entry and entry["token"] != token.name:
            raise NotVerified(f"it names token {entry['token']!a} but {token.name!a} signed it")
        # Only now, the head being verified: an entry counts for nothing before, so no key can introduce itself.
        if introduced and sequence > 1:
            self.tokens[introduced.key.id] = introduced
        if entry and entry["action"] == "vault.restore":
            self.restored(entry["detail"], sequence)
        token.signed += 1
        self.sequence, self.hash, self.trust, self.signer = sequence, hash_, trust, signer

    def sealed(self, stored: bytes) -> None:
        number = int.from_bytes(stored[1:5], "big")
        if len(stored) < SEALED_OVERHEAD or number < 1:
            raise NotVerified("a sealed entry that is too short or names log key 0")
        self.highest_log_key = max(self.highest_log_key, number)

    def clear(self, stored: bytes) -> dict[str, Any]:
        entry = canonical_object(stored, "the clear entry")
        if set(entry) != ENTRY_MEMBERS or not isinstance(entry["detail"], dict):
            raise NotVerified("the clear entry has other members than the spec's")
        for name in ENTRY_MEMBERS - {"detail"}:
            text(entry, name, "the clear entry")
        # Also what a later version may add, such as a retirement: not understood is not verified.
        if entry["action"] not in ("token.introduce", "vault.restore"):
            raise NotVerified(f"action {entry['action']!a} is not one that may be in the clear")
        if entry["outcome"] != "done":
            raise NotVerified(f"its outcome is {entry['outcome']!a}: only what was done is told in the clear")
        self.time = utc(entry["time"], "the clear entry")
        if self.time < self.newest_clear_time:
            raise NotVerified(f"its time {self.time} is before an earlier entry's, {self.newest_clear_time}")
        self.newest_clear_time = self.time
        return entry

    def introduction(self, detail: dict[str, Any], sequence: int) -> IntroducedToken:
        what = "the introduction"
        key = audit_key(octets(detail, "audit_key", what), "the introduced audit key", pem=False)
        if octets(detail, "id", what, 32) != key.id:
            raise NotVerified("the introduced token's id is not its audit key's fingerprint")
        told = {member: text(detail, member, what) for member in INTRODUCED}
        verify_kek(told, what)
        name = text(detail, "name", what)
        if any(key.id == other.key.id or name == other.name for other in self.tokens.values()):
            raise NotVerified(f"token {name!a} or its key was introduced before")
        return IntroducedToken(name, key, told, sequence)

    def restored(self, detail: dict[str, Any], sequence: int) -> None:
        abandoned = {
            "entry": sequence,
            "abandoned_sequence": counter(detail, "abandoned_sequence", "the restore", 0),
            "abandoned_hash": octets(detail, "abandoned_hash", "the restore", 32).hex(),
        }
        self.restore_count += 1
        if len(self.restores) < RESTORES_SHOWN:
            self.restores.append(abandoned)

    def trust_begins(self, given: Sequence[AuditKey]) -> None:
        """A log vouches for itself in any number of forgeries: one end of it must hang on a key that we were given.

        The first key signed what everything follows from; the newest head's key signed a hash over all of it.
        """
        for key in given:
            if key.id not in self.tokens:
                raise NotVerified(f"the given key {key.id.hex()} does not occur in the log")
        first = next(token.key.id for token in self.tokens.values())
        if not {first, self.signer} & {key.id for key in given}:
            raise NotVerified("neither the first token's key nor the newest head's is among the given keys")


def verify_schema(db: sqlite3.Connection) -> None:
    """Before any other query: a view or trigger of the file's own must never run."""
    for pragma, wanted in (("application_id", APPLICATION_ID), ("user_version", SCHEMA_VERSION), ("encoding", "UTF-8")):
        if db.execute(f"PRAGMA {pragma}").fetchone() != (wanted,):
            raise NotVerified(f"not a medcrypt vault of schema {SCHEMA_VERSION}: {pragma} is not {wanted!r}")
    left = dict(SCHEMA)
    for kind, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"):
        if sql is None or left.pop((kind, name, table), None) != sql:
            raise NotVerified(f"the schema's {kind!a} {name!a} is not as the spec says")
    if left:
        raise NotVerified(f"the schema lacks {', '.join(name for _, name, _ in left)}")
    # A hand-made file could answer an index or key lookup otherwise than a scan: what we verify must be what is read.
    if db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
        raise NotVerified("SQLite's own check finds the file damaged")


def read_vault_row(db: sqlite3.Connection) -> tuple[bytes, int]:
    """The vault id, which everything is bound to, and the newest log key's number; both unverified so far."""
    row = db.execute("SELECT value FROM trust WHERE kind = 'vault' AND name = ''").fetchone()
    if row is None:
        raise NotVerified("the trust state has no vault row")
    members, what = canonical_object(row[0], "trust row vault"), "trust row vault"
    if "unfinished" in members:
        raise NotVerified("the vault was never finished: `medcrypt vault create` was interrupted")
    return octets(members, "id", what, 16), counter(members, "log_key", what, 1)


def verify_form(kind: str, name: str, row: dict[str, Any], what: str) -> None:
    """A row has exactly the members of its kind, each of its type."""
    if set(row) != TRUST_ROWS[kind] or (kind in ("vault", "policy") and name):
        raise NotVerified(f"{what} has other members than the spec's, or may not exist")
    for member in row.keys() & NUMBERS:
        counter(row, member, what, 0)
    for member in row.keys() - NUMBERS:
        utc(text(row, member, what), what) if member in TIMES else text(row, member, what)
    if kind == "month" and not re.fullmatch("20[0-9]{2}-(0[1-9]|1[0-2])", name):
        raise NotVerified(f"{what}: that is not a month")


def verify_trust(db: sqlite3.Connection, log: Log) -> None:
    """The rows are what the newest head signed, and their tokens are exactly those that the log introduced."""
    digest = hashlib.sha256(lp(b"medcrypt/trust"))
    missing = {token.name: token for token in log.tokens.values()}
    before, kinds = (b"", b""), set()
    for kind, name, value in db.execute("SELECT kind, name, value FROM trust ORDER BY kind, name"):
        if not isinstance(kind, str) or not isinstance(name, str) or kind not in TRUST_ROWS:
            raise NotVerified(f"the trust state has a row of unknown kind {kind!a}")
        what = f"trust row {kind} {name!a}"
        here = (kind.encode(), name.encode())
        if here <= before:
            raise NotVerified(f"{what} is out of order")
        before = here
        kinds.add(kind)
        row = canonical_object(value, what)
        verify_form(kind, name, row, what)
        digest.update(lp(here[0]) + lp(here[1]) + lp(value))
        if kind == "token":
            if (token := missing.pop(name, None)) is None:
                raise NotVerified(f"{what}: the log introduced no such token")
            if differs := [member for member in INTRODUCED if row[member] != token.told[member]]:
                raise NotVerified(f"{what} has another {differs[0]} than the log introduced")
        if kind == "keyset":
            owner = log.tokens.get(octets(row, "token", what, 32))
            if owner is None or owner.name != name.partition(":")[2] or not octets(row, "wrapped", what):
                raise NotVerified(f"{what} is wrapped for no token of that name")
    if missing:
        raise NotVerified(f"token {min(missing)!a} was introduced but has no trust row")
    if not {"policy", "month"} <= kinds:
        raise NotVerified("the trust state lacks a policy or any month")
    if digest.digest() != log.trust:
        raise NotVerified("the trust state is not the one that the newest head signed", log.sequence)


def verify_checkpoint(note: Checkpoint, log: Log) -> None:
    """The log was compared with the note on the way; here: did it get that far, and who signed the note."""
    if note.sequence > log.sequence:
        note.fail(f"is ahead of the log, which ends at {log.sequence}: entries were cut off, or the file is older")
    signers = [token.key for token in log.tokens.values() if token.key.id[:4] == note.key_id]
    if not any(key.signed(note.signature, note.body) for key in signers):
        note.fail("its signature is not that of a token in this log")


def verify(db: sqlite3.Connection, given: Sequence[AuditKey], notes: Sequence[Checkpoint]) -> Log:
    """Everything, in the spec's order. Raises NotVerified."""
    verify_schema(db)
    vault, log_key = read_vault_row(db)
    log = Log(vault)
    for note in notes:
        if note.vault != vault:
            note.fail(f"is of another vault, {note.vault.hex()}")
    for row in db.execute("SELECT sequence, stored, hash, trust, signer, signature FROM entries ORDER BY sequence"):
        try:
            log.append(row)
        except NotVerified as error:
            raise NotVerified(str(error), log.sequence + 1) from error
        for note in notes:
            if note.sequence == log.sequence and (note.hash, note.trust) != (log.hash, log.trust):
                note.fail("has another hash or trust digest than the log: one of the two was rewritten")
            if note.sequence == log.sequence and log.time not in (None, note.time):
                note.fail("has another time than the log")
    if not log.sequence:
        raise NotVerified("the log is empty")
    verify_trust(db, log)
    if log.highest_log_key > log_key:
        raise NotVerified(f"an entry is sealed under log key {log.highest_log_key}; the newest is {log_key}")
    # All that can be said of these rows without the token; yet a carelessly cut tail shows here.
    written = "SELECT sequence FROM records UNION ALL SELECT sequence FROM sealed"
    if any(type(n) is not int or not 1 <= n <= log.sequence for (n,) in db.execute(written)):
        raise NotVerified("a row of records or sealed was written by an entry that the log does not have")
    log.trust_begins(given)
    for note in notes:
        verify_checkpoint(note, log)
    return log


@contextmanager
def opened(vault: Path) -> Iterator[sqlite3.Connection]:
    """The file, read only, as of one moment."""
    path = vault.resolve(strict=True)
    # Without a WAL the file is complete by itself, and immutable=1 lets SQLite read it where it may create nothing.
    # With one it would be wrong: the newest entries are in the WAL, and immutable ignores it.
    beside = any(path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal"))
    uri = path.as_uri() + ("?mode=ro" if beside else "?mode=ro&immutable=1")
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")  # one snapshot, though the vault be in use
        yield db


def read_argument(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST_ARGUMENT + 1)
    if len(content) > LARGEST_ARGUMENT:
        raise NotVerified(f"{str(path)!a} is too large to be a key or checkpoint")
    return content


def read_keys(path: Path) -> list[AuditKey]:
    first, *more = read_argument(path).split(b"-----BEGIN ")
    return [audit_key(b"-----BEGIN " + pem, ascii(str(path)), pem=True) for pem in more or [first]]


def report(log: Log, notes: Sequence[Checkpoint]) -> dict[str, Any]:
    return {
        "verified": True,
        "vault": log.vault.hex(),
        "entries": log.sequence,
        "newest": {"sequence": log.sequence, "hash": log.hash.hex(), "time": log.time, "signer": log.signer.hex()},
        "tokens": [
            {"name": t.name, "id": t.key.id.hex(), "introduced": t.introduced, "signed": t.signed}
            for t in log.tokens.values()
        ],
        "restores": log.restore_count,
        "restores_shown": log.restores,
        "checkpoints": [note.sequence for note in notes],
    }


def in_words(found: dict[str, Any]) -> str:
    """For a terminal: names come from the file, so ascii() keeps escape sequences in them from acting."""
    newest = found["newest"]
    lines = [
        f"verified: vault {found['vault']}, {found['entries']} entries, {len(found['tokens'])} tokens introduced",
        f"newest head: entry {newest['sequence']}, time {newest['time'] or 'unknown (sealed)'}, hash {newest['hash']}",
    ]
    for token in found["tokens"]:
        signed = f"introduced by entry {token['introduced']}, signed {token['signed']} entries"
        lines.append(f"token {token['name']!a} {token['id']}: {signed}")
    lines.append(f"restores: {found['restores']}")
    for restore in found["restores_shown"]:
        lines.append(f"  entry {restore['entry']} abandoned what followed up to entry {restore['abandoned_sequence']}")
    if found["checkpoints"]:
        lines.append(f"checkpoints that the log continues: {', '.join(str(n) for n in found['checkpoints'])}")
    else:
        lines.append("no checkpoint given: that nothing is missing at the end is not shown")
    lines.append("not verified without the token: what sealed entries say, tables records, sealed and seen")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify a medcrypt vault's audit log with public keys alone.")
    parser.add_argument("vault", type=Path, metavar="VAULT", help="vault file or backup; it is only read")
    parser.add_argument("--public-key", type=Path, action="append", required=True, metavar="PEM",
                        help="audit keys that you trust (repeatable); each must occur in the log")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], metavar="FILE",
                        help="a checkpoint kept elsewhere (repeatable); the log must continue it")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(argv)
    entry: int | None = None
    try:
        given = [key for path in options.public_key for key in read_keys(path)]
        notes = [Checkpoint.parse(read_argument(path), str(path)) for path in options.checkpoint]
        with opened(options.vault) as db:
            found = report(verify(db, given, notes), notes)
        print(json.dumps(found, indent=2) if options.json else in_words(found))
        return VERIFIED
    except NotVerified as error:
        what, entry = str(error), error.entry
    except OSError as error:
        what = f"cannot read {str(error.filename)!a}: {error.strerror}"
    except (sqlite3.Error, UnicodeError, ValueError, OverflowError, MemoryError, RuntimeError) as error:
        # A path or a file that no vault has: SQLite, or Python underneath, gave up on it.
        what = f"not readable as a vault: {str(error)!a}"
    if options.json:
        print(json.dumps({"verified": False, "entry": entry, "error": what}, indent=2))
    else:
        print(f"NOT VERIFIED: {f'entry {entry}: ' if entry is not None else ''}{what}", file=sys.stderr)
    return NOT_VERIFIED


if __name__ == "__main__":
    sys.exit(main())
