#!/usr/bin/env python3
"""Verify a medcrypt vault's audit log with public keys alone. Needs Python 3.11, `cryptography` and nothing else.

In: a vault file or backup, the audit keys one trusts (PEM), and checkpoints and certificates of re-keys kept elsewhere.
Out: what was verified and exit code 0, or what is wrong, with the entry's number, and exit code 5; wrong usage is 2. It
follows docs/spec (notation, vault, audit, rekey, breakglass) and shares no line with the program that writes vaults:
two readers of one spec must agree.

What exit code 0 does not say:
- that the log is complete at its end. Somebody with an older copy of the file, or who cuts entries back to one with
  the same trust state, has a file that verifies. Only a checkpoint kept elsewhere, or a token's anchor, shows it.
- what sealed entries say, or what `records`, `sealed` and `seen` hold: that needs the token
  (`medcrypt audit verify`).
- that an old root key or a custodian's old share is destroyed: a token says so. Those that not even a token says it of
  are shown.
- that the custodians' shares open anything; nor for which patient, and why, break-glass was used.
- what a certificate says in words below its head; with its JSON beside it, what that says beyond what the log tells.
- anything against someone who holds a token and its PIN: they can sign. A token that was retired can still sign a
  certificate of a time before.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
APPLICATION_ID, SCHEMA_UNBOUND, SCHEMA_VERSION = 0x4D454443, 1, 2
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
SCHEMA_2 = SCHEMA | {
    ("table", "tree", "tree"): "CREATE TABLE tree (name TEXT NOT NULL, prefix TEXT NOT NULL, digests BLOB NOT NULL, "
    "PRIMARY KEY (name, prefix)) STRICT, WITHOUT ROWID",
    ("index", "records_month", "records"): "CREATE INDEX records_month ON records (purpose, month, pairing)",
}
PROFILES, GRADES = ("aes-kw", "p256-hpke"), ("not-attested", "token-claimed", "device-attested")
MONTH = "20[0-9]{2}-(?:0[1-9]|1[0-2])"
CEREMONIES = ("ceremony", "rotate", "replace")  # the reasons of a re-key that makes a custody
REASONS = {"vault.rekey": ("shred", "erase", "remove-token", *CEREMONIES, "recover"), "vault.sync": ("sync",)}
TEXT, NUMBER, TIME, TIME_OR_NEVER = "text", "number", "time", "time or never"
TRUST_ROWS: dict[str, dict[str, str | tuple[str, ...]]] = {  # member: what it is, or the values that it may have
    "vault": {"created": TIME, "generation": NUMBER, "id": TEXT, "log_key": NUMBER},
    "policy": {"grace_days": NUMBER, "require_attestation": TEXT, "retain_months": NUMBER},
    "token": {"attestation": TEXT, "audit_key": TEXT, "id": TEXT, "kek": TEXT, "label": TEXT, "model": TEXT,
              "profile": TEXT, "serial": TEXT, "touch": TEXT, "uri": TEXT},
    "keyset": {"check": TEXT, "kek": NUMBER, "token": TEXT, "wrapped": TEXT},
    "rows": {"root": TEXT},
    "month": {"opened": TIME, "shredded": TIME_OR_NEVER},
    "adding": {"begun": TIME, "serial": TEXT, "uri": TEXT},
    "rekey": {"begun": TIME, "entry": NUMBER, "generation": NUMBER, "phase": ("intended", "committed"),
              "reason": (*REASONS["vault.rekey"], *REASONS["vault.sync"])},
    "doomed": {"entry": NUMBER, "since": TIME, "token": TEXT},
    "retired": {"audit_key": TEXT, "entry": NUMBER, "id": TEXT, "label": TEXT, "model": TEXT, "profile": TEXT,
                "serial": TEXT, "since": TIME, "uri": TEXT, "was": ("present", "absent")},
    "hold": {"nonce": TEXT, "sealed": TEXT, "sequence": NUMBER},
    "breakglass": {"audit_key": TEXT, "ceremony": TEXT, "entry": NUMBER, "key": TEXT, "since": TIME,
                   "threshold": NUMBER},
    "custodian": {"approval_key": TEXT, "attestation": TEXT, "commitment": TEXT, "drilled": TIME_OR_NEVER, "kek": TEXT,
                  "label": TEXT, "model": TEXT, "profile": TEXT, "serial": TEXT, "uri": TEXT, "x": NUMBER},
    "escrow": {"ceremony": TEXT, "generation": NUMBER, "sealed": TEXT},
    "oldshare": {"approval_key": TEXT, "entry": NUMBER, "label": TEXT, "model": TEXT, "serial": TEXT, "since": TIME,
                 "uri": TEXT},
    "use": {"answered": TIME_OR_NEVER, "entry": NUMBER, "phase": ("open", "done"), "scope": ("patient", "practice"),
            "since": TIME},
}  # fmt: skip
LEFT_OUT = {"policy": {"grace_days", "require_attestation", "retain_months"}, "keyset": {"check"}}  # or not
LEAF, NOTHING = 12, bytes(32)  # rows; in the place of the digest of none
UNNAMED = ("vault", "policy", "rekey", "breakglass", "escrow")  # one row at most
INTRODUCED = ("attestation", "audit_key", "id", "kek", "model", "profile", "serial")  # as in the token's row
RENEWED = ("attestation", "kek")  # of these, what a re-key or sync tells anew
STATEMENT = {"ceremony", "enclosed", "type", "vault", "version"}
STATEMENTS = {  # members beside these
    "request": {"created", "expires", "hash", "key", "scope", "sequence", "signer"},
    "approval": {"audit_key", "commitment", "custodian", "request", "time", "x"},
}
CUSTODIAN = {"approval_key", "attestation", "commitment", "kek", "model", "name", "profile", "serial", "x"}
MOST_CUSTODIANS, ESCROW_SIZE, XWING_PUBLIC_SIZE = 16, 1232, 1216
LONGEST_REQUEST, CLOCKS_APART = timedelta(hours=72), timedelta(days=1)
GUEST = "bg-"  # begins the name of whoever signs a use, and no token's
CERTIFICATE_MEMBERS = {
    "action", "actor", "backups", "custody", "entry", "escrow", "generation", "hash", "intended", "old_shares",
    "outside", "signer", "subject", "time", "tokens", "v1_secrets", "vault", "version",
}  # fmt: skip
ENTRY_MEMBERS = {"action", "actor", "detail", "outcome", "subject", "time", "token"}
CLEAR_ACTIONS = {
    "token.introduce": ("done",),
    "vault.restore": ("done",),
    "vault.rekey": ("intended", "done", "undone"),
    "vault.sync": ("intended", "done", "undone"),
    "breakglass.open": ("done",),
    "breakglass.close": ("done",),
}
CLEAR, SEALED = 0x00, 0x01
SEALED_OVERHEAD = 1 + 4 + 12 + 16  # leading byte, log key number, nonce, tag
LARGEST_VALUE = 64 << 20  # of one stored value: a hostile file must not decide how much memory we take
LARGEST_ARGUMENT = 1 << 16  # of a PEM or checkpoint file
LARGEST_CERTIFICATE = 16 << 20  # it names every backup
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


def listed(members: dict[str, Any], name: str, what: str, form: str) -> list[str]:
    """Texts of one form, sorted, each once."""
    value = members.get(name)
    if not isinstance(value, list) or not all(isinstance(x, str) and re.fullmatch(form, x) for x in value):
        raise NotVerified(f"{what}: {name!r} is not a list of what the spec says")
    if value != sorted(set(value)):
        raise NotVerified(f"{what}: {name!r} is not sorted, or has something twice")
    return value


def has_just(members: object, names: set[str], what: str) -> dict[str, Any]:
    if not isinstance(members, dict) or set(members) != names:
        raise NotVerified(f"{what} has other members than the spec's")
    return members


def utc(value: str, what: str) -> str:
    """The time as it was; this form sorts as text."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", value):
            moment(value)
            return value
    except ValueError:
        pass
    raise NotVerified(f"{what}: {value!a} is not a UTC time")


