"""Builds vault files straight from docs/spec with software P-256 keys, for the verifiers' tests.

Written from the spec alone, without the package: so a test of a verifier is not a test of the writer's own opinion.
What is sealed is random bytes in the right form: a verifier with public keys alone cannot tell the difference.
Faults are made by changing `rows`, `trust` or the file, or by building a log that no honest program would.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SCHEMA = """
CREATE TABLE trust (kind TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID;
CREATE TABLE entries (sequence INTEGER PRIMARY KEY, stored BLOB NOT NULL, hash BLOB NOT NULL, trust BLOB NOT NULL, signer BLOB NOT NULL, signature BLOB NOT NULL) STRICT;
CREATE TABLE records (purpose TEXT NOT NULL, pairing BLOB NOT NULL, month TEXT NOT NULL, sequence INTEGER NOT NULL, wrapped BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (purpose, pairing, month)) STRICT, WITHOUT ROWID;
CREATE TABLE sealed (purpose TEXT NOT NULL, pairing BLOB NOT NULL, lookup BLOB NOT NULL, sequence INTEGER NOT NULL, nonce BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY (purpose, pairing)) STRICT, WITHOUT ROWID;
CREATE INDEX sealed_lookup ON sealed (lookup);
CREATE TABLE seen (pairing BLOB NOT NULL, month TEXT NOT NULL, nonce BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (pairing, month, nonce)) STRICT, WITHOUT ROWID;
"""  # noqa: E501 - the spec's own lines
ACTIONS = {
    "Months shredded": "month.shred", "Patient erased": "patient.erase", "Token removed": "token.remove",
    "Break-glass ceremony": "breakglass.ceremony", "Break-glass rotated": "breakglass.rotate",
    "Custodian replaced": "breakglass.replace", "Practice recovered": "breakglass.recover",
}  # fmt: skip


def ctx(*parts: str | bytes) -> bytes:
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in raw)


def u64(n: int) -> bytes:
    return n.to_bytes(8, "big")


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class SoftToken:
    """An audit key in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.id = sha256(self.spki)

    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign_der(self, data: bytes) -> bytes:
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.sign_der(data))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass
class Row:
    sequence: int
    stored: bytes
    hash: bytes
    trust: bytes
    signer: bytes
    signature: bytes
    time: str


