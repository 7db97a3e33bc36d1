#!/usr/bin/env python3
"""Open a medcrypt vault with t custodians' plain shares. Needs Python 3.11, `cryptography` 50 and nothing else.

For the day when neither the program nor the tokens' software can be used, and the proof that docs/spec (notation,
breakglass, vault, audit, messages, rekey) is complete: nothing here is shared with the program that writes vaults.

In: a vault file or backup, which is only read, and for each share a file of one line, canonical JSON: {"audit_key":
hex, "ceremony": hex, "of": n, "threshold": t, "vault": hex, "version": 1, "x": x, "y": 64 hex digits}.
Out: what the vault holds (`check`), its patients, the texts of messages, its log in the clear. Never a key. Exit code
0: all of it; 5: something is not as the spec says, or does not open; 2: wrong usage, or a file that cannot be read.

What exit code 0 does not say:
- that the log is complete at its end: who has an older copy of the file has one that opens too.
- that the whole audit log is as the spec says. Verified is what the way from the shares to the keys hangs on: every
  entry's hash and signature, which keys were introduced, retired or let in by custodians, the trust state, the custody.
  All else that public keys can show is the business of verify_audit.py: run that as well.
- of `patients` and `read`: that a row is the newest that was written. `check` compares all rows with the log.
- that the opening is on record. Nothing is written, so the vault's log does not tell of it: note down who did this,
  when and why. Every key of the vault was on this machine: use one without network or swap, and make the vault's
  break-glass and its pairings anew afterwards. Keys in this program's memory are neither locked nor wiped.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import sqlite3
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, hpke, keywrap
    from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
except ImportError:  # somebody else's machine, on a bad day: in plain words, too
    print("error: this needs the Python package cryptography, 50 or newer", file=sys.stderr)
    print("hint: python3 -m pip install 'cryptography>=50'", file=sys.stderr)
    sys.exit(2)

USAGE, NOT_OPENED = 2, 5
APPLICATION_ID = 0x4D454443
SCHEMA = {
    "CREATE TABLE trust (kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, "
    "PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID",
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, stored BLOB NOT NULL, hash BLOB NOT NULL, "
    "trust BLOB NOT NULL, signer BLOB NOT NULL, signature BLOB NOT NULL) STRICT",
    "CREATE TABLE records (purpose TEXT NOT NULL, pairing BLOB NOT NULL, month TEXT NOT NULL, "
    "sequence INTEGER NOT NULL, wrapped BLOB NOT NULL, mac BLOB NOT NULL, "
    "PRIMARY KEY (purpose, pairing, month)) STRICT, WITHOUT ROWID",
    "CREATE TABLE sealed (purpose TEXT NOT NULL, pairing BLOB NOT NULL, lookup BLOB NOT NULL, "
    "sequence INTEGER NOT NULL, nonce BLOB NOT NULL, body BLOB NOT NULL, "
    "PRIMARY KEY (purpose, pairing)) STRICT, WITHOUT ROWID",
    "CREATE INDEX sealed_lookup ON sealed (lookup)",
    "CREATE TABLE seen (pairing BLOB NOT NULL, month TEXT NOT NULL, nonce BLOB NOT NULL, digest BLOB NOT NULL, "
    "PRIMARY KEY (pairing, month, nonce)) STRICT, WITHOUT ROWID",
}
SCHEMAS = {  # by number; table and index of the second help to bind rows, which is nothing to open them by
    1: SCHEMA,
    2: {*SCHEMA, "CREATE INDEX records_month ON records (purpose, month, pairing)", "CREATE TABLE tree (name TEXT NOT "
        "NULL, prefix TEXT NOT NULL, digests BLOB NOT NULL, PRIMARY KEY (name, prefix)) STRICT, WITHOUT ROWID"},
}  # fmt: skip
LARGEST_VALUE = 64 << 20  # of one stored value: a hostile file must not decide how much memory we take
LARGEST_SHARE = 4096
LARGEST_TEXT = 64 << 20  # bytes
MOST_MESSAGES = 10_000  # in one text
REQUEST, APPROVAL = "medcrypt/breakglass/request", "medcrypt/breakglass/approval"
LONGEST_REQUEST = timedelta(hours=72)
DAY = timedelta(days=1)
V1_ROUNDS = 600_000
MAX_WIRE = 4000  # characters of a version 2 message
SENDERS = {"d": "the doctor", "p": "the patient", "": "an unknown sender"}
CLEAR_ACTIONS = {
    "token.introduce": ("done",),
    "vault.restore": ("done",),
    "vault.rekey": ("intended", "done", "undone"),
    "vault.sync": ("intended", "done", "undone"),
    "breakglass.open": ("done",),
    "breakglass.close": ("done",),
}
GUEST_ACTIONS = ("breakglass.read", "message.decrypt", "message.failed")
CUSTODY_REASONS = ("ceremony", "rotate", "replace")

OTHER_COPY = "keep this file as evidence, and try a backup or another copy of it"
OTHER_SHARE = "take this share out of its token again, or use another custodian's"
ASK_RESEND = "copy the message again, from [ to ]"


class Problem(Exception):
    """What happened, what to do about it, and the exit code. Never carries keys, shares or plaintext."""

    def __init__(self, what: str, hint: str = OTHER_COPY, code: int = NOT_OPENED) -> None:
        super().__init__(what)
        self.what, self.hint, self.code = what, hint, code


# --- Notation -------------------------------------------------------------------------------------------------------


def ctx(*items: str | bytes) -> bytes:
    """lp(a) lp(b) …: every item after its length, so that no two lists give the same bytes."""
    raw = [item.encode() if isinstance(item, str) else item for item in items]
    return b"".join(len(item).to_bytes(4, "big") + item for item in raw)


def u64(n: int) -> bytes:
    return n.to_bytes(8, "big")


def sha256(x: bytes) -> bytes:
    return hashlib.sha256(x).digest()


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def canonical_object(stored: object, what: str, hint: str = OTHER_COPY) -> dict[str, Any]:
    """A canonical JSON object; what would not be encoded back to the same bytes is refused."""

    def refuse(text: str) -> NoReturn:
        raise ValueError(text)

    try:
        if not isinstance(stored, bytes):
            raise ValueError("not a blob")
        value = json.loads(stored.decode(), parse_float=refuse, parse_constant=refuse)
        encoded = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        # Not chained: the error carries the text, which may be a share or a patient's row.
        raise Problem(f"{what} is not canonical JSON", hint) from None
    if encoded != stored or not isinstance(value, dict):
        raise Problem(f"{what} is not a canonical JSON object", hint)
    return value


def hexes(size: int) -> str:
    return f"[0-9a-f]{{{2 * size}}}"


TEXT = "(?s:.*)"
TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
MONTH = "20[0-9]{2}-(?:0[1-9]|1[0-2])"
SPKI = "(?:[0-9a-f]{2})+"
Form = Mapping[str, type | str]  # member → its type, or the pattern of its text

ENTRY: Form = {"action": TEXT, "actor": TEXT, "detail": dict, "outcome": TEXT, "subject": TEXT, "time": TIME,
               "token": TEXT}  # fmt: skip
INTRODUCED: Form = {"attestation": TEXT, "audit_key": SPKI, "id": hexes(32), "kek": TEXT, "model": TEXT, "name": TEXT,
                    "profile": TEXT, "serial": TEXT}  # fmt: skip
REKEY_DONE: Form = {"erased": list, "generation": int, "keks": dict, "log_key": int, "retired": list, "shredded": list}
CUSTODY: Form = {"ceremony": hexes(6), "custodians": list, "key": hexes(32), "threshold": int}
CUSTODIAN: Form = {"approval_key": SPKI, "attestation": TEXT, "commitment": hexes(32), "kek": TEXT, "model": TEXT,
                   "name": TEXT, "profile": TEXT, "serial": TEXT, "x": int}  # fmt: skip
CUSTODIAN_ROW: Form = {"approval_key": SPKI, "attestation": TEXT, "commitment": hexes(32), "drilled": TEXT,
                       "kek": TEXT, "label": TEXT, "model": TEXT, "profile": TEXT, "serial": TEXT, "uri": TEXT,
                       "x": int}  # fmt: skip
BREAKGLASS_ROW: Form = {"audit_key": hexes(32), "ceremony": hexes(6), "entry": int, "key": hexes(1216), "since": TIME,
                        "threshold": int}  # fmt: skip
ESCROW_ROW: Form = {"ceremony": hexes(6), "generation": int, "sealed": hexes(1232)}
VAULT_ROW: Form = {"created": TIME, "generation": int, "id": hexes(16), "log_key": int}
MONTH_ROW: Form = {"opened": TIME, "shredded": f"(?:{TIME})?"}
HOLD_ROW: Form = {"nonce": hexes(12), "sealed": SPKI, "sequence": int}
SIGNED: Form = {"signature": hexes(64), "statement": TEXT}
STATEMENT: Form = {"ceremony": hexes(6), "enclosed": hexes(32), "type": TEXT, "vault": hexes(16), "version": int}
REQUEST_STATEMENT: Form = {**STATEMENT, "created": TIME, "expires": TIME, "hash": hexes(32), "key": hexes(1216),
                           "scope": "patient|practice", "sequence": int, "signer": SPKI}  # fmt: skip
APPROVAL_STATEMENT: Form = {**STATEMENT, "audit_key": hexes(32), "commitment": hexes(32), "custodian": TEXT,
                            "request": hexes(32), "time": TIME, "x": int}  # fmt: skip
SHARE: Form = {"audit_key": hexes(32), "ceremony": hexes(6), "of": int, "threshold": int, "vault": hexes(16),
               "version": int, "x": int, "y": hexes(32)}  # fmt: skip
PATIENT: Form = {"added": TIME, "confirmed": bool, "entry": int, "first": MONTH, "id": TEXT, "label": TEXT,
                 "protocol": "v1|v2", "replaces": object, "state": "pending|active|ended|removed",
                 "tries": int}  # fmt: skip


def shaped(value: object, form: Form, what: str, hint: str = OTHER_COPY) -> dict[str, Any]:
    """An object of exactly these members, each as its form says. Numbers are 0 to 2^63 - 1."""
    if not isinstance(value, dict) or set(value) != set(form):
        raise Problem(f"{what} has other members than the spec's", hint)
    for name, wanted in form.items():
        member = value[name]
        if isinstance(wanted, str):
            fits = isinstance(member, str) and re.fullmatch(wanted, member) is not None
        elif wanted is int:
            fits = type(member) is int and 0 <= member < 1 << 63  # type(): True is an int to isinstance
        else:
            fits = isinstance(member, wanted)
        if not fits:
            raise Problem(f"{what}: {name!r} is not what the spec says", hint)
    return value


def moment(text: str, what: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        raise Problem(f"{what}: {text!a} is not a time") from None


def next_month(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02}"


# --- Signatures -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SigningKey:
    """A P-256 public key and its fingerprint."""

    key: ec.EllipticCurvePublicKey
    id: bytes

    @classmethod
    def of(cls, spki: str, what: str) -> SigningKey:
        der = bytes.fromhex(spki)
        try:
            key = load_der_public_key(der)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Problem(f"{what} is not a public key") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Problem(f"{what} is not a P-256 key")
        if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != der:
            raise Problem(f"{what} is not encoded as the spec says")  # another encoding would be another fingerprint
        return cls(key, sha256(der))

    def signed(self, signature: bytes, data: bytes) -> bool:
        rs = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        try:
            self.key.verify(rs, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


# --- The log: who may have written this file ------------------------------------------------------------------------


@dataclass
class Token:
    name: str
    key: SigningKey
    retired_by: int = 0


@dataclass(frozen=True)
class Custody:
    """What the entry of a ceremony tells, and who signed it."""

    entry: int
    time: str
    signer: bytes
    ceremony: str
    key: str  # fingerprint of the break-glass key
    threshold: int
    custodians: dict[str, dict[str, Any]]  # by name, x = 1 … n


@dataclass(frozen=True)
class Opening:
    """A `breakglass.open`, its approvals verified."""

    request: str
    expires: str
    signer: Token  # the request's, which is no registered token
    introduced: Token | None  # for the practice


@dataclass
class Log:
    """The walk over all entries: what the newest head's signature can be traced back to."""

    vault: bytes
    sequence: int = 0
    hash: bytes = b""
    trust: bytes = b""
    time: str = ""  # of the newest clear entry
    generation: int = 1
    highest_log_key: int = 0
    tokens: dict[bytes, Token] = field(default_factory=dict)
    guest: Opening | None = None  # whose run has not ended
    openings: dict[bytes, Opening] = field(default_factory=dict)  # by their signers
    heads: dict[int, str] = field(default_factory=dict)  # hashes of registered tokens' entries since the ceremony
    begun: tuple[str, int, str] | None = None  # action, generation, reason of what was intended and has not ended
    custody: Custody | None = None
    ceremonies: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.hash = sha256(ctx("medcrypt/audit/genesis", self.vault))

    def append(self, row: tuple[Any, ...]) -> None:
        sequence, stored, hash_, trust, signer, signature = row
        if sequence != self.sequence + 1:
            raise Problem("it is missing")
        sizes = ((hash_, 32), (trust, 32), (signer, 32), (signature, 64))
        if not all(isinstance(value, bytes) and len(value) == size for value, size in sizes):
            raise Problem("hash, trust, signer or signature is not a blob of the right length")
        if not isinstance(stored, bytes) or not stored:
            raise Problem("the stored entry is empty or not a blob")
        if sha256(ctx("medcrypt/audit/entry", self.hash, u64(sequence), trust, signer, stored)) != hash_:
            raise Problem("its hash does not follow from the entry before and the stored bytes")
        entry = self.clear(stored)
        action = entry["action"] if entry else ""
        opening = self.opening(entry) if entry and action == "breakglass.open" else None
        introduced = opening.introduced if opening else None
        if entry and action == "token.introduce":
            introduced = self.introduction(without_rows(entry["detail"]))
        token = self.signer(signer, introduced, opening)
        if not token.key.signed(signature, ctx("medcrypt/head", self.vault, u64(sequence), hash_, trust)):
            raise Problem(f"its head's signature is not that of token {token.name!a}")
        if entry and entry["token"] != token.name:
            raise Problem(f"it names token {entry['token']!a} but {token.name!a} signed it")
        # Only now, the head being verified: an entry counts for nothing before.
        if opening:
            if opening.introduced is None and trust != self.trust:
                raise Problem("opening one patient changed the trust state")
            self.openings[signer] = opening
            self.guest = None if opening.introduced else opening
        elif self.guest and token is self.guest.signer:
            self.of_guest(self.guest, entry, trust)
        elif action == "breakglass.close":
            raise Problem("it ends a guest's run, and no guest wrote it")
        else:
            self.guest = None  # a registered token ends a guest's run
            if entry and action in ("vault.rekey", "vault.sync"):
                self.rekeying(entry, sequence, token)
            self.heads[sequence] = hash_.hex()
        if introduced:
            self.tokens[introduced.key.id] = introduced
        self.sequence, self.hash, self.trust = sequence, hash_, trust

    def clear(self, stored: bytes) -> dict[str, Any] | None:
        """The entry, or None if it is sealed."""
        if stored[0] == 1:
            number = int.from_bytes(stored[1:5], "big")
            if len(stored) < 1 + 4 + 12 + 16 or number < 1:
                raise Problem("a sealed entry that is too short or names log key 0")
            self.highest_log_key = max(self.highest_log_key, number)
            return None
        if stored[0] != 0:
            raise Problem("it is neither clear nor sealed")
        entry = shaped(canonical_object(stored[1:], "it"), ENTRY, "it")
        if entry["outcome"] not in CLEAR_ACTIONS.get(entry["action"], ()):
            raise Problem(f"{entry['action']!a}, {entry['outcome']!a} is not in the clear by this version of the spec")
        moment(entry["time"], "it")
        if entry["time"] < self.time:
            raise Problem("its time is before an earlier entry's")
        self.time = entry["time"]
        return entry

    def signer(self, signer: bytes, introduced: Token | None, opening: Opening | None) -> Token:
        """Whose key this head is to be verified with."""
        if opening:
            token: Token | None = opening.signer
        elif self.sequence == 0:
            token = introduced  # nothing is believed yet: in the end the shares say which key they trust
        elif self.guest and self.guest.signer.key.id == signer:
            token = self.guest.signer
        else:
            token = self.tokens.get(signer)
        if token is None or token.key.id != signer:
            raise Problem(f"signed by {signer.hex()}, which was not introduced before")
        if token.retired_by:
            raise Problem(f"signed by token {token.name!a}, which entry {token.retired_by} retired")
        return token

    def introduction(self, detail: object) -> Token:
        detail = shaped(detail, INTRODUCED, "the introduction")
        key = SigningKey.of(detail["audit_key"], "the introduced audit key")
        if detail["id"] != key.id.hex():
            raise Problem("the introduced token's id is not its audit key's fingerprint")
        if key.id in self.tokens or any(detail["name"] == token.name for token in self.tokens.values()):
            raise Problem(f"token {detail['name']!a} or its key was introduced before")
        custodians = self.custody.custodians.values() if self.custody else ()
        device = (detail["serial"], detail["model"])
        if detail["name"].startswith("bg-") or any(device == (told["serial"], told["model"]) for told in custodians):
            raise Problem(f"token {detail['name']!a} has a guest's name, or is a custodian's (BG-1)")
        return Token(detail["name"], key)

    def rekeying(self, entry: dict[str, Any], sequence: int, signer: Token) -> None:
        """Of `vault.rekey` and `vault.sync`: the generation, whom it retires, and the custody."""
        action, outcome, detail = entry["action"], entry["outcome"], without_rows(entry["detail"])
        rekey, generation = action == "vault.rekey", detail.get("generation")
        if generation != self.generation + rekey or type(generation) is not int:
            raise Problem(f"it is not of the generation that is due, {self.generation + rekey}")
        if outcome == "intended":
            if self.begun or not isinstance(detail.get("reason"), str):
                raise Problem(f"{action} begins without a reason, or before what was begun has ended")
            self.begun = (action, generation, detail["reason"])
            return
        if self.begun is None or self.begun[:2] != (action, generation):
            raise Problem(f"{action} ends that was not intended, or not so")
        reason, self.begun = self.begun[2], None
        if outcome == "undone" or not rekey:
            return
        told = detail.pop("custody", None)
        shaped(detail, REKEY_DONE, "the re-key")
        if detail["log_key"] != generation:
            raise Problem("the re-key's log key is not of its generation")
        if (told is not None) != (reason in CUSTODY_REASONS):
            raise Problem(f"a re-key of reason {reason!a} {'lacks' if told is None else 'has'} a custody")
        for id_ in detail["retired"]:
            token = self.tokens.get(bytes.fromhex(id_) if re.fullmatch(hexes(32), str(id_)) else b"")
            if token is None or token.retired_by or token is signer:
                raise Problem("the re-key retires what is no other token that is registered")
            token.retired_by = sequence
        self.generation = generation
        if told is not None:
            self.heads.clear()
            self.custody = self.new_custody(told, sequence, entry["time"], signer)

    def new_custody(self, told: object, sequence: int, time: str, signer: Token) -> Custody:
        told = shaped(told, CUSTODY, "the custody")
        custodians = [shaped(custodian, CUSTODIAN, "a custodian of the custody") for custodian in told["custodians"]]
        named = {custodian["name"]: custodian for custodian in custodians}
        keys = {SigningKey.of(custodian["approval_key"], "an approval key").id for custodian in custodians}
        n = len(custodians)
        if not 2 <= told["threshold"] <= n <= 16 or not len(named) == len(keys) == n:
            raise Problem("the custody's threshold, names or approval keys cannot be")
        if [custodian["x"] for custodian in custodians] != list(range(1, n + 1)):
            raise Problem("the custodians' x are not 1 to n")
        if told["ceremony"] in self.ceremonies:
            raise Problem("the custody's ceremony id is an earlier one's")
        self.ceremonies.add(told["ceremony"])
        return Custody(sequence, time, signer.key.id, told["ceremony"], told["key"], told["threshold"], named)

    def statement(self, value: object, type_: str, form: Form, what: str) -> tuple[dict[str, Any], bytes, bytes]:
        """A signed statement of this vault and ceremony: members, signed bytes, signature. Not verified yet."""
        assert self.custody is not None
        signed = shaped(value, SIGNED, what)
        statement = shaped(canonical_object(signed["statement"].encode("utf-8", "replace"), what), form, what)
        told = (statement["type"], statement["version"], statement["vault"], statement["ceremony"])
        if told != (type_, 1, self.vault.hex(), self.custody.ceremony):
            raise Problem(f"{what} is not of this vault and ceremony")
        return statement, ctx(type_, signed["statement"]), bytes.fromhex(signed["signature"])

    def opening(self, entry: dict[str, Any]) -> Opening:
        """A `breakglass.open` that as many custodians approved as it takes: BG-2 to BG-5, as far as the log tells."""
        if self.custody is None:
            raise Problem("it opens by a break-glass that the vault does not have")
        detail, custody = entry["detail"], self.custody
        request, data, signature = self.statement(detail.get("request"), REQUEST, REQUEST_STATEMENT, "the request")
        practice, id_ = request["scope"] == "practice", sha256(data).hex()
        names = {"approvals", "request"} | ({"token"} if practice else set())
        if set(detail) != names or not isinstance(detail["approvals"], list):
            raise Problem("it has other members than the spec's")
        signer = Token(f"bg-{id_[:8]}", SigningKey.of(request["signer"], "the requester's key"))
        if not signer.key.signed(signature, data):
            raise Problem("the request's signature is not its signer's")
        before = [opening.signer.name for opening in self.openings.values()]
        if signer.key.id in self.tokens or signer.key.id in self.openings or signer.name in before:
            raise Problem("the request was used before, or its signer was (BG-5)")
        if self.heads.get(request["sequence"]) != request["hash"]:
            raise Problem("the request names an entry that a registered token did not write since the ceremony")
        created, expires = (moment(request[name], "the request") for name in ("created", "expires"))
        if not created < expires <= created + LONGEST_REQUEST:
            raise Problem("the request ends later than three days after it was made (BG-4)")
        times = [created]
        approving = set()
        for signed in detail["approvals"]:
            approval, data, signature = self.statement(signed, APPROVAL, APPROVAL_STATEMENT, "an approval")
            told = custody.custodians.get(approval["custodian"])
            if told is None or approval["x"] != told["x"] or approval["request"] != id_:
                raise Problem("an approval is of another request or of no custodian (BG-3)")
            if (approval["commitment"], approval["audit_key"]) != (told["commitment"], custody.signer.hex()):
                raise Problem("an approval is of another share than that custodian's, or of another log (BG-3)")
            if not SigningKey.of(told["approval_key"], "an approval key").signed(signature, data):
                raise Problem(f"an approval is not signed by custodian {approval['custodian']!a} (BG-3)")
            times.append(moment(approval["time"], "an approval"))
            approving.add(approval["custodian"])
        if not created - DAY <= min(times) <= max(times) <= expires:
            raise Problem("an approval was given when the request had ended, or was not made yet (BG-4)")
        if not max(times) - DAY <= moment(entry["time"], "it") <= expires:
            raise Problem("the request had ended, or was not made or approved yet (BG-4)")
        if len(approving) != len(detail["approvals"]) or len(approving) < custody.threshold:
            raise Problem("there are not as many approvals, of different custodians, as it takes (BG-2)")
        return Opening(id_, request["expires"], signer, self.introduction(detail["token"]) if practice else None)

    def of_guest(self, guest: Opening, entry: dict[str, Any] | None, trust: bytes) -> None:
        if trust != self.trust:
            raise Problem("a guest changed the trust state")
        if entry is None:
            return
        if entry["time"] > guest.expires:
            raise Problem("a guest wrote it when the request had ended (BG-4)")
        if entry["action"] != "breakglass.close" or entry["detail"] != {"request": guest.request}:
            raise Problem("a guest may only write sealed entries and the end of its own run")
        self.guest = None