def moment(value: str) -> datetime:
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%z")


def agree(row: dict[str, Any], told: dict[str, Any], what: str) -> None:
    if differs := sorted(member for member in told if row[member] != told[member]):
        raise NotVerified(f"{what} has another {differs[0]} than the log tells")


def der_signature(signature: bytes) -> bytes:
    """Of r || s, 64 bytes."""
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


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


def verify_kek(profile: str, attestation: object, kek: str, what: str) -> None:
    """A p256-hpke KEK has a public key, which an auditor compares with an attestation; an aes-kw KEK has none."""
    if profile not in PROFILES or attestation not in GRADES:
        raise NotVerified(f"{what} has an unknown profile or attestation")
    if profile == "p256-hpke":
        audit_key(octets({"kek": kek}, "kek", what), f"the KEK of {what}", pem=False)
    elif kek:
        raise NotVerified(f"{what} has a public key for a KEK that can have none")


@dataclass(frozen=True)
class Custody:
    """What the entry of a ceremony, rotation or replacement tells of the custodians."""

    ceremony: str
    key: str  # fingerprint of the break-glass key
    threshold: int
    custodians: dict[str, dict[str, Any]]  # by name, in the order of x, each as the entry has it
    approval_keys: dict[str, AuditKey]
    told: dict[str, Any]
    entry: int
    time: str
    signer: bytes

    @classmethod
    def parse(cls, value: object, entry: int, time: str, signer: bytes) -> Custody:
        what = "the custody"
        told = has_just(value, {"ceremony", "custodians", "key", "threshold"}, what)
        listed_, threshold = told["custodians"], counter(told, "threshold", what, 2)
        if not isinstance(listed_, list) or not threshold <= len(listed_) <= MOST_CUSTODIANS:
            raise NotVerified(f"{what} has not as many custodians as the spec allows")
        custodians: dict[str, dict[str, Any]] = {}
        keys: dict[str, AuditKey] = {}
        for x, member in enumerate(listed_, 1):
            of = f"custodian {x} of {what}"
            custodian = has_just(member, CUSTODIAN, of)
            for name in CUSTODIAN - {"x"}:
                text(custodian, name, of)
            if counter(custodian, "x", of, 1) != x:
                raise NotVerified(f"{of} has share {custodian['x']}: they are in the order of their shares, from 1 on")
            if not re.fullmatch("[A-Za-z0-9_-]{1,32}", custodian["name"]):
                raise NotVerified(f"{of} has a name that the spec does not have")
            octets(custodian, "commitment", of, 32)
            verify_kek(custodian["profile"], custodian["attestation"], custodian["kek"], of)
            key = audit_key(octets(custodian, "approval_key", of), f"the approval key of {of}", pem=False)
            if custodian["name"] in custodians or key.id in {other.id for other in keys.values()}:
                raise NotVerified(f"{of} has the name or approval key of another")
            custodians[custodian["name"]], keys[custodian["name"]] = custodian, key
        return cls(octets(told, "ceremony", what, 6).hex(), octets(told, "key", what, 32).hex(), threshold, custodians,
                   keys, told, entry, time, signer)  # fmt: skip


@dataclass(frozen=True)
class Statement:
    """A request or an approval as an entry has it: of the right form, its signature not yet believed."""

    members: dict[str, Any]
    what: str
    id: str
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, value: object, kind: str, what: str) -> Statement:
        pair, type_ = has_just(value, {"signature", "statement"}, what), f"medcrypt/breakglass/{kind}"
        stored = text(pair, "statement", what).encode()
        members = has_just(canonical_object(stored, what), STATEMENT | STATEMENTS[kind], what)
        if members["type"] != type_ or counter(members, "version", what, 1) != 1:
            raise NotVerified(f"{what} is of another type or version")
        octets(members, "enclosed", what, 32)
        signed = ctx(type_, stored)
        return cls(members, what, sha256(signed).hex(), signed, octets(pair, "signature", what, 64))

    def verify(self, key: AuditKey, **told: object) -> None:
        """It is by this key, and has these members."""
        if differs := sorted(name for name in told if text(self.members, name, self.what) != told[name]):
            raise NotVerified(f"{self.what} is of another {differs[0]}")
        if not key.signed(der_signature(self.signature), self.signed):
            raise NotVerified(f"{self.what} is not signed by the key that it should be")


@dataclass
class Use:
    """A use of break-glass, by the entry that opened. The request's key signed it, and the entries of a guest's run."""

    request: str
    entry: int
    time: str
    expires: str
    scope: str
    key: AuditKey
    approved_by: list[str]
    introduced: IntroducedToken | None  # exactly where the practice was opened
    phase: str = "done"  # as its row must have it; a later entry may change it
    answered: str = ""
    noted: bool = False
    signed: int = 0

    @property
    def name(self) -> str:
        return GUEST + self.request[:8]

    def row(self) -> dict[str, Any]:
        return {"answered": self.answered, "entry": self.entry, "phase": self.phase, "scope": self.scope,
                "since": self.time}  # fmt: skip


@dataclass(frozen=True)
class OldShare:
    custodian: dict[str, Any]  # as its ceremony told
    entry: int  # of the re-key that made it an old one
    time: str


@dataclass(frozen=True)
class Rekeyed:
    """A re-key that was done, by the entry that committed it."""

    entry: int
    hash: bytes
    time: str
    generation: int
    reason: str
    shredded: list[str]
    erased: list[str]
    retired: list[str]  # names
    by: str  # name of the token that signed it
    custody: Custody | None


@dataclass
class IntroducedToken:
    name: str
    key: AuditKey
    told: dict[str, str]  # the members RENEWED as last told
    introduced: int
    time: str  # of the introduction
    kek: int  # generation of its KEK
    signed: int = 0
    retired: Rekeyed | None = None


@dataclass(frozen=True)
class SignedNote:
    """A C2SP note with one signature, as read: not yet believed. What it signs is `body`, with its final newline."""

    what: str
    vault: bytes  # by its name
    body: str
    key_id: bytes
    signature: bytes

    @classmethod
    def parse(cls, note: bytes, what: str) -> SignedNote:
        try:
            found = re.fullmatch("((?s:.+)\n)\n\u2014 medcrypt/([0-9a-f]{32}) ([^\n]+)\n", note.decode())
            if not found:
                raise ValueError("form")
            line = strict_base64(found[3])
            if len(line) < 5:
                raise ValueError("no signature")
        except ValueError as error:
            raise NotVerified(f"{what} is not a medcrypt note with one signature") from error
        return cls(what, bytes.fromhex(found[2]), found[1], line[:4], line[4:])

    def signer(self, log: Log) -> IntroducedToken | None:
        for token in log.tokens.values():
            if token.key.id[:4] == self.key_id and token.key.signed(self.signature, self.body.encode()):
                return token
        return None


def strict_base64(encoded: str) -> bytes:
    decoded = base64.b64decode(encoded, validate=True)
    if base64.b64encode(decoded).decode() != encoded:
        raise ValueError("more than one text for the same bytes")
    return decoded


