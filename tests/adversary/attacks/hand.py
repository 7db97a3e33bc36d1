"""What somebody does to a vault file by hand: rows changed, entries appended, under a key of their own or a token's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import audit_key_name
from tests.adversary.attacks.scene import Scene
from tests.support.eventful_vault import Row, insert
from tests.support.practice import pin
from tests.support.store import by_hand, rows
from tests.support.vault_builder import SoftToken, canonical, ctx, sha256, u64

NOW = "2026-11-20T12:00:00Z"
Sign = Callable[[bytes], bytes]


@dataclass
class Hand:
    """``path``: the copy to be altered."""

    scene: Scene
    path: Path
    evil: SoftToken = field(default_factory=lambda: SoftToken("evil"))

    def sql(self, *statements: str, values: tuple[Any, ...] = ()) -> None:
        with by_hand(self.path) as db:
            for statement in statements:
                db.execute(statement, values)

    def rows(self, table: str, source: str | None = None) -> list[Row]:
        return rows(self.path if source is None else self.scene.files[source], table)

    def put(self, table: str, *wanted: Row) -> None:
        with by_hand(self.path) as db:
            for row in wanted:
                insert(db, table, row)

    def replace_table(self, table: str, source: str) -> None:
        """As it is in another file."""
        self.sql(f"DELETE FROM {table}")
        self.put(table, *self.rows(table, source))

    def move(self, purpose: str, whose: str, month: str, to: tuple[str, bytes, str]) -> None:
        """A wrapped key under another purpose, pairing and month."""
        (row,) = [r for r in self.rows("records") if r[:3] == (purpose, self.scene.pairings[whose], month)]
        self.put("records", (*to, *row[3:]))

    # Trust state

    def trust(self, kind: str, name: str, source: str | None = None) -> dict[str, Any]:
        (value,) = [row[2] for row in self.rows("trust", source) if row[:2] == (kind, name)]
        found: dict[str, Any] = json.loads(value)
        return found

    def put_trust(self, kind: str, name: str, value: object) -> None:
        self.put("trust", (kind, name, canonical(value)))

    def change_trust(self, kind: str, name: str, **members: object) -> None:
        self.put_trust(kind, name, self.trust(kind, name) | members)

    def delete_trust(self, kind: str, name: str) -> None:
        self.sql("DELETE FROM trust WHERE kind = ? AND name = ?", values=(kind, name))

    # The log

    def append(self, stored: bytes, signer: bytes, sign: Sign, *, ahead: int = 1, link: bool = True) -> None:
        """An entry behind the newest, its hash and trust digest right."""
        newest = self.rows("entries")[-1]
        sequence = newest[0] + ahead
        trust = sha256(ctx("medcrypt/trust", *(part for row in self.rows("trust") for part in row)))
        before = newest[2] if link else os.urandom(32)
        hash_ = sha256(ctx("medcrypt/audit/entry", before, u64(sequence), trust, signer, stored))
        signature = sign(ctx("medcrypt/head", self.scene.vault_id, u64(sequence), hash_, trust))
        self.put("entries", (sequence, stored, hash_, trust, signer, signature))

    def append_by(self, token: str, *entries: bytes, **more: Any) -> None:
        """Signed by the true audit key of one of the vault's tokens, in its own name."""
        with open_token(self.scene.uris[token], pin) as opened:
            for stored in entries:
                self.append(
                    stored, self.scene.ids[token], lambda data: opened.sign(audit_key_name(self.scene.vault_id), data),
                    **more,
                )  # fmt: skip

    def append_by_evil(self, *entries: bytes, claims: str = "", **more: Any) -> None:
        """Signed by a key of the attacker's, who ``claims`` to be a token of the vault."""
        for stored in entries:
            self.append(stored, self.scene.ids[claims] if claims else self.evil.id, self.evil.sign, **more)

    def rehash(self, start: int) -> None:
        """Every hash from an entry on made to follow again, which takes no key."""
        entries = {row[0]: row for row in self.rows("entries")}
        for sequence in sorted(entries):
            if sequence >= start:
                _, stored, _, trust, signer, signature = entries[sequence]
                before = entries[sequence - 1][2]
                hash_ = sha256(ctx("medcrypt/audit/entry", before, u64(sequence), trust, signer, stored))
                entries[sequence] = (sequence, stored, hash_, trust, signer, signature)
        self.put("entries", *entries.values())

    def introduction(self, by: str) -> bytes:
        """Of the attacker's key as a token of the vault, with its row."""
        told = {"audit_key": self.evil.spki.hex(), "id": self.evil.id.hex(), "serial": "1", "model": "soft",
                "profile": "aes-kw", "kek": "", "attestation": "not-attested"}  # fmt: skip
        self.put_trust("token", "evil", told | {"label": "Praxis", "uri": "pkcs11:token=evil", "touch": "never"})
        return clear("token.introduce", told | {"name": "evil"}, by)


def clear(action: str, detail: object, token: str, outcome: str = "done", time: str = NOW) -> bytes:
    entry = {"action": action, "actor": "mara", "detail": detail, "outcome": outcome, "subject": "", "time": time,
             "token": token}  # fmt: skip
    return b"\0" + canonical(entry)


def sealed(log_key: int = 3) -> bytes:
    """Of the right form; what it holds takes a key to see."""
    return b"\1" + log_key.to_bytes(4, "big") + os.urandom(12 + 180 + 16)


def restore(abandoned: int, hash_: bytes, token: str) -> bytes:
    return clear("vault.restore", {"abandoned_sequence": abandoned, "abandoned_hash": hash_.hex()}, token)


def rekeyed(generation: int, **members: object) -> dict[str, object]:
    """The detail of a re-key that is done."""
    told = {"erased": [], "generation": generation, "keks": {}, "log_key": generation, "retired": [], "shredded": []}
    return told | members