def without_rows(detail: dict[str, Any]) -> dict[str, Any]:
    """Any entry may tell which rows it wrote and deleted; `check` compares that with the rows."""
    return {name: value for name, value in detail.items() if name not in ("writes", "deletes")}


# --- The file -------------------------------------------------------------------------------------------------------


@contextmanager
def opened(vault: Path) -> Iterator[sqlite3.Connection]:
    """The file, read only, as of one moment."""
    path = vault.resolve(strict=True)
    if not stat.S_ISREG(path.stat().st_mode):
        raise Problem(f"{str(vault)!a} is not a file", "name the vault file or a backup of it", USAGE)
    beside = [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")]
    there = [other for other in beside if os.path.lexists(other)]
    if any(not stat.S_ISREG(os.lstat(other).st_mode) for other in there):
        raise Problem("beside the file lies a journal that is not a regular file", "copy the vault file elsewhere")
    # Without a journal the file is complete by itself, and immutable=1 lets SQLite read it where it may create nothing.
    # With one it would be wrong: the newest entries are in the WAL, and immutable ignores it.
    uri = path.as_uri() + ("?mode=ro" if there else "?mode=ro&immutable=1")
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA query_only = ON")
        db.execute("BEGIN")  # one snapshot, though the vault be in use
        verify_schema(db)
        yield db


def verify_schema(db: sqlite3.Connection) -> None:
    """Before any other query: a view or trigger of the file's own must never run."""
    for pragma, wanted in (("application_id", [APPLICATION_ID]), ("user_version", SCHEMAS), ("encoding", ["UTF-8"])):
        if db.execute(f"PRAGMA {pragma}").fetchone()[0] not in wanted:
            raise Problem(f"not a medcrypt vault of schema 1 or 2: {pragma} is not {' or '.join(map(repr, wanted))}")
    schema = SCHEMAS[db.execute("PRAGMA user_version").fetchone()[0]]
    statements = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema")]
    if len(statements) != len(schema) or set(statements) != schema:
        raise Problem("the file's schema is not as the spec says")
    if db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
        raise Problem("SQLite's own check finds the file damaged")


TrustRows = dict[tuple[str, str], dict[str, Any]]


def read_trust(db: sqlite3.Connection) -> tuple[TrustRows, bytes]:
    """All rows of the trust state, and their digest."""
    digest, rows = hashlib.sha256(ctx("medcrypt/trust")), {}
    for kind, name, value in db.execute("SELECT kind, name, value FROM trust ORDER BY kind, name"):
        if not (isinstance(kind, str) and isinstance(name, str) and isinstance(value, bytes)):
            raise Problem("a trust row is not as the schema says")
        digest.update(ctx(kind, name, value))
        rows[kind, name] = canonical_object(value, f"trust row {kind!a} {name!a}")
    return rows, digest.digest()


def row_of(rows: TrustRows, kind: str, name: str, form: Form) -> dict[str, Any]:
    if (kind, name) not in rows:
        raise Problem(f"the trust state has no row {kind!a} {name!a}")
    return shaped(rows[kind, name], form, f"trust row {kind!a} {name!a}")


def breakglass_key(rows: TrustRows, custody: Custody) -> str:
    """Its row must tell what the ceremony's entry told."""
    row = row_of(rows, "breakglass", "", BREAKGLASS_ROW)
    told = (row["audit_key"], row["ceremony"], row["entry"], row["since"], row["threshold"])
    if told != (custody.signer.hex(), custody.ceremony, custody.entry, custody.time, custody.threshold):
        raise Problem("the break-glass row is not that of the ceremony's entry")
    if sha256(bytes.fromhex(row["key"])).hex() != custody.key:
        raise Problem("the break-glass key on record is not the one that the ceremony's entry names")
    return str(row["key"])


def custodians_by_x(rows: TrustRows, custody: Custody) -> dict[int, str]:
    """Their names. Each row must tell what the ceremony's entry told."""
    if {name for kind, name in rows if kind == "custodian"} != set(custody.custodians):
        raise Problem("the custodians' rows are not those of the ceremony's entry")
    for name, told in custody.custodians.items():
        row = row_of(rows, "custodian", name, CUSTODIAN_ROW)
        if any(row[member] != told[member] for member in ("approval_key", "commitment", "x")):
            raise Problem(f"the row of custodian {name!a} is not what the ceremony's entry told")
    return {told["x"]: name for name, told in custody.custodians.items()}


@dataclass
class Vault:
    """A verified file: from the first entry to the newest head, and the trust state that this head signed."""

    db: sqlite3.Connection
    log: Log
    rows: TrustRows
    custody: Custody
    key: str  # the break-glass key
    custodians: dict[int, str]  # their names by x

    @classmethod
    def verify(cls, db: sqlite3.Connection) -> Vault:
        rows, digest = read_trust(db)
        if "unfinished" in rows.get(("vault", ""), {}):
            raise Problem("the vault was never finished", "`medcrypt vault create` was interrupted: it holds nothing")
        vault = row_of(rows, "vault", "", VAULT_ROW)
        log = Log(bytes.fromhex(vault["id"]))
        for row in db.execute("SELECT sequence, stored, hash, trust, signer, signature FROM entries ORDER BY sequence"):
            try:
                log.append(row)
            except Problem as problem:
                raise Problem(f"entry {log.sequence + 1}: {problem.what}", problem.hint) from None
        if not log.sequence:
            raise Problem("the log is empty")
        if digest != log.trust:
            raise Problem("the trust state is not the one that the newest head signed")
        if (vault["generation"], vault["log_key"]) != (log.generation, log.generation):
            raise Problem("the vault row's generation or log key is not that of the log")
        if log.highest_log_key > log.generation:
            raise Problem("an entry is sealed under a log key that was not made yet")
        if log.custody is None:
            raise Problem("this vault has no break-glass ceremony", "only its tokens open it, or a newer copy of it")
        key, custodians = breakglass_key(rows, log.custody), custodians_by_x(rows, log.custody)
        return cls(db, log, rows, log.custody, key, custodians)

    @property
    def id(self) -> bytes:
        return self.log.vault

    def escrow(self) -> bytes:
        row = row_of(self.rows, "escrow", "", ESCROW_ROW)
        if (row["ceremony"], row["generation"]) != (self.custody.ceremony, self.log.generation):
            raise Problem("the escrow is not of the present ceremony and generation")
        return bytes.fromhex(row["sealed"])

    def months(self) -> dict[str, str]:
        """month → when it was shredded, or empty; oldest first."""
        months = {name: row_of(self.rows, kind, name, MONTH_ROW) for kind, name in self.rows if kind == "month"}
        if not months or not all(re.fullmatch(MONTH, month) for month in months):
            raise Problem("the trust state has no month, or a row of one that is none")
        return {month: str(row["shredded"]) for month, row in sorted(months.items())}


# --- Shares ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """As read from a file: not yet believed."""

    file: str
    vault: str
    ceremony: str
    audit_key: str
    x: int
    threshold: int
    of: int
    y: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Share:
        what = f"share file {str(path)!a}"
        with open_unwaited(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(LARGEST_SHARE + 1)
        if stat.S_ISREG(mode) and mode & 0o077:
            print(f"warning: {what} can be read by others: chmod 600 it, and destroy it afterwards", file=sys.stderr)
        value = canonical_object(content.removesuffix(b"\n").removesuffix(b"\r"), what, OTHER_SHARE)
        value = shaped(value, SHARE, what, OTHER_SHARE)
        if value["version"] != 1:
            raise Problem(f"{what} is of a version that this program does not know", OTHER_SHARE)
        del value["version"]
        return cls(file=ascii(str(path)), **value | {"y": bytes.fromhex(value["y"])})

    def commitment(self) -> bytes:
        ids = [bytes.fromhex(id_) for id_ in (self.vault, self.ceremony, self.audit_key)]
        return sha256(ctx("medcrypt/share", *ids, bytes([self.x]), bytes([self.threshold]), bytes([self.of]), self.y))


def believe(shares: Sequence[Share], vault: Vault) -> dict[int, str]:
    """The custodians by x whose shares these are. Each share is one of the present ceremony, unaltered, and enough.

    So is the file: the shares name the key that signed the ceremony, and everything after the ceremony follows from it.
    """
    custody, custodians = vault.custody, vault.custodians
    for share in shares:
        what = f"share {share.file}"
        if share.vault != vault.id.hex():
            raise Problem(f"{what} is of another vault, {share.vault}", "find the file of that vault, or its share")
        if share.ceremony != custody.ceremony:
            old = "an earlier" if share.ceremony in vault.log.ceremonies else "an unknown"
            what += f" is of {old} ceremony, {share.ceremony}: this file's is {custody.ceremony}"
            raise Problem(what, "an earlier ceremony's shares open copies of the file from before the present one")
        if share.x not in custodians:
            # x = 0 is the secret itself: whoever brought that share would choose what comes out.
            raise Problem(f"{what} has x = {share.x}: there are 1 to {len(custodians)}", OTHER_SHARE)
        name = custodians[share.x]
        if share.audit_key != custody.signer.hex():
            what += f" names another audit key than signed the ceremony (entry {custody.entry})"
            raise Problem(what, "if all shares say so, this file is a forgery; otherwise this share was altered")
        if (share.threshold, share.of) != (custody.threshold, len(custodians)):
            what += (
                f" is one of {share.threshold} of {share.of}, the ceremony of {custody.threshold} of {len(custodians)}"
            )
            raise Problem(what, OTHER_SHARE)
        if share.commitment().hex() != custody.custodians[name]["commitment"]:
            raise Problem(f"{what} is not the one that custodian {name!a} was given: it was altered", OTHER_SHARE)
    given = {share.x: custodians[share.x] for share in shares}
    if len(given) != len(shares):
        twice = next(share for share in shares if sum(share.x == other.x for other in shares) > 1)
        raise Problem(f"the share of custodian {custodians[twice.x]!a} was given twice", "give each share once")
    if len(given) < custody.threshold:
        absent = ", ".join(ascii(name) for x, name in custodians.items() if x not in given)
        raise Problem(f"{len(given)} shares were given, {custody.threshold} are needed", f"others have: {absent}")
    return given


def product(a: int, b: int) -> int:
    """In GF(2^8), x^8 + x^4 + x^3 + x + 1."""
    result = 0
    while b:
        if b & 1:
            result ^= a
        a, b = (a << 1) ^ (0x11B if a & 0x80 else 0), b >> 1
    return result


def inverse(a: int) -> int:
    result = 1
    for _ in range(254):
        result = product(result, a)
    return result


def combine(points: Mapping[int, bytes]) -> bytes:
    """f(0) of each byte, by Lagrange interpolation. Subtraction is XOR."""
    seed = bytearray(32)
    for x, y in points.items():
        weight = 1
        for other in points:
            if other != x:
                weight = product(weight, product(other, inverse(other ^ x)))
        for i, byte in enumerate(y):
            seed[i] ^= product(byte, weight)
    return bytes(seed)


def open_escrow(vault: Vault, shares: Sequence[Share]) -> Keyset:
    """Shares → seed → X-Wing key → vault keyset."""
    seed = combine({share.x: share.y for share in shares[: vault.custody.threshold]})
    expanded = hashlib.shake_256(seed).digest(96)
    try:
        post_quantum = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    except UnsupportedAlgorithm:
        hint = "install cryptography from its own wheel: python3 -m pip install 'cryptography>=50'"
        raise Problem("this machine's cryptography does not know ML-KEM", hint, USAGE) from None
    classical = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
    public = post_quantum.public_key().public_bytes_raw() + classical.public_key().public_bytes_raw()
    if public.hex() != vault.key:
        raise Problem("the shares are right, but do not give the break-glass key on record", OTHER_COPY)
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    info = ctx("medcrypt/escrow", vault.id, u64(vault.log.generation), bytes.fromhex(vault.custody.ceremony))
    try:
        keys = suite.decrypt(vault.escrow(), MLKEM768X25519PrivateKey(post_quantum, classical), info)
    except (InvalidTag, ValueError):
        raise Problem("the escrow does not open with the break-glass key") from None
    return Keyset(vault, keys[:32], keys[32:64], keys[64:])


# --- Rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keyset:
    """The vault's three keys, and what they open."""

    vault: Vault
    wrapping: bytes = field(repr=False)
    mac: bytes = field(repr=False)
    sealing: bytes = field(repr=False)

    def records(self, purpose: str, pairing: bytes, month: str | None = None) -> Iterator[tuple[str, bytes]]:
        """(month, key) of a purpose and pairing, newest first."""
        query = "SELECT purpose, pairing, month, sequence, wrapped, mac FROM records WHERE purpose = ? AND pairing = ?"
        for row in self.vault.db.execute(f"{query} ORDER BY month DESC", (purpose, pairing)).fetchall():
            if month in (None, row[2]):
                yield row[2], self.unwrap(*row)

    def unwrap(self, purpose: str, pairing: bytes, month: str, sequence: int, wrapped: bytes, told: bytes) -> bytes:
        what = f"the {purpose} key of {pairing.hex() or 'the vault'} {month}".rstrip()
        data = ctx("medcrypt/record", purpose, self.vault.id, pairing, month, u64(sequence), wrapped)
        if not hmac.compare_digest(mac(self.mac, data), told):
            raise Problem(f"{what} was altered")
        try:
            key = keywrap.aes_key_unwrap(self.wrapping, wrapped)
        except keywrap.InvalidUnwrap:
            raise Problem(f"{what} does not unwrap") from None
        if len(key) != 32:
            raise Problem(f"{what} has another length than a key")
        return key

    def sealed(self, purpose: str) -> Iterator[tuple[bytes, dict[str, Any] | Problem]]:
        """(pairing, value) of every sealed row of a purpose, or what is wrong with it."""
        query = "SELECT pairing, lookup, sequence, nonce, body FROM sealed WHERE purpose = ? ORDER BY pairing"
        for pairing, *row in self.vault.db.execute(query, (purpose,)).fetchall():
            try:
                yield pairing, self.open(purpose, pairing, *row)
            except Problem as problem:
                yield pairing, problem

    def open(
        self, purpose: str, pairing: bytes, lookup: bytes, sequence: int, nonce: bytes, body: bytes
    ) -> dict[str, Any]:
        what = f"the {purpose} row of {pairing.hex()}"
        aad = ctx("medcrypt/sealed", purpose, self.vault.id, pairing, lookup, u64(sequence))
        value = canonical_object(unseal(self.sealing, nonce, body, aad, what), what)
        if purpose == "patient":
            shaped(value, PATIENT, what)
        due = mac(self.mac, ctx("medcrypt/lookup", self.vault.id, value["id"])) if purpose == "patient" else b""
        if lookup != due:
            raise Problem(f"{what} is found by another patient's id")
        return value

    def hold(self, name: str) -> None:
        """It opens."""
        row = row_of(self.vault.rows, "hold", name, HOLD_ROW)
        if not re.fullmatch(hexes(8), name):
            raise Problem(f"hold {name!a} has no name of a hold")
        sealed, nonce = bytes.fromhex(row["sealed"]), bytes.fromhex(row["nonce"])
        self.open("hold", bytes.fromhex(name), b"", row["sequence"], nonce, sealed)

    def entries(self) -> Iterator[tuple[int, bytes, dict[str, Any] | Problem]]:
        """(sequence, hash, entry) of the whole log, or what is wrong with it. The chain was verified before."""
        keys: dict[int, bytes | Problem] = {}
        latest = ""
        query = "SELECT sequence, stored, hash, signer FROM entries ORDER BY sequence"
        for sequence, stored, hash_, signer in self.vault.db.execute(query):
            try:
                entry = self.entry(sequence, stored, keys)
                guest = self.vault.log.openings.get(signer)
                if guest and stored[0] == 1:
                    self.of_guest(sequence, entry, guest)
                token = guest.signer if guest else self.vault.log.tokens[signer]
                if entry["token"] != token.name:
                    raise Problem(f"entry {sequence} names another token than signed it")
                if entry["time"] < latest:
                    raise Problem(f"entry {sequence} has a time before an earlier one's")
                latest = entry["time"]
                yield sequence, hash_, entry
            except Problem as problem:
                yield sequence, hash_, problem

    def of_guest(self, sequence: int, entry: dict[str, Any], guest: Opening) -> None:
        if entry["action"] not in GUEST_ACTIONS or {"writes", "deletes"} & set(entry["detail"]):
            raise Problem(f"entry {sequence} is of a guest, who may not write it")
        if entry["time"] > guest.expires:
            raise Problem(f"entry {sequence} was written by a guest when the request had ended (BG-4)")

    def entry(self, sequence: int, stored: bytes, keys: dict[int, bytes | Problem]) -> dict[str, Any]:
        what, body = f"entry {sequence}", stored[1:]
        if stored[0] == 1:
            number = int.from_bytes(stored[1:5], "big")
            if number not in keys:
                try:
                    keys[number] = next((key for _, key in self.records("log", b"", f"{number:08}")), None) or Problem(
                        f"log key {number} is not in the vault: what is sealed under it stays closed"
                    )
                except Problem as problem:
                    keys[number] = problem
            key = keys[number]
            if isinstance(key, Problem):
                raise Problem(f"{what}: {key.what}", key.hint)
            aad = ctx("medcrypt/audit/sealed", self.vault.id, u64(sequence), u64(number))
            body = unseal(key, stored[5:17], stored[17:], aad, what)
        return shaped(canonical_object(body, what), ENTRY, what)


def unseal(key: bytes, nonce: bytes, sealed: bytes, aad: bytes, what: str) -> bytes:
    try:
        if len(nonce) == 12:
            return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        pass
    raise Problem(f"{what} was altered: it does not open")


# --- Messages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One well-formed wire text. Nothing in it is to be believed before it opens."""

    text: str
    aad: bytes
    nonce: bytes
    sealed: bytes
    patient: str = ""  # version 1
    pairing: bytes = b""  # version 2, and all below
    month: str = ""
    sender: str = ""
    index: int = 1
    count: int = 1
    id: str = ""


@dataclass(frozen=True)
class Plaintext:
    text: str
    about: str


def unb64(text: str, length: int | None = None, *, padded: bool = False) -> bytes:
    """Strict: only the one canonical text of these bytes, else two wire texts could mean the same message."""
    raw = base64.b64decode(text if padded else text + "=" * (-len(text) % 4), validate=True)
    encoded = base64.b64encode(raw).decode()
    if (encoded if padded else encoded.rstrip("=")) != text or length not in (None, len(raw)):
        raise ValueError("not canonical base64 of the length due")
    return raw


def parse_message(inner: str) -> Message:
    """What lies between [ and ]."""
    text = f"[{inner}]"
    try:
        _, version, *fields = inner.split(":")
        if version == "v1" and len(fields) == 4:
            carried, nonce, ciphertext, tag = (unb64(value, padded=True) for value in fields)
            patient = carried.decode()
            if not 1 <= len(carried) <= 128 or re.search("[\x00-\x1f\x7f-\x9f]", patient):
                raise ValueError("no patient id")
            if (len(nonce), len(tag)) == (12, 16):
                return Message(text, carried, nonce, ciphertext + tag, patient)
        if version == "v2" and len(fields) == 7 and len(text) <= MAX_WIRE:
            whose, month, sender, part, *binary = fields
            number = "([1-9][0-9]{0,2})"
            match = re.fullmatch(rf"{number}\.{number}(?:\.([A-Za-z0-9+/]{{6}}))?", part)
            if match and sender in ("d", "p") and re.fullmatch(MONTH, month):
                index, count, id_ = int(match[1]), int(match[2]), match[3] or ""
                if index <= count and (count > 1) == bool(id_) == bool(unb64(id_)):
                    aad = inner.rsplit(":", 3)[0].encode("ascii")
                    sealed = unb64(binary[1]) + unb64(binary[2], 16)
                    pairing, nonce = unb64(whose, 8), unb64(binary[0], 12)
                    return Message(text, aad, nonce, sealed, "", pairing, month, sender, index, count, id_)
    except ValueError:
        pass
    raise Problem("malformed message", ASK_RESEND)


def find_messages(text: str) -> Iterator[Message | Problem]:
    """Every candidate in its place; what is around them is chat and is ignored."""
    for number, match in enumerate(re.finditer(r"\[(MEDCRYPT:[^\[\]]*)(\]?)", text)):
        if number == MOST_MESSAGES:
            yield Problem(f"more than {number:,} messages in one text: the rest was not read", "give it in pieces")
            return
        try:
            if not match[2]:
                raise Problem("malformed message: its end is missing", ASK_RESEND)
            yield parse_message(match[1])
        except Problem as problem:
            yield problem


class Reader:
    """Opens messages of every month whose keys the vault has, whatever the clock says."""

    def __init__(self, keyset: Keyset, months: Sequence[str]) -> None:
        self.keyset, self.vault, self.named = keyset, keyset.vault, months
        self.months = self.vault.months()
        rows = list(keyset.sealed("patient"))
        self.patients = {pairing: row for pairing, row in rows if not isinstance(row, Problem)}
        self.unreadable = {pairing: row for pairing, row in rows if isinstance(row, Problem)}
        self.v1_secrets = dict(keyset.sealed("v1-secret"))
        self.keys: dict[tuple[bytes, str], bytes] = {}
        self.read: dict[tuple[bytes, str, bytes], str] = {}  # texts of this run by pairing, month and nonce
        self.seen_root = b""
        try:
            self.seen_root = next((key for _, key in keyset.records("seen", b"", "")), b"")
        except Problem as problem:  # no reason to leave a patient's messages unread
            print(f"warning: {problem.what}: which texts were read before is not known", file=sys.stderr)

    def refuse_shredded(self, month: str) -> None:
        if when := self.months.get(month):
            raise Problem(f"the keys of {month} were shredded on purpose, {when}", "nothing reads that month any more")

    def open(self, message: Message) -> tuple[bytes, str, bytes]:
        """(pairing, month, plaintext), authentic. Whatever is wrong is a Problem."""
        if message.patient:
            return self.open_v1(message)
        key = self.v2_key(message.pairing, message.month)
        return message.pairing, message.month, decrypted(key, message)

    def v2_key(self, pairing: bytes, month: str) -> bytes:
        if pairing in self.unreadable:
            raise self.unreadable[pairing]
        patient = self.patients.get(pairing)
        if patient is None or patient["protocol"] != "v2":
            raise Problem(f"of pairing {pairing.hex()}, which this vault does not have", "is it another practice's?")
        self.refuse_shredded(month)
        if (pairing, month) not in self.keys:
            self.keys[pairing, month] = self.kept(pairing, month) or self.derived(pairing, month)
        return self.keys[pairing, month]

    def kept(self, pairing: bytes, month: str) -> bytes | None:
        return next((key for _, key in self.keyset.records("message", pairing, month)), None)

    def derived(self, pairing: bytes, month: str) -> bytes:
        """The key of a month after the newest that was opened. There is no way back to an earlier month's."""
        for here, chain in self.keyset.records("chain", pairing):
            while here < month:
                here = next_month(here)
                chain = mac(chain, ctx("medcrypt/v2/chain", pairing, here) + b"\x01")
                if here == month:
                    return mac(chain, ctx("medcrypt/v2/message", pairing, month) + b"\x01")
        what = f"the vault has no key of {self.patients[pairing]['id']!a} for {month}"
        raise Problem(what, "the pairing was not in use then, or the key is lost: see what `check` says")

    def open_v1(self, message: Message) -> tuple[bytes, str, bytes]:
        """A version 1 message carries no month: each that may be is tried, the newest first."""
        pairings = self.v1_pairings(message.patient)
        if not pairings:
            nobody = Problem("of a patient who has no version 1 pairing in this vault", "is it another practice's?")
            raise next(iter(self.unreadable.values()), nobody)
        wrong = Problem(
            "not authentic under the version 1 keys of any month that may be read",
            "name its month with --month if it is older than the vault; or copy it again, from [ to ]",
        )
        for pairing in pairings:
            for month in self.v1_months():
                try:
                    key = self.v1_key(pairing, month)
                except Problem as problem:  # another month's key may be the right one
                    wrong = problem
                    continue
                if key is not None:
                    with suppress(Problem):
                        return pairing, month, decrypted(key, message)
        raise wrong

    def v1_pairings(self, patient: str) -> list[bytes]:
        """The active one first, then the newest."""
        found = [
            (row["state"] == "active", row["added"], pairing)
            for pairing, row in self.patients.items()
            if (row["protocol"], row["id"]) == ("v1", patient)
        ]
        return [pairing for *_, pairing in sorted(found, reverse=True)]

    def v1_months(self) -> list[str]:
        """Those named, or all that were opened and those since. The secret would give a shredded month's key again."""
        if self.named:
            months = list(self.named)
            for month in months:
                self.refuse_shredded(month)
            return months
        months = list(self.months)
        this = f"{datetime.now(UTC):%Y-%m}"
        while months[-1] < this < "2100":
            months.append(next_month(months[-1]))
        return [month for month in reversed(months) if not self.months.get(month)]

    def v1_key(self, pairing: bytes, month: str) -> bytes | None:
        if (pairing, month) not in self.keys:
            key = self.kept(pairing, month)
            if key is None:
                secret = self.v1_secrets.get(pairing)
                if isinstance(secret, Problem):
                    raise secret
                if secret is None:
                    return None
                carried = str(secret.get("secret", "")).encode()
                salt = mac(carried, month.encode())[:16]
                key = hashlib.pbkdf2_hmac("sha256", carried, salt, V1_ROUNDS, 32)
            self.keys[pairing, month] = key
        return self.keys[pairing, month]

    def seen(self, pairing: bytes, month: str, message: Message) -> bool:
        """Was this very text read before? Raises Problem where another one was seen under its nonce."""
        reused = Problem("refused: its nonce was used before for another text", "authentic, but somebody replays it")
        if self.read.setdefault((pairing, month, message.nonce), message.text) != message.text:
            raise reused
        read = False
        # A version 1 text was looked up before its month was known, under whichever pairing the patient had then.
        for under in self.v1_pairings(message.patient) if message.patient else [pairing]:
            key = mac(self.seen_root, ctx("medcrypt/seen", self.vault.id, under, message.month))
            nonce = mac(key, ctx("medcrypt/seen/nonce", message.nonce))[:16]
            query = "SELECT digest FROM seen WHERE pairing = ? AND month = ? AND nonce = ?"
            row = self.vault.db.execute(query, (under, message.month, nonce)).fetchone()
            known = [mac(key, ctx(f"medcrypt/seen/{how}", message.text))[:16] for how in ("read", "sent")]
            if row is not None and row[0] not in known:
                raise reused
            read = read or (row is not None and row[0] == known[0])
        return read

    def read_all(self, text: str) -> list[Plaintext | Problem]:
        """Every message of the text, its parts joined, at the place of its first part; all of it or none of it."""
        results: dict[int, Plaintext | Problem] = {}
        groups: dict[object, list[tuple[int, Message]]] = {}
        for place, found in enumerate(find_messages(text)):
            if isinstance(found, Problem):
                results[place] = found
                continue
            whole = (found.pairing, found.month, found.sender, found.id, found.count)
            groups.setdefault(whole if found.count > 1 else place, []).append((place, found))
        for group in groups.values():
            genuine = []
            for place, message in group:
                try:
                    genuine.append((place, message, *self.open(message)))
                except Problem as problem:  # a forged part must not spoil the message that it claims to be a part of
                    results[place] = problem
            if genuine:
                try:
                    results[genuine[0][0]] = self.joined([tuple_[1:] for tuple_ in genuine])
                except Problem as problem:
                    results[genuine[0][0]] = problem
        return [results[place] for place in sorted(results)]

    def joined(self, group: Sequence[tuple[Message, bytes, str, bytes]]) -> Plaintext:
        """One message from its authentic parts."""
        first, pairing, month, _ = group[0]
        before = [self.seen(pairing, month, message) for message, *_ in group]
        parts: dict[int, tuple[str, bytes]] = {}
        for message, _, _, plaintext in group:
            if parts.setdefault(message.index, (message.text, plaintext))[0] != message.text:
                raise Problem(f"malformed: part {message.index} comes twice and differs", ASK_RESEND)
        missing = [str(i) for i in range(1, first.count + 1) if i not in parts]
        if missing:
            what = f"incomplete: missing of its {first.count} parts: {', '.join(missing)}"
            raise Problem(what, "give all parts together, in any order")
        try:
            text = b"".join(parts[i][1] for i in sorted(parts)).decode()
        except UnicodeDecodeError:
            raise Problem("malformed: authentic, but not text", "it was written by a faulty program") from None
        patient = self.patients[pairing]
        about = f"patient {patient['id']!a}, from {SENDERS[first.sender]}, {month}"
        if patient["state"] == "pending" or (patient["protocol"] == "v2" and not patient["confirmed"]):
            about += ", PAIRING NOT CONFIRMED: nobody compared its check code"
        return Plaintext(text, about + (", seen before" if all(before) else ""))


def decrypted(key: bytes, message: Message) -> bytes:
    try:
        return AESGCM(key).decrypt(message.nonce, message.sealed, message.aad)
    except InvalidTag:
        raise Problem("not authentic: altered on the way, or under another key", ASK_RESEND) from None


# --- Commands -------------------------------------------------------------------------------------------------------


def check(keyset: Keyset, options: argparse.Namespace) -> int:
    """Open everything and compare it with the log; show no secret."""
    vault, failed = keyset.vault, []
    counts = dict.fromkeys(("message", "chain", "log", "seen", "patient", "qr", "v1-secret"), 0)
    rows: dict[str, int] = {}
    for purpose, pairing, month, sequence, *key in vault.db.execute("SELECT * FROM records"):
        rows[f"record:{purpose}:{pairing.hex()}:{month}"] = sequence
        failed += attempt(lambda row: keyset.unwrap(*row), (purpose, pairing, month, sequence, *key))
        counts[purpose] = counts.get(purpose, 0) + 1
    for purpose, pairing, lookup, sequence, *sealed in vault.db.execute("SELECT * FROM sealed"):
        rows[f"sealed:{purpose}:{pairing.hex()}"] = sequence
        failed += attempt(lambda row: keyset.open(*row), (purpose, pairing, lookup, sequence, *sealed))
        counts[purpose] = counts.get(purpose, 0) + 1
    holds = [name for kind, name in vault.rows if kind == "hold"]
    for name in holds:
        failed += attempt(keyset.hold, name)
    told: dict[str, int] = {}
    opened_entries = 0
    for sequence, _, entry in keyset.entries():
        if isinstance(entry, Problem):
            failed.append(entry)
            continue
        opened_entries += 1
        told |= dict.fromkeys(mentioned(entry, "writes"), sequence)
        told |= dict.fromkeys(mentioned(entry, "deletes"), 0)
    if opened_entries == vault.log.sequence:
        for ref in sorted(rows.keys() | told):
            due, there = told.get(ref, 0), rows.get(ref, 0)
            if due != there:
                failed.append(Problem(f"row {ref} is {said(there)}, but the log has it {said(due)}"))
    else:
        failed.append(Problem("rows were not compared with the log, since not every entry is as it should be"))
    patients = [row for _, row in keyset.sealed("patient") if not isinstance(row, Problem)]
    months = vault.months()
    kept = [month for month in months if not months[month]]
    custody = vault.custody
    emit(
        f"vault {vault.id.hex()}: {vault.log.sequence} entries, their hashes and signatures as they should be\n"
        f"ceremony {custody.ceremony} of {custody.time}, entry {custody.entry}: {custody.threshold} of "
        f"{len(custody.custodians)} custodians; shares of {', '.join(map(ascii, options.given.values()))}\n"
        f"keyset {vault.log.generation} opened from the escrow\n"
        f"months kept: {len(kept)} ({', '.join(kept)}); shredded: {len(months) - len(kept)}\n"
        f"pairings: {counts['patient']}, of {len({row['id'] for row in patients})} patients\n"
        f"keys: {counts['message']} message, {counts['chain']} chain, {counts['log']} log, {counts['seen']} seen; "
        f"version 1 secrets: {counts['v1-secret']}; pairing codes: {counts['qr']}; holds: {len(holds)}\n"
        f"entries opened: {opened_entries} of {vault.log.sequence}\n"
    )
    for problem in failed:
        complain(problem)
    emit("not everything opens\n" if failed else "everything opens, and every row is the one that the log tells of\n")
    return NOT_OPENED if failed else 0


def attempt(act: Callable[[Any], object], argument: object) -> list[Problem]:
    try:
        act(argument)
    except Problem as problem:
        return [problem]
    return []


def mentioned(entry: dict[str, Any], name: str) -> list[str]:
    refs = entry["detail"].get(name, [])
    return [ref for ref in refs if isinstance(ref, str)] if isinstance(refs, list) else []


def said(sequence: int) -> str:
    return f"of entry {sequence}" if sequence else "not there"


def patients(keyset: Keyset, options: argparse.Namespace) -> int:
    """One line for each pairing, columns set apart by tabs."""
    code, lines = 0, []
    for pairing, row in keyset.sealed("patient"):
        if isinstance(row, Problem):
            code = complain(row)
            continue
        columns = (row["id"], row["label"], pairing.hex(), row["protocol"], row["first"], row["state"])
        lines.append("\t".join(visible(column, "") for column in columns))
    emit("".join(f"{line}\n" for line in ["id\tlabel\tpairing\tprotocol\tfirst month\tstate", *sorted(lines)]))
    return code


def log(keyset: Keyset, options: argparse.Namespace) -> int:
    """The form of `medcrypt audit export`: JSON Lines, each entry with its sequence and hash."""
    code = 0
    for sequence, hash_, entry in keyset.entries():
        if isinstance(entry, Problem):
            code = complain(entry)
            continue
        texts = {name: entry[name] for name in ("time", "actor", "token", "action", "subject", "outcome")}
        line = {"sequence": sequence, **texts, "detail": entry["detail"], "hash": hash_.hex()}
        emit(json.dumps(line, ensure_ascii=True) + "\n")  # ASCII: nothing in it can end a line or steer a terminal
    return code


def read(keyset: Keyset, options: argparse.Namespace) -> int:
    results = Reader(keyset, options.month).read_all(options.text)
    if not results:
        raise Problem("no message in this text", "give it whole messages, from [MEDCRYPT: to ]")
    code, terminal = 0, sys.stdout.isatty()
    for number, result in enumerate(results, 1):
        which = f"message {number} of {len(results)}: "
        if isinstance(result, Problem):
            code = complain(result, which)
            continue
        # The length lets a program find the end of a text that holds a line like this one.
        emit(f"== {which}{result.about}, {len(result.text.encode())} bytes ==\n")
        emit((lines(result.text) if terminal else result.text) + "\n")
    return code


COMMANDS: dict[str, Callable[[Keyset, argparse.Namespace], int]] = {
    "check": check,
    "patients": patients,
    "read": read,
    "log": log,
}


def visible(text: str, kept: str = "\n\t") -> str:
    """What could move the cursor, recolour, reorder or hide text is shown as its escape."""

    def harmless(char: str) -> bool:
        # The joiners belong to emoji and to Persian and Indic spelling.
        return char in kept + "\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn")

    return "".join(c if harmless(c) else c.encode("unicode_escape").decode() for c in text)


def lines(text: str) -> str:
    """Every line set off, so that a message cannot draw a header of its own."""
    return "\n".join(f"| {line}" for line in visible(text.removesuffix("\n")).split("\n"))


def complain(problem: Problem, where: str = "") -> int:
    # What is wrong may be told with a text from the file, which could hold escape sequences.
    print(f"error: {where}{visible(problem.what, '')}\nhint: {visible(problem.hint, '')}", file=sys.stderr, flush=True)
    return problem.code


def emit(data: str) -> None:
    sys.stdout.buffer.write(data.encode("utf-8", "backslashreplace"))  # bytes: no surprise from the locale
    sys.stdout.flush()


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(message, f"see {self.prog} --help", USAGE)


def month_argument(text: str) -> str:
    if not re.fullmatch(MONTH, text):
        raise argparse.ArgumentTypeError("a month is YYYY-MM")
    return text


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="recover.py",
        description="Open a medcrypt vault with custodians' plain shares.",
        epilog="check opens everything and shows no secret; patients lists the pairings; read shows what the messages "
        "in a text say; log shows the audit log as JSON lines.",
    )
    parser.add_argument("command", choices=[*COMMANDS])
    parser.add_argument("vault", type=Path, metavar="VAULT", help="vault file or backup; it is only read")
    parser.add_argument("--share", type=Path, action="append", required=True, metavar="FILE",
                        help="a custodian's plain share (repeatable)")  # fmt: skip
    parser.add_argument("--in", dest="input", type=Path, metavar="FILE", help="the text for read, instead of stdin")
    parser.add_argument("--month", type=month_argument, action="append", default=[], metavar="YYYY-MM",
                        help="for read: try version 1 messages with this month's key alone (repeatable)")  # fmt: skip
    options = parser.parse_intermixed_args(argv)
    if options.command != "read" and (options.input or options.month):
        parser.error(f"{options.command} takes no such argument")
    return options