@dataclass(frozen=True)
class Checkpoint:
    """Not yet believed."""

    note: SignedNote
    sequence: int
    hash: bytes
    trust: bytes
    time: str

    @classmethod
    def parse(cls, content: bytes, file: str) -> Checkpoint:
        what = f"checkpoint {file!a}"
        note = SignedNote.parse(content, what)
        form = "medcrypt/([0-9a-f]{32})\n([1-9][0-9]{0,18})\n([^\n]+)\n([^\n]+)\n([^\n]+)\n"
        try:
            found = re.fullmatch(form, note.body)
            if not found or found[1] != note.vault.hex():
                raise ValueError("form")
            hash_, trust = strict_base64(found[3]), strict_base64(found[4])
            if len(hash_) != 32 or len(trust) != 32:
                raise ValueError("length")
        except ValueError as error:
            raise NotVerified(f"{what} is not a medcrypt checkpoint") from error
        return cls(note, int(found[2]), hash_, trust, utc(found[5], what))

    def fail(self, why: str) -> NoReturn:
        raise NotVerified(f"{self.note.what}: {why}", self.sequence)

    def compare(self, log: Log) -> None:
        """With the log as it is at this entry."""
        if (self.hash, self.trust) != (log.hash, log.trust):
            self.fail("has another hash or trust digest than the log: one of the two was rewritten")
        if log.time not in (None, self.time):
            self.fail("has another time than the log")

    def verify(self, log: Log) -> None:
        """`compare` was done on the way; here: did the log get that far, and who signed the note."""
        if self.sequence > log.sequence:
            self.fail(f"is ahead of the log, which ends at {log.sequence}: entries were cut off, or the file is older")
        signer = self.note.signer(log)
        if signer is None:
            self.fail("its signature is not that of a token in this log")
        if signer.introduced > self.sequence or (signer.retired and signer.retired.entry <= self.sequence):
            self.fail(f"token {signer.name!a}, which signed it, was not valid at that entry")


@dataclass(frozen=True)
class Certificate:
    """Of a re-key. Not yet believed. `document`: the JSON beside it, if it is there."""

    note: SignedNote
    title: str
    generation: int
    entry: int
    hash: str
    intended: str
    time: str
    digest: str
    document: bytes | None

    @classmethod
    def parse(cls, content: bytes, file: str, document: bytes | None) -> Certificate:
        what = f"certificate {file!a}"
        note = SignedNote.parse(content, what)
        found = re.fullmatch(
            "# ([^\n]+)\n\n"
            "Vault ([0-9a-f]{32}), new keyset ([1-9][0-9]{0,18}), committed by audit entry ([1-9][0-9]{0,18})\\.\n"
            "Entry hash: ([0-9a-f]{64})\n"
            "Ordered by [^\n]+ at ([^ \n]+); certified at ([^ \n]+)\\.\n"
            "JSON with the same content, SHA-256: ([0-9a-f]{64})\n\n"
            "## Old root keys\n(?s:.+)",
            note.body,
        )
        if not found or found[2] != note.vault.hex():
            raise NotVerified(f"{what} does not begin as the spec says")
        title, _, generation, entry, hash_, intended, time, digest = found.groups()
        return cls(note, title, int(generation), int(entry), hash_, utc(intended, what), utc(time, what), digest,
                   document)  # fmt: skip

    def fail(self, why: str) -> NoReturn:
        raise NotVerified(f"{self.note.what}: {why}", self.entry)

    def verify(self, log: Log) -> None:
        rekeyed = log.rekeys.get(self.entry)
        if rekeyed is None or (rekeyed.hash.hex(), rekeyed.generation) != (self.hash, self.generation):
            self.fail("the log has no such entry that commits a re-key")
        custodians = ", ".join(rekeyed.custody.custodians) if rekeyed.custody else None
        action, title, subject = {
            "shred": ("month.shred", "Months shredded", ", ".join(rekeyed.shredded)),
            "erase": ("patient.erase", "Patient erased", None),  # the log tells who it is in sealed entries only
            "remove-token": ("token.remove", "Token removed", ", ".join(rekeyed.retired)),
            "ceremony": ("breakglass.ceremony", "Break-glass ceremony", custodians),
            "rotate": ("breakglass.rotate", "Break-glass rotated", custodians),
            "replace": ("breakglass.replace", "Custodian replaced", None),  # who went and who came
            "recover": ("breakglass.recover", "Practice recovered", rekeyed.by),
        }[rekeyed.reason]
        heading, _, named = self.title.partition(": ")
        if heading != title or (subject is not None and named != plain(subject)):
            self.fail(f"is headed {self.title!a}, which is not what the log tells of that entry")
        signer = self.note.signer(log)
        if signer is None:
            self.fail("its signature is not that of a token in this log")
        retired = signer.retired
        if self.time < max(rekeyed.time, signer.time) or (
            retired is not None and (retired.entry <= self.entry or self.time > retired.time)
        ):
            self.fail(f"token {signer.name!a}, which signed it, was not valid at that time")
        if self.document is None:
            return
        if sha256(self.document).hex() != self.digest:
            self.fail("the JSON beside it is not the one that it names")
        what = f"the JSON beside {self.note.what}"
        line = self.document[:-1] if self.document.endswith(b"\n") else b""
        value = has_just(canonical_object(line, what), CERTIFICATE_MEMBERS, what)
        told = {
            "version": 1, "vault": log.vault.hex(), "generation": self.generation, "entry": self.entry,
            "hash": self.hash, "intended": self.intended, "time": self.time, "signer": signer.key.id.hex(),
            "action": action,
        }  # fmt: skip
        if differs := sorted(name for name in told if type(value[name]) is bool or value[name] != told[name]):
            self.fail(f"the JSON beside it has another {differs[0]}")
        if plain(text(value, "subject", what)) != named:
            self.fail("the JSON beside it has another subject")
        custody = rekeyed.custody.told if rekeyed.custody else None
        if json.dumps(value["custody"], sort_keys=True) != json.dumps(custody, sort_keys=True):  # == takes true for 1
            self.fail("the JSON beside it has another custody than the log")
        self.verify_old_shares(value["old_shares"], log, what)

    def verify_old_shares(self, value: object, log: Log, what: str) -> None:
        """Each became old by then. Whether it is destroyed is what the certificate says, and nobody else."""
        named = set()
        for share in value if isinstance(value, list) else [None]:
            share = has_just(share, {"ceremony", "destroyed", "name", "serial"}, f"an old share in {what}")
            name = f"{text(share, 'ceremony', what)}:{text(share, 'name', what)}"
            known = log.old_shares.get(name)
            if known is None or known.entry > self.entry or share["serial"] != known.custodian["serial"]:
                self.fail(f"the JSON beside it has the old share {name!a}, which the log has not, or not so")
            if type(share["destroyed"]) is not bool or name in named:
                self.fail(f"the JSON beside it has the old share {name!a} twice, or not whether it is destroyed")
            named.add(name)


def plain(value: str) -> str:
    """As the words of a certificate have a text from elsewhere."""
    return "".join(c if c.isprintable() and c not in "`*_<>[]|\\#" else f"\\u{ord(c):04x}" for c in value)