@dataclass
class VaultBuilder:
    vault: bytes = field(default_factory=lambda: os.urandom(16))
    rows: list[Row] = field(default_factory=list)
    trust: dict[tuple[str, str], bytes] = field(default_factory=dict)
    records: list[tuple[str, bytes, str, int]] = field(default_factory=list)
    seen: list[tuple[bytes, str]] = field(default_factory=list)
    generation: int = 1
    keks: dict[str, int] = field(default_factory=dict)  # token name → generation of its KEK

    def __post_init__(self) -> None:
        self.set_trust("vault", "", self.vault_row() | {"created": self.now()})
        self.set_trust("policy", "", {"grace_days": 7, "require_attestation": "none", "retain_months": 60})

    def now(self) -> str:
        return f"2026-11-{1 + len(self.rows):02}T09:00:00Z"

    def set_trust(self, kind: str, name: str, value: object) -> None:
        self.trust[kind, name] = canonical(value)

    def trust_digest(self) -> bytes:
        rows = sorted((kind.encode(), name.encode(), value) for (kind, name), value in self.trust.items())
        return sha256(ctx("medcrypt/trust", *(part for row in rows for part in row)))

    def hash_of(self, sequence: int, trust: bytes, signer: bytes, stored: bytes) -> bytes:
        """hash(i), after the row before it or, for the first, hash(0)."""
        before = self.rows[sequence - 2].hash if sequence > 1 else sha256(ctx("medcrypt/audit/genesis", self.vault))
        return sha256(ctx("medcrypt/audit/entry", before, u64(sequence), trust, signer, stored))

    def rehash(self, start: int) -> None:
        """Every hash from entry `start` on made to follow again, which needs no key; the signatures stay."""
        for row in self.rows[start - 1 :]:
            row.hash = self.hash_of(row.sequence, row.trust, row.signer, row.stored)

    def append(self, stored: bytes, by: SoftToken, *, claims: bytes | None = None) -> Row:
        """Any bytes as the next entry, its hash right and signed; `claims` is the signer's id if not `by`'s."""
        sequence, time = len(self.rows) + 1, self.now()
        trust, signer = self.trust_digest(), claims or by.id
        digest = self.hash_of(sequence, trust, signer, stored)
        signature = by.sign(ctx("medcrypt/head", self.vault, u64(sequence), digest, trust))
        self.rows.append(Row(sequence, stored, digest, trust, signer, signature, time))
        return self.rows[-1]

    def sealed(self, by: SoftToken, *, log_key: int = 1) -> Row:
        return self.append(b"\x01" + log_key.to_bytes(4, "big") + os.urandom(12 + 180 + 16), by)

    def clear(self, action: str, detail: object, by: SoftToken, /, **members: object) -> Row:
        entry: dict[str, Any] = {"action": action, "actor": "mara", "detail": detail, "outcome": "done", "subject": ""}
        return self.append(b"\x00" + canonical(entry | {"time": self.now(), "token": by.name} | members), by)

    # Rows of the trust state

    def vault_row(self, **changed: object) -> dict[str, object]:
        """Of the present generation; the log key has the same number."""
        row: dict[str, object] = {"created": "2026-11-01T09:00:00Z", "id": self.vault.hex()}
        return row | {"generation": self.generation, "log_key": self.generation} | changed

    def open_month(self, month: str, **changed: object) -> None:
        self.set_trust("month", month, {"opened": self.now(), "shredded": ""} | changed)

    def change_row(self, kind: str, name: str, **changed: object) -> None:
        self.set_trust(kind, name, json.loads(self.trust[kind, name]) | changed)

    def add_keyset(self, token: SoftToken, **changed: object) -> None:
        row = {"kek": self.keks[token.name], "token": token.id.hex(), "wrapped": "00"}
        self.set_trust("keyset", f"{self.generation}:{token.name}", row | changed)

    def add_token_row(self, token: SoftToken, name: str | None = None, **changed: object) -> None:
        row = {"audit_key": token.spki.hex(), "id": token.id.hex(), "label": "Praxis", "model": "soft",
               "profile": "aes-kw", "serial": "1", "uri": "pkcs11:", "kek": "", "touch": "never",
               "attestation": "token-claimed"}  # fmt: skip
        self.set_trust("token", name or token.name, row | changed)

    def introduce(self, token: SoftToken, by: SoftToken, *, row: bool = True, **changed: object) -> Row:
        if row:
            self.add_token_row(token)
        self.keks[token.name] = self.generation
        detail: dict[str, object] = {
            "audit_key": token.spki.hex(), "id": token.id.hex(), "name": token.name,
            "profile": "aes-kw", "serial": "1", "model": "soft", "kek": "", "attestation": "token-claimed",
        }  # fmt: skip
        return self.clear("token.introduce", detail | changed, by)

    # Re-keying

    def kek(self, **changed: object) -> dict[str, object]:
        return {"attestation": "token-claimed", "generation": self.generation, "kek": ""} | changed

    def intend(self, by: SoftToken, *, reason: str = "shred", **detail: object) -> Row:
        """Of a sync if that is the reason. The row ``rekey`` comes with it."""
        sync = reason == "sync"
        generation = self.generation + (not sync)
        begun = {"begun": self.now(), "entry": max(1, len(self.rows)), "generation": generation}
        self.set_trust("rekey", "", begun | {"phase": "intended", "reason": reason})
        told = {"generation": generation, "reason": reason} | detail
        return self.clear("vault.sync" if sync else "vault.rekey", told, by, outcome="intended")

    def undo(self, by: SoftToken, *, sync: bool = False, **detail: object) -> Row:
        self.trust.pop(("rekey", ""), None)
        told = {"generation": self.generation + (not sync)} | detail
        return self.clear("vault.sync" if sync else "vault.rekey", told, by, outcome="undone")

    def commit(
        self, by: SoftToken, *present: SoftToken, retire: tuple[SoftToken, ...] = (), shred: tuple[str, ...] = (),
        erase: tuple[str, ...] = (), drop: tuple[str, ...] = (), **detail: object
    ) -> Row:  # fmt: skip
        """``vault.rekey``, ``done``, with the rows that follow from it. ``present``: the tokens with new KEKs.

        ``detail`` changes what the entry tells, and ``drop`` leaves members out, while the rows stay as they should be.
        """
        entry, now = len(self.rows) + 1, self.now()
        self.generation += 1
        self.set_trust("vault", "", self.vault_row())
        if ("rekey", "") in self.trust:
            self.change_row("rekey", "", phase="committed")
        for kind, name in [*self.trust]:
            if kind == "keyset":
                del self.trust[kind, name]
        for token in {token.name: token for token in (by, *present)}.values():
            old = f"{self.keks[token.name]}:{token.name}"
            self.set_trust("doomed", old, {"entry": entry, "since": now, "token": token.id.hex()})
            self.keks[token.name] = self.generation
            self.add_keyset(token)
        for gone in retire:
            row = json.loads(self.trust.pop(("token", gone.name)))
            row = {name: row[name] for name in row if name not in ("attestation", "kek", "touch")}
            self.set_trust("retired", gone.name, row | {"entry": entry, "since": now, "was": "absent"})
        for month in shred:
            self.change_row("month", month, shredded=now)
        told: dict[str, object] = {
            "erased": sorted(erase), "generation": self.generation, "log_key": self.generation,
            "keks": {token.name: self.kek() for token in (by, *present)},
            "retired": sorted(gone.id.hex() for gone in retire), "shredded": sorted(shred),
        }  # fmt: skip
        told |= self.also_committed(by)
        told = {name: value for name, value in (told | detail).items() if name not in drop}
        return self.clear("vault.rekey", told, by)

    def also_committed(self, by: SoftToken) -> dict[str, object]:
        """What a re-key changes and tells beside that: tests/support/breakglass_builder.py."""
        return {}

    def rekey(self, by: SoftToken, *present: SoftToken, reason: str = "", **more: Any) -> Row:
        """From the intent to the last entry, the old KEKs of the tokens that are there destroyed."""
        other = "remove-token" if more.get("retire") else "erase" if more.get("erase") else "shred"
        self.intend(by, reason=reason or other)
        row = self.commit(by, *present, **more)
        self.end(by)
        return row

    def end(self, by: SoftToken) -> None:
        """The sealed entry that ends a re-key: nothing is left to do."""
        for kind, name in [*self.trust]:
            if kind in ("rekey", "doomed"):
                del self.trust[kind, name]
        self.sealed(by, log_key=self.generation)

    def synced(self, by: SoftToken, token: SoftToken, **detail: object) -> Row:
        """``vault.sync``, ``done``."""
        self.trust.pop(("rekey", ""), None)
        self.keks[token.name] = self.generation
        self.add_keyset(token)
        return self.clear("vault.sync", {"generation": self.generation, "keks": {token.name: self.kek()}} | detail, by)

    def certificate(self, by: SoftToken, row: Row, title: str, /, **changed: object) -> tuple[bytes, bytes]:
        """The JSON and the signed note of the re-key that ``row`` committed. ``changed``: members of the JSON."""
        detail = json.loads(row.stored[1:])["detail"]
        value: dict[str, object] = {
            "action": ACTIONS[title.partition(": ")[0]], "actor": "mara", "backups": [], "entry": row.sequence,
            "escrow": "none", "custody": detail.get("custody"), "old_shares": [],
            "generation": detail["generation"], "hash": row.hash.hex(), "intended": row.time, "outside": [],
            "signer": by.id.hex(), "subject": title.partition(": ")[2], "time": self.now(), "tokens": [],
            "v1_secrets": 0, "vault": self.vault.hex(), "version": 1,
        }  # fmt: skip
        value |= changed
        document = canonical(value) + b"\n"
        text = (
            f"# {title}\n\nVault {value['vault']}, new keyset {value['generation']}, committed by audit entry "
            f"{value['entry']}.\nEntry hash: {value['hash']}\nOrdered by mara at {value['intended']}; certified at "
            f"{value['time']}.\nJSON with the same content, SHA-256: {sha256(document).hex()}\n\n"
            "## Old root keys\n\n## Backups\n\n## What is left\n\n- nothing\n"
        )
        return document, self.signed_note(by, text, f"medcrypt/{value['vault']}")

    # Notes and files

    def signed_note(self, by: SoftToken, text: str, name: str) -> bytes:
        signed = base64.b64encode(by.id[:4] + by.sign_der(text.encode())).decode()
        return f"{text}\n— {name} {signed}\n".encode()

    def checkpoint(self, by: SoftToken, row: Row | None = None, /, **changed: object) -> bytes:
        row = row or self.rows[-1]
        values: dict[str, object] = {"origin": f"medcrypt/{self.vault.hex()}", "sequence": row.sequence}
        values |= {"hash": base64.b64encode(row.hash).decode(), "trust": base64.b64encode(row.trust).decode()}
        values |= {"time": row.time} | changed
        text = "".join(f"{value}\n" for value in values.values())
        return self.signed_note(by, text, str(values["origin"]))

    def write(self, path: Path) -> Path:
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA application_id = 0x4D454443")
            db.execute("PRAGMA user_version = 1")
            db.executescript(SCHEMA)
            db.executemany("INSERT INTO trust VALUES (?, ?, ?)", [(*key, value) for key, value in self.trust.items()])
            rows = [(r.sequence, r.stored, r.hash, r.trust, r.signer, r.signature) for r in self.rows]
            db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)
            records = [(*record, os.urandom(40), os.urandom(32)) for record in self.records]
            db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", records)
            seen = [(*row, os.urandom(16), os.urandom(16)) for row in self.seen]
            db.executemany("INSERT INTO seen VALUES (?, ?, ?, ?)", seen)
        return path