def open_unwaited(path: Path) -> BinaryIO:
    """Opening a pipe waits for nobody."""
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")


def read_input(path: Path | None) -> str:
    if path is None and sys.stdin.isatty():
        print("Type or paste the text, then Ctrl-D on a line of its own.", file=sys.stderr)
    with nullcontext(sys.stdin.buffer) if path is None else open_unwaited(path) as file:
        if path is not None and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Problem(f"{str(path)!a} is not a regular file", "name a file, or give the text on stdin", USAGE)
        raw = file.read(LARGEST_TEXT + 1)
    if len(raw) > LARGEST_TEXT:
        raise Problem("the text is too long to be read whole", "give it in pieces", USAGE)
    return raw.decode("utf-8", "replace")  # what is around the messages is ignored, whatever it is


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse_arguments(argv)
        if options.command == "read":
            options.text = read_input(options.input)
        shares = [Share.read(path) for path in options.share]
        with opened(options.vault) as db:
            vault = Vault.verify(db)
            options.given = believe(shares, vault)
            return COMMANDS[options.command](open_escrow(vault, shares), options)
    except Problem as problem:
        return complain(problem)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        return USAGE
    except OSError as error:
        return complain(Problem(f"{str(error.filename)!a}: {error.strerror}", "check the path and its rights", USAGE))
    except sqlite3.Error as error:
        hint = "copy it, and its -wal file if it has one, into a directory of your own and try that; or try a backup"
        return complain(Problem(f"not readable as a vault: {str(error)!a}", hint))
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError) as error:
        # A path or file that no vault has: Python gave up on it. Its words could hold what was in the file.
        return complain(Problem(f"not readable as a vault: {type(error).__name__}"))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