@dataclass
class Log:
    """What the walk over the entries has established so far; what is sealed makes it no larger."""

    vault: bytes
    db: sqlite3.Connection
    sequence: int = 0
    hash: bytes = b""
    trust: bytes = b""
    signer: bytes = b""  # of the newest entry of a token
    time: str | None = None  # of the newest entry; None if that is sealed
    bound: bool = False  # does the newest head bind the rows?
    newest_clear_time: str = ""
    highest_log_key: int = 0
    tokens: dict[bytes, IntroducedToken] = field(default_factory=dict)
    restores: list[dict[str, Any]] = field(default_factory=list)
    restore_count: int = 0
    begun: tuple[str, int, str] | None = None  # action, generation and reason of what was intended and has not ended
    rekeys: dict[int, Rekeyed] = field(default_factory=dict)  # by their entries
    shredded: dict[str, Rekeyed] = field(default_factory=dict)  # by month
    erased: dict[str, Rekeyed] = field(default_factory=dict)  # by pairing
    doomed: list[str] = field(default_factory=list)  # old KEKs not proven destroyed, from the trust state
    custody: Custody | None = None
    ceremonies: set[str] = field(default_factory=set)
    old_shares: dict[str, OldShare] = field(default_factory=dict)  # by ceremony:name
    left_shares: list[str] = field(default_factory=list)  # of these, not proven destroyed, from the trust state
    drilled: dict[str, str] = field(default_factory=dict)  # custodian's name → when, likewise
    uses: dict[str, Use] = field(default_factory=dict)  # by request
    unnoted: list[Use] = field(default_factory=list)
    guest: Use | None = None  # whose run has not ended

    @property
    def generation(self) -> int:
        """Of the newest keyset; the newest log key has the same number: each re-key makes one of both."""
        return 1 + len(self.rekeys)

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

        self.time = entry = introduced = used = None
        guest = self.guest if self.guest and self.guest.key.id == signer else None
        if stored[0] == CLEAR:
            entry = self.clear(stored[1:])
            if entry["action"] == "token.introduce":
                introduced = self.introduction(entry["detail"], sequence)
            elif entry["action"] == "breakglass.open":
                used = self.opening(entry["detail"], sequence, signer)
                introduced = used.introduced
            closes = entry["action"] == "breakglass.close"
            if (guest or closes) and not (guest and closes and entry["detail"] == {"request": guest.request}):
                raise NotVerified("in the clear a guest closes what it opened, nothing else, and nobody else does")
            if guest and entry["time"] > guest.expires:
                raise NotVerified("it is of later than the request's end")
        elif stored[0] == SEALED:
            self.sealed(stored)
        else:
            raise NotVerified(f"its first byte is {stored[0]:#04x}: neither clear nor sealed")
        if sequence == 1:
            if introduced is None or introduced.key.id != signer:
                raise NotVerified("the first entry does not introduce the token that signed it")
            self.tokens[signer] = introduced  # trusted for nothing yet: trust_begins() decides at the end
        token = used or guest or self.tokens.get(signer)
        if token is None:
            raise NotVerified(f"signed by {signer.hex()}, which was not introduced before, nor is a guest now")
        if isinstance(token, IntroducedToken) and token.retired:
            raise NotVerified(f"signed by token {token.name!a}, which entry {token.retired.entry} retired")
        if isinstance(token, Use) and not introduced and trust != self.trust:
            raise NotVerified("a guest changed the trust state")
        head = ctx("medcrypt/head", self.vault, u64(sequence), hash_, trust)
        if not token.key.signed(der_signature(signature), head):
            raise NotVerified(f"its head's signature is not that of token {token.name!a}")
        if entry and entry["token"] != token.name:
            raise NotVerified(f"it names token {entry['token']!a} but {token.name!a} signed it")
        # Only now, the head being verified: an entry counts for nothing before, so no key can introduce itself.
        if introduced and sequence > 1:
            self.tokens[introduced.key.id] = introduced
        if used:
            self.uses[used.request] = used
            self.unnoted.append(used)
        if isinstance(token, Use) and not introduced:
            self.guest = None if guest and entry else token
        else:
            self.guest = None
            for use in self.unnoted:
                use.noted = True
            self.unnoted.clear()
        if entry and entry["action"] == "vault.restore":
            self.restored(entry["detail"], sequence)
        if entry and entry["action"] in REASONS and isinstance(token, IntroducedToken):
            self.rekeying(entry, sequence, hash_, token)
        token.signed += 1
        self.sequence, self.hash, self.trust = sequence, hash_, trust
        if isinstance(token, IntroducedToken):
            self.signer = signer

    def sealed(self, stored: bytes) -> None:
        number = int.from_bytes(stored[1:5], "big")
        if len(stored) < SEALED_OVERHEAD or number < 1:
            raise NotVerified("a sealed entry that is too short or names log key 0")
        self.highest_log_key = max(self.highest_log_key, number)

    def clear(self, stored: bytes) -> dict[str, Any]:
        entry = has_just(canonical_object(stored, "the clear entry"), ENTRY_MEMBERS, "the clear entry")
        if not isinstance(entry["detail"], dict):
            raise NotVerified("the clear entry has other members than the spec's")
        for name in ENTRY_MEMBERS - {"detail"}:
            text(entry, name, "the clear entry")
        # Also what a later version may add: not understood is not verified.
        if entry["action"] not in CLEAR_ACTIONS:
            raise NotVerified(f"action {entry['action']!a} is not one that may be in the clear")
        if entry["outcome"] not in CLEAR_ACTIONS[entry["action"]]:
            raise NotVerified(f"its outcome is {entry['outcome']!a}, which {entry['action']} has not in the clear")
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
        verify_kek(told["profile"], told["attestation"], told["kek"], what)
        name = text(detail, "name", what)
        self.verify_new(key, name)
        if name.startswith(GUEST):
            raise NotVerified(f"token {name!a} has a name that no token may have")
        for custodian in self.custody.custodians.values() if self.custody else ():
            if (told["serial"], told["model"]) == (custodian["serial"], custodian["model"]):
                raise NotVerified(f"token {name!a} has the serial and model of custodian {custodian['name']!a}")
        return IntroducedToken(name, key, told, sequence, self.newest_clear_time, self.generation)

    def verify_new(self, key: AuditKey, name: str) -> None:
        """Neither was in the log before."""
        before: list[IntroducedToken | Use] = [*self.tokens.values(), *self.uses.values()]
        if any(key.id == other.key.id or name == other.name for other in before):
            raise NotVerified(f"token {name!a} or its key was introduced before")

    def rekeying(self, entry: dict[str, Any], sequence: int, hash_: bytes, signer: IntroducedToken) -> None:
        """An entry of `vault.rekey` or `vault.sync`, its head verified."""
        action, outcome, detail = entry["action"], entry["outcome"], dict(entry["detail"])
        what, rekey = f"the detail of {action}, {outcome},", action == "vault.rekey"
        generation = counter(detail, "generation", what, 1)
        if generation != self.generation + rekey:
            raise NotVerified(f"{what} names generation {generation}: the present one is {self.generation}")
        if outcome == "intended":
            has_just(detail, {"generation", "reason"}, what)
            if text(detail, "reason", what) not in REASONS[action]:
                raise NotVerified(f"{what} has reason {detail['reason']!a}, which is none of its")
            if self.begun:
                raise NotVerified(f"{action} begins, and {self.begun[0]} has not ended")
            if (detail["reason"] == "ceremony" and self.custody) or (
                detail["reason"] in ("rotate", "replace") and not self.custody
            ):
                raise NotVerified(f"{what} has reason {detail['reason']!a}: there are custodians, or there are none")
            if detail["reason"] == "recover" and "open" not in {use.phase for use in self.uses.values()}:
                raise NotVerified(f"{what} has reason 'recover', and the practice was not opened by break-glass")
            self.begun = (action, generation, detail["reason"])
            return
        if self.begun is None or self.begun[:2] != (action, generation):
            raise NotVerified(f"{action} ends that was not intended, or not so")
        reason, self.begun = self.begun[2], None
        if outcome == "undone":
            has_just(detail, {"generation"}, what)
            return
        if rekey:
            for name in {"writes", "deletes"} & set(detail):  # who has the token compares with the rows what they list
                refs = detail.pop(name)
                if not (isinstance(refs, list) and refs and all(isinstance(ref, str) for ref in refs)):
                    raise NotVerified(f"{what}: {name!r} is not a list of texts")
        rekey_members = {"erased", "generation", "keks", "log_key", "retired", "shredded"}
        if reason in CEREMONIES:
            rekey_members.add("custody")
        has_just(detail, rekey_members if rekey else {"generation", "keks"}, what)
        self.new_keks(detail["keks"], generation, what)
        if rekey:
            self.rekeyed(detail, reason, sequence, hash_, signer, what)

    def new_keks(self, keks: object, generation: int, what: str) -> None:
        valid = {token.name: token for token in self.tokens.values() if not token.retired}
        if not isinstance(keks, dict):
            raise NotVerified(f"{what}: 'keks' is not an object")
        for name, kek in keks.items():
            of = f"{what} the new KEK of {name!a}"
            if (token := valid.get(name)) is None:
                raise NotVerified(f"{of} is of no token that is registered")
            has_just(kek, {"attestation", "generation", "kek"}, of)
            if counter(kek, "generation", of, 1) != generation:
                raise NotVerified(f"{of} is of another generation")
            verify_kek(token.told["profile"], kek["attestation"], text(kek, "kek", of), of)
            token.told |= {member: kek[member] for member in RENEWED}
            token.kek = generation

    def rekeyed(
        self, detail: dict[str, Any], reason: str, sequence: int, hash_: bytes, signer: IntroducedToken, what: str
    ) -> None:
        generation = self.generation + 1
        if counter(detail, "log_key", what, 1) != generation:
            raise NotVerified(f"{what} names log key {detail['log_key']}: the present one is {self.generation}")
        shredded, erased = listed(detail, "shredded", what, MONTH), listed(detail, "erased", what, "[0-9a-f]{16}")
        retired = []
        for id_ in listed(detail, "retired", what, "[0-9a-f]{64}"):
            token = self.tokens.get(bytes.fromhex(id_))
            if token is None or token.retired or token is signer:
                raise NotVerified(f"{what} retires {id_}, which is no other token that is registered")
            retired.append(token)
        if again := self.shredded.keys() & set(shredded):
            raise NotVerified(f"{what} shreds {min(again)}, which was shredded before")
        opened = [use for use in self.uses.values() if use.phase == "open"]
        others = [token for token in self.tokens.values() if not token.retired and token is not signer]
        if reason == "recover" and (signer not in [use.introduced for use in opened] or len(retired) != len(others)):
            raise NotVerified(f"{what} is not by the token that break-glass introduced, or leaves another")
        for use in opened:
            use.phase = "done" if reason == "recover" or use.introduced in retired else use.phase
        custody = None
        if reason in CEREMONIES:
            custody = Custody.parse(detail["custody"], sequence, self.newest_clear_time, signer.key.id)
            self.held(custody)
        rekeyed = Rekeyed(sequence, hash_, self.newest_clear_time, generation, reason, shredded, erased,
                          sorted(token.name for token in retired), signer.name, custody)  # fmt: skip
        for token in retired:
            token.retired = rekeyed
        self.shredded |= dict.fromkeys(shredded, rekeyed)
        self.erased |= dict.fromkeys(erased, rekeyed)
        self.rekeys[sequence] = rekeyed

    def held(self, custody: Custody) -> None:
        """A ceremony, rotation or replacement: what comes in the place of what, and answers which uses."""
        if custody.ceremony in self.ceremonies:
            raise NotVerified(f"ceremony {custody.ceremony} was held before")
        self.ceremonies.add(custody.ceremony)
        if self.custody:
            for name, custodian in self.custody.custodians.items():
                share = OldShare(custodian, custody.entry, custody.time)
                self.old_shares[f"{self.custody.ceremony}:{name}"] = share
        self.custody = custody
        for use in self.uses.values():
            use.answered = use.answered or custody.time  # its entry has noted every use before it

    def opening(self, detail: dict[str, Any], sequence: int, signer: bytes) -> Use:
        """A break-glass entry, its head not yet verified."""
        if self.custody is None:
            raise NotVerified("break-glass is used, and there are no custodians")
        request, what = Statement.parse(detail.get("request"), "request", "the request"), "the request"
        members, now = request.members, self.newest_clear_time
        created, expires = (utc(text(members, name, what), what) for name in ("created", "expires"))
        octets(members, "key", what, XWING_PUBLIC_SIZE)
        key = audit_key(octets(members, "signer", what), "the signer of the request", pem=False)
        request.verify(key, vault=self.vault.hex(), ceremony=self.custody.ceremony)
        if text(members, "scope", what) not in ("patient", "practice"):
            raise NotVerified(f"{what} has scope {members['scope']!a}, which the spec does not have")
        if not timedelta(0) < moment(expires) - moment(created) <= LONGEST_REQUEST:
            raise NotVerified(f"{what} ends after more than three days, or before it began")
        if moment(created) - moment(now) > CLOCKS_APART or now > expires:
            raise NotVerified(f"its time is not that of the request, {created} to {expires}")
        self.verify_history(counter(members, "sequence", what, 1), octets(members, "hash", what, 32))
        if request.id in self.uses:
            raise NotVerified(f"the request was used before, by entry {self.uses[request.id].entry}")
        if key.id != signer:
            raise NotVerified("it is signed by another key than the request")
        practice = members["scope"] == "practice"
        has_just(detail, {"approvals", "request"} | ({"token"} if practice else set()), "the use")
        approved_by = self.approvals(detail["approvals"], request, self.custody)
        introduced = None
        if practice:
            introduced = self.introduction(has_just(detail["token"], {*INTRODUCED, "name"}, "the new token"), sequence)
            if introduced.key.id == key.id:
                raise NotVerified("the new token's key is the request's, which signs no more")
        use = Use(request.id, sequence, now, expires, members["scope"], key, approved_by, introduced)
        self.verify_new(key, use.name)
        use.phase = "open" if introduced else "done"
        return use

    def verify_history(self, sequence: int, hash_: bytes) -> None:
        """The requester's file was of this history, and no older than the ceremony. Those entries are verified."""
        found = "SELECT hash, signer FROM entries WHERE sequence = ? AND sequence BETWEEN ? AND ?"
        since = self.custody.entry if self.custody else 1
        row = self.db.execute(found, (sequence, since, self.sequence)).fetchone()
        if row is None or row[0] != hash_ or row[1] not in self.tokens:
            raise NotVerified(f"the request is of a file whose entry {sequence} was another, or of before the ceremony")

    def approvals(self, approvals: object, request: Statement, custody: Custody) -> list[str]:
        """Who approved."""
        by: list[str] = []
        created, expires = request.members["created"], request.members["expires"]
        if not isinstance(approvals, list) or not custody.threshold <= len(approvals) <= len(custody.custodians):
            raise NotVerified(f"it has not {custody.threshold} to {len(custody.custodians)} approvals")
        for number, given in enumerate(approvals, 1):
            what = f"approval {number}"
            approval = Statement.parse(given, "approval", what)
            name, time = text(approval.members, "custodian", what), utc(text(approval.members, "time", what), what)
            known = custody.custodians.get(name)
            if known is None or counter(approval.members, "x", what, 1) != known["x"] or name in by:
                raise NotVerified(f"{what} is by {name!a}, who has not that share, or approved before")
            told = {"request": request.id, "commitment": known["commitment"], "audit_key": custody.signer.hex()}
            approval.verify(custody.approval_keys[name], vault=self.vault.hex(), ceremony=custody.ceremony, **told)
            if moment(created) - moment(time) > CLOCKS_APART or time > expires:
                raise NotVerified(f"{what} is of before the request, or of later than its end")
            if moment(time) - moment(self.newest_clear_time) > CLOCKS_APART:
                raise NotVerified(f"{what} is of more than a day later than the use")
            by.append(name)
        return by

    def restored(self, detail: dict[str, Any], sequence: int) -> None:
        number = counter(detail, "abandoned_sequence", "the restore", 0)
        # Of a token that had lost its anchor, and so could not say what was abandoned, the hash is empty.
        unknown = number == 0 and detail.get("abandoned_hash") == ""
        abandoned = {
            "entry": sequence,
            "abandoned_sequence": number,
            "abandoned_hash": "" if unknown else octets(detail, "abandoned_hash", "the restore", 32).hex(),
        }
        self.restore_count += 1
        if len(self.restores) < RESTORES_SHOWN:
            self.restores.append(abandoned)

    def trust_begins(self, given: Sequence[AuditKey]) -> None:
        """A forged log can vouch for itself too, so the first key or the newest head's key must be one we were given.

        The first key signed what everything follows from; the newest head's key signed a hash over all of it. A guest's
        key vouches for nothing: the newest head that counts is a token's.
        """
        for key in given:
            if key.id not in self.tokens:
                raise NotVerified(f"the given key {key.id.hex()} does not occur in the log")
        first = next(token.key.id for token in self.tokens.values())
        if not {first, self.signer} & {key.id for key in given}:
            raise NotVerified("neither the first token's key nor the newest head's is among the given keys")


def verify_schema(db: sqlite3.Connection) -> None:
    """Before any other query: a view or trigger of the file's own must never run."""
    ((version,),) = db.execute("PRAGMA user_version")
    if version not in (SCHEMA_UNBOUND, SCHEMA_VERSION):
        raise NotVerified(f"schema {version} is none of a medcrypt vault that this program knows")
    for pragma, wanted in (("application_id", APPLICATION_ID), ("encoding", "UTF-8")):
        if db.execute(f"PRAGMA {pragma}").fetchone() != (wanted,):
            raise NotVerified(f"not a medcrypt vault of schema {version}: {pragma} is not {wanted!r}")
    left = dict(SCHEMA if version == SCHEMA_UNBOUND else SCHEMA_2)
    for kind, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"):
        if sql is None or left.pop((kind, name, table), None) != sql:
            raise NotVerified(f"the schema's {kind!a} {name!a} is not as the spec says")
    if left:
        raise NotVerified(f"the schema lacks {', '.join(name for _, name, _ in left)}")
    # A hand-made file could answer an index or key lookup otherwise than a scan: what we verify must be what is read.
    if db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
        raise NotVerified("SQLite's own check finds the file damaged")


def read_vault_id(db: sqlite3.Connection) -> bytes:
    """What everything is bound to; unverified so far."""
    row = db.execute("SELECT value FROM trust WHERE kind = 'vault' AND name = ''").fetchone()
    if row is None:
        raise NotVerified("the trust state has no vault row")
    members, what = canonical_object(row[0], "trust row vault"), "trust row vault"
    if "unfinished" in members:
        raise NotVerified("the vault was never finished: `medcrypt vault create` was interrupted")
    return octets(members, "id", what, 16)


def verify_form(kind: str, name: str, row: dict[str, Any], what: str) -> None:
    """A row has exactly the members of its kind, each of its type."""
    forms = TRUST_ROWS[kind]
    has_just(row, set(forms) - (LEFT_OUT.get(kind, set()) - set(row)), what)
    if kind in UNNAMED and name:
        raise NotVerified(f"{what} may not exist")
    for member, form in [(member, forms[member]) for member in row]:
        if form == NUMBER:
            counter(row, member, what, 0)
            continue
        value = text(row, member, what)
        if form == TIME or (form == TIME_OR_NEVER and value):
            utc(value, what)
        if isinstance(form, tuple) and value not in form:
            raise NotVerified(f"{what}: {member!r} is {value!a}, which the spec does not have")
    if kind == "month" and not re.fullmatch(MONTH, name):
        raise NotVerified(f"{what}: that is not a month")
    for member in {"root", "check"} & set(row):
        octets(row, member, what, 32)
    if kind == "hold":
        octets(row, "nonce", what, 12)
        if not re.fullmatch("[0-9a-f]{16}", name) or len(octets(row, "sealed", what)) < 16:
            raise NotVerified(f"{what}: that is not a hold")


def verify_row(
    kind: str, name: str, row: dict[str, Any], what: str, log: Log, names: dict[str, IntroducedToken]
) -> None:
    """A row of the trust state tells what the log told."""
    generation, _, token_name = name.partition(":")
    token = names.get(token_name if kind in ("keyset", "doomed") else name)
    retired = token.retired if token else None
    if kind == "vault" and (row["generation"], row["log_key"]) != (log.generation, log.generation):
        raise NotVerified(f"{what} has another generation or log key than the log, which has {log.generation} for both")
    if kind == "month" and row["shredded"] != (log.shredded[name].time if name in log.shredded else ""):
        raise NotVerified(f"{what}: whether and when it was shredded is not as the log has it")
    if kind in ("token", "retired"):
        if token is None or (kind == "retired") != (retired is not None):
            raise NotVerified(f"{what}: the log {'retired' if kind == 'retired' else 'introduced'} no such token")
        compared = [member for member in INTRODUCED if kind == "token" or member not in RENEWED]
        if differs := [member for member in compared if row[member] != token.told[member]]:
            raise NotVerified(f"{what} has another {differs[0]} than the log introduced")
        if retired and (row["entry"], row["since"]) != (retired.entry, retired.time):
            raise NotVerified(f"{what}: entry {retired.entry} of {retired.time} retired it")
    if kind == "keyset":
        if (
            token is None
            or retired
            or octets(row, "token", what, 32) != token.key.id
            or not octets(row, "wrapped", what)
        ):
            raise NotVerified(f"{what} is wrapped for no token of that name")
        if (generation, row["kek"]) != (str(log.generation), token.kek):
            raise NotVerified(f"{what} is not the newest keyset under root key {token.kek}")
    if kind == "doomed":
        if token is None or octets(row, "token", what, 32) != token.key.id:
            raise NotVerified(f"{what} is of no token of that name")
        rekeyed = log.rekeys.get(row["entry"])
        if rekeyed is None or row["since"] != rekeyed.time or not re.fullmatch("[1-9][0-9]{0,18}", generation):
            raise NotVerified(f"{what} names no re-key that made it an old root key")
        if int(generation) >= rekeyed.generation:
            raise NotVerified(f"{what} is not older than the re-key that it names")
        log.doomed.append(name)
    if kind in ("breakglass", "custodian", "escrow", "oldshare", "use"):
        verify_breakglass(kind, name, row, what, log)
    if kind == "hold" and not 1 <= row["sequence"] <= log.sequence:
        raise NotVerified(f"{what} was written by an entry that the log does not have")


def verify_breakglass(kind: str, name: str, row: dict[str, Any], what: str, log: Log) -> None:
    custody = log.custody
    if kind == "oldshare":
        if (share := log.old_shares.get(name)) is None:
            raise NotVerified(f"{what} is of no share that became old")
        told = {member: share.custodian[member] for member in ("approval_key", "model", "serial")}
        agree(row, told | {"entry": share.entry, "since": share.time}, what)
        log.left_shares.append(name)
    elif kind == "use":
        use = log.uses.get(name)
        if use is None or not use.noted:
            raise NotVerified(f"{what} is of no use that the log had to note")
        agree(row, use.row(), what)
    elif custody is None or (kind == "custodian" and name not in custody.custodians):
        raise NotVerified(f"{what} is of no custodian or ceremony in the log")
    elif kind == "custodian":
        agree(row, {member: custody.custodians[name][member] for member in CUSTODIAN - {"name"}}, what)
        log.drilled[name] = row["drilled"]
    elif kind == "breakglass":
        told = {"audit_key": custody.signer.hex(), "ceremony": custody.ceremony, "entry": custody.entry}
        agree(row, told | {"since": custody.time, "threshold": custody.threshold}, what)
        if sha256(octets(row, "key", what, XWING_PUBLIC_SIZE)).hex() != custody.key:
            raise NotVerified(f"{what} has another key than the log tells")
    else:
        agree(row, {"ceremony": custody.ceremony, "generation": log.generation}, what)
        octets(row, "sealed", what, ESCROW_SIZE)


def verify_trust(db: sqlite3.Connection, log: Log) -> None:
    """The rows are what the newest head signed, and their tokens are exactly those that the log introduced."""
    digest = hashlib.sha256(lp(b"medcrypt/trust"))
    names = {token.name: token for token in log.tokens.values()}
    before, present = (b"", b""), set()
    for kind, name, value in db.execute("SELECT kind, name, value FROM trust ORDER BY kind, name"):
        if not isinstance(kind, str) or not isinstance(name, str) or kind not in TRUST_ROWS:
            raise NotVerified(f"the trust state has a row of unknown kind {kind!a}")
        what = f"trust row {kind} {name!a}"
        here = (kind.encode(), name.encode())
        if here <= before:
            raise NotVerified(f"{what} is out of order")
        before = here
        present.add((kind, name))
        row = canonical_object(value, what)
        verify_form(kind, name, row, what)
        digest.update(lp(here[0]) + lp(here[1]) + lp(value))
        verify_row(kind, name, row, what, log, names)
    wanted = [("retired" if token.retired else "token", token.name) for token in log.tokens.values()]
    wanted += [("month", month) for month in log.shredded]
    wanted += [("use", use.request) for use in log.uses.values() if use.noted]
    if log.custody:
        wanted += [("breakglass", ""), ("escrow", ""), *(("custodian", name) for name in log.custody.custodians)]
    for kind, name in sorted({*wanted} - present):
        raise NotVerified(f"{kind} {name!a} is told of in the log but has no trust row")
    if not {"policy", "month"} <= {kind for kind, _ in present}:
        raise NotVerified("the trust state lacks a policy or any month")
    if digest.digest() != log.trust:
        raise NotVerified("the trust state is not the one that the newest head signed", log.sequence)


def verify_tables(db: sqlite3.Connection, log: Log) -> None:
    """What the other rows show without the token: a log that was cut off carelessly, and rows that were to go."""
    written = "SELECT sequence, purpose FROM records UNION ALL SELECT sequence, purpose FROM sealed"
    if any(type(n) is not int or not 1 <= n <= log.sequence for n, _ in db.execute(written)):  # and purpose is UTF-8
        raise NotVerified("a row of records or sealed was written by an entry that the log does not have")
    kept = (
        "SELECT pairing, month FROM records UNION SELECT pairing, '' FROM sealed UNION SELECT pairing, month FROM seen"
    )
    for pairing, month in db.execute(kept):
        if not isinstance(pairing, bytes) or not isinstance(month, str):
            raise NotVerified("a row of records, sealed or seen is not as the schema says")
        if rekeyed := log.shredded.get(month):
            raise NotVerified(f"there are rows of {month}, which entry {rekeyed.entry} shredded", rekeyed.entry)
        if rekeyed := log.erased.get(pairing.hex()):
            raise NotVerified(f"there are rows of {pairing.hex()}, which entry {rekeyed.entry} erased", rekeyed.entry)


def node(name: str, rows: Sequence[tuple[str, bytes]], prefix: str = "") -> bytes:
    """The digest of the node that covers these rows, each its key in hex and its columns in a ctx."""
    about, depth = (name.encode(), prefix.encode()), len(prefix)
    if len(rows) <= LEAF or len(rows[0][0]) <= depth:
        return sha256(ctx("medcrypt/rows", *about) + b"".join(row for _, row in rows)) if rows else NOTHING
    below: dict[str, list[tuple[str, bytes]]] = {digit: [] for digit in "0123456789abcdef"}
    for row in rows:
        below[row[0][depth]].append(row)
    children = [node(name, below[digit], prefix + digit) for digit in below]
    return sha256(ctx("medcrypt/rows/node", *about, b"".join(children)))


def grouped(db: sqlite3.Connection) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Every group of rows that a head binds, by name."""
    record = "SELECT pairing, sequence, wrapped, mac FROM records WHERE purpose = ? AND month = ? ORDER BY pairing"
    sealed = "SELECT pairing, lookup, sequence, nonce, body FROM sealed WHERE purpose = ? ORDER BY pairing"
    lookup = "SELECT lookup, purpose, pairing FROM sealed WHERE lookup > x'' ORDER BY lookup, purpose, pairing"
    queries: list[tuple[str, str, tuple[str, ...]]] = [("lookup", lookup, ())]
    for purpose, month in db.execute("SELECT DISTINCT purpose, month FROM records"):
        queries.append((f"record:{purpose}:{month}", record, (purpose, month)))
    for (purpose,) in db.execute("SELECT DISTINCT purpose FROM sealed"):
        queries.append((f"sealed:{purpose}", sealed, (purpose,)))

    def content(value: int | str | bytes) -> bytes:
        return lp(u64(value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value)

    for name, sql, values in queries:
        yield name, [(row[0].hex(), b"".join(map(content, row))) for row in db.execute(sql, values)]


def verify_bound(db: sqlite3.Connection, log: Log) -> None:
    """The head binds each row, where the vault is one whose rows are bound: of schema 2."""
    signed = db.execute("SELECT name, value FROM trust WHERE kind = 'rows'")
    roots = {name: octets(json.loads(value), "root", name) for name, value in signed}
    log.bound = db.execute("PRAGMA user_version").fetchone() != (SCHEMA_UNBOUND,)
    if log.bound != bool(roots):
        raise NotVerified("schema and trust state do not agree on whether rows are bound")
    found = {name: node(name, rows) for name, rows in grouped(db) if rows} if log.bound else {}
    for name in sorted(found.keys() | roots.keys()):
        if found.get(name) != roots.get(name):
            raise NotVerified(f"the rows of {name!a} are not those that the newest head binds", log.sequence)


def verify(
    db: sqlite3.Connection, given: Sequence[AuditKey], checkpoints: Sequence[Checkpoint],
    certificates: Sequence[Certificate] = (),
) -> Log:  # fmt: skip
    """Everything, in the spec's order. Raises NotVerified."""
    verify_schema(db)
    log = Log(read_vault_id(db), db)
    notes: list[Checkpoint | Certificate] = [*checkpoints, *certificates]
    for kept in notes:
        if kept.note.vault != log.vault:
            kept.fail(f"is of another vault, {kept.note.vault.hex()}")
    for row in db.execute("SELECT sequence, stored, hash, trust, signer, signature FROM entries ORDER BY sequence"):
        try:
            log.append(row)
        except NotVerified as error:
            raise NotVerified(str(error), log.sequence + 1) from error
        for checkpoint in checkpoints:
            if checkpoint.sequence == log.sequence:
                checkpoint.compare(log)
    if not log.sequence:
        raise NotVerified("the log is empty")
    verify_trust(db, log)
    if log.highest_log_key > log.generation:
        raise NotVerified(f"an entry is sealed under log key {log.highest_log_key}; the newest is {log.generation}")
    verify_tables(db, log)
    verify_bound(db, log)
    log.trust_begins(given)
    for kept in notes:
        kept.verify(log)
    return log


@contextmanager
def opened(vault: Path) -> Iterator[sqlite3.Connection]:
    """The file, read only, as of one moment."""
    path = vault.resolve(strict=True)
    if not path.is_file():  # a pipe would be waited for
        raise NotVerified(f"{str(vault)!a} is not a regular file")
    # Without a WAL the file is complete by itself, and immutable=1 lets SQLite read it where it may create nothing.
    # With one it would be wrong: the newest entries are in the WAL, and immutable ignores it.
    beside = False
    for suffix in ("-wal", "-shm", "-journal"):
        file = path.with_name(path.name + suffix)
        if not os.path.lexists(file):
            continue
        if not stat.S_ISREG(file.lstat().st_mode) or (suffix == "-journal" and file.lstat().st_size):
            raise NotVerified(f"{str(file)!a} lies beside it: to read on, SQLite would change the file. Copy both away")
        beside = beside or suffix == "-wal"
    uri = path.as_uri() + ("?mode=ro" if beside else "?mode=ro&immutable=1")
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")  # one snapshot, though the vault be in use
        yield db


def read_argument(path: Path, largest: int = LARGEST_ARGUMENT) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # opening a pipe must not wait for anybody
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotVerified(f"{str(path)!a} is not a regular file")
        content = file.read(largest + 1)
    if len(content) > largest:
        raise NotVerified(f"{str(path)!a} is too large to be what it is said to be")
    return content


def read_certificate(path: Path) -> Certificate:
    if path.suffix != ".md":
        raise NotVerified(f"{str(path)!a} is not the .md file of a certificate")
    beside = path.with_suffix(".json")
    document = read_argument(beside, LARGEST_CERTIFICATE) if beside.exists() else None
    return Certificate.parse(read_argument(path, LARGEST_CERTIFICATE), str(path), document)


def read_keys(path: Path) -> list[AuditKey]:
    first, *more = read_argument(path).split(b"-----BEGIN ")
    return [audit_key(b"-----BEGIN " + pem, ascii(str(path)), pem=True) for pem in more or [first]]


def custody_report(log: Log, custody: Custody) -> dict[str, Any]:
    return {
        "ceremony": custody.ceremony,
        "entry": custody.entry,
        "time": custody.time,
        "key": custody.key,
        "threshold": custody.threshold,
        "custodians": [
            {"name": name, "x": told["x"], "model": told["model"], "serial": told["serial"],
             "attestation": told["attestation"], "approval_key": custody.approval_keys[name].id.hex(),
             "drilled": log.drilled[name] or None}
            for name, told in custody.custodians.items()
        ],
    }  # fmt: skip


def report(log: Log, checkpoints: Sequence[Checkpoint], certificates: Sequence[Certificate]) -> dict[str, Any]:
    return {
        "verified": True,
        "vault": log.vault.hex(),
        "entries": log.sequence,
        "newest": {"sequence": log.sequence, "hash": log.hash.hex(), "time": log.time, "signer": log.signer.hex()},
        "tokens": [
            {"name": t.name, "id": t.key.id.hex(), "introduced": t.introduced, "signed": t.signed,
             "retired": t.retired.entry if t.retired else None}
            for t in log.tokens.values()
        ],
        "generation": log.generation,
        "rows_bound": log.bound,
        "unfinished": log.begun[0] if log.begun else None,
        "shredded": [
            {"month": month, "entry": rekeyed.entry, "time": rekeyed.time}
            for month, rekeyed in sorted(log.shredded.items())
        ],
        "erased_pairings": len(log.erased),
        "not_destroyed": log.doomed,
        "break_glass": custody_report(log, log.custody) if log.custody else None,
        "uses": [
            {"request": use.request, "entry": use.entry, "time": use.time, "scope": use.scope, "name": use.name,
             "approved_by": use.approved_by, "signed": use.signed, "noted": use.noted, "phase": use.phase,
             "answered": use.answered or None}
            for use in log.uses.values()
        ],
        "old_shares_not_destroyed": log.left_shares,
        "restores": log.restore_count,
        "restores_shown": log.restores,
        "checkpoints": [checkpoint.sequence for checkpoint in checkpoints],
        "certificates": [
            {"entry": certificate.entry, "title": certificate.title, "json": certificate.document is not None}
            for certificate in certificates
        ],
    }  # fmt: skip


def in_words(found: dict[str, Any]) -> str:
    """For a terminal: names come from the file, so ascii() keeps escape sequences in them from acting."""
    newest = found["newest"]
    lines = [
        f"verified: vault {found['vault']}, {found['entries']} entries, {len(found['tokens'])} tokens introduced",
        f"newest head: entry {newest['sequence']}, time {newest['time'] or 'unknown (sealed)'}, hash {newest['hash']}",
    ]
    for token in found["tokens"]:
        signed = f"introduced by entry {token['introduced']}, signed {token['signed']} entries"
        retired = f", retired by entry {token['retired']}" if token["retired"] else ""
        lines.append(f"token {token['name']!a} {token['id']}: {signed}{retired}")
    if found["generation"] > 1:
        lines.append(f"re-keyed {found['generation'] - 1} times; pairings erased: {found['erased_pairings']}")
    for month in found["shredded"]:
        lines.append(f"month {month['month']} was shredded by entry {month['entry']}, {month['time']}")
    for kek in found["not_destroyed"]:
        lines.append(f"old root key {kek!a} is not proven destroyed: with it, that token opens files from before")
    if found["unfinished"]:
        lines.append(f"{found['unfinished']} was begun and has not ended")
    if custody := found["break_glass"]:
        lines.append(
            f"break-glass: any {custody['threshold']} of {len(custody['custodians'])} custodians; ceremony "
            f"{custody['ceremony']}, entry {custody['entry']}, {custody['time']}; key {custody['key']}"
        )
        for told in custody["custodians"]:
            drilled = f"drilled {told['drilled']}" if told["drilled"] else "never drilled"
            on = f"{told['model']!a} {told['serial']!a}, {told['attestation']}, approval key {told['approval_key']}"
            lines.append(f"  custodian {told['name']!a}, share {told['x']} on {on}, {drilled}")
    for use in found["uses"]:
        scope = "for the practice" if use["scope"] == "practice" else f"for one patient, {use['signed']} entries"
        end = f"answered by the ceremony of {use['answered']}" if use["answered"] else "no ceremony has answered it"
        by = ", ".join(ascii(name) for name in use["approved_by"])
        lines.append(f"break-glass was used {scope}, by entry {use['entry']}, {use['time']}, approved by {by}; {end}")
        lines.append(f"  request {use['request']}, token {use['name']!a}")
        if use["phase"] == "open":
            lines.append("  the recovery of the practice has not ended: tokens of before are still valid")
    for share in found["old_shares_not_destroyed"]:
        lines.append(f"old share {share!a} is not proven destroyed: enough of one ceremony open files of their time")
    lines.append(f"restores: {found['restores']}")
    for restore in found["restores_shown"]:
        if not restore["abandoned_hash"]:
            lines.append(f"  entry {restore['entry']} accepted the vault with a token that had lost its anchor")
            continue
        lines.append(f"  entry {restore['entry']} abandoned what followed up to entry {restore['abandoned_sequence']}")
    for certificate in found["certificates"]:
        beside = "with its JSON" if certificate["json"] else "its JSON is not beside it"
        lines.append(f"certificate of entry {certificate['entry']} ({beside}): {certificate['title']!a}")
    if found["checkpoints"]:
        lines.append(f"checkpoints that the log continues: {', '.join(str(n) for n in found['checkpoints'])}")
    else:
        lines.append("no checkpoint given: that nothing is missing at the end is not shown")
    bound = "each row of records and sealed is the one that the newest head binds"
    lines.append(bound if found["rows_bound"] else "rows are not bound: whoever held the keyset could exchange them")
    lines.append("not verified without the token: what sealed entries say, table seen, and what rows hold")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify a medcrypt vault's audit log with public keys alone.")
    parser.add_argument("vault", type=Path, metavar="VAULT", help="vault file or backup; it is only read")
    parser.add_argument("--public-key", type=Path, action="append", required=True, metavar="PEM",
                        help="audit keys that you trust (repeatable); each must occur in the log")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], metavar="FILE",
                        help="a checkpoint kept elsewhere (repeatable); the log must continue it")  # fmt: skip
    parser.add_argument("--certificate", type=Path, action="append", default=[], metavar="FILE.md",
                        help="a re-key's certificate (repeatable), FILE.json beside it too if it is there")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(argv)
    entry: int | None = None
    try:
        given = [key for path in options.public_key for key in read_keys(path)]
        checkpoints = [Checkpoint.parse(read_argument(path), str(path)) for path in options.checkpoint]
        certificates = [read_certificate(path) for path in options.certificate]
        with opened(options.vault) as db:
            found = report(verify(db, given, checkpoints, certificates), checkpoints, certificates)
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
