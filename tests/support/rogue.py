"""Whoever used break-glass for one patient and heeds no rule: every key in software, every row by hand.

The custodians are honest, and consented to what they read. From their approvals come the seed, the escrow and the whole
keyset; so a rogue can seal entries and make rows that open. What it cannot do is sign with a token of the vault. Plain
code without pytest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from medcrypt_hsm.breakglass import approve as approvals
from medcrypt_hsm.breakglass.approve import Reviewed
from medcrypt_hsm.crypto import shamir, xwing
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.lifecycle import escrow
from medcrypt_hsm.lifecycle.shares import ShareRecord
from medcrypt_hsm.notation import canonical, ctx, timestamp
from medcrypt_hsm.vault.audit import entries, statements, trust
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_CLOSE, BREAKGLASS_OPEN
from medcrypt_hsm.vault.audit.consent import Opening, guest_name
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.statements import Approval, Request, RequestedBy, Signed, read
from medcrypt_hsm.vault.audit.verify import verify_chain
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.keyset import LOG, VaultKeyset, log_month
from medcrypt_hsm.vault.store.rows import EntryRow
from tests.support.breakglass import Circle
from tests.support.eventful_vault import insert
from tests.support.store import by_hand, open_at
from tests.support.vault_builder import SoftToken

ELSEWHERE = {"label": "stick", "model": "soft", "serial": "77", "uri": "pkcs11:token=nowhere"}


def signed(told: statements.T, key: SoftToken, enclosure: bytes = b"") -> Signed[statements.T]:
    """Any statement, under any key."""
    told = replace(told, enclosed=sha256(enclosure).digest())
    unsigned = Signed(told, statements.encode(told), bytes(64), enclosure)
    return Signed(told, unsigned.statement, key.sign(unsigned.to_sign), enclosure)


def settled(path: Path) -> tuple[int, bytes]:
    """The newest entry of a registered token."""
    with closing(open_at(path)) as file, file.snapshot():
        return verify_chain(file, trust.parse(file.trust_rows())).settled


@dataclass
class Rogue:
    """``path``: the copy of the vault that it writes to."""

    circle: Circle
    path: Path
    request: Signed[Request]
    key: SoftToken
    seed: bytes
    approvals: tuple[Signed[Approval], ...] = ()
    seen: list[Reviewed] = field(default_factory=list)

    @classmethod
    def asks(cls, circle: Circle, path: Path, patient: str = "EXP-1", **changed: Any) -> Rogue:
        """A request that is as it should be, but for what is ``changed``."""
        key, seed, now = SoftToken("rogue"), os.urandom(32), circle.practice.clock()
        with closing(open_at(path)) as file:
            state = peek(file)
        assert state.breakglass is not None
        enclosure = RequestedBy("stick", patient, "No despierta", "Dr. Falso", ELSEWHERE, os.urandom(16).hex()).encode()
        told = Request(
            state.vault_id,
            state.breakglass.ceremony,
            timestamp(now),
            timestamp(now + timedelta(hours=12)),
            *settled(path),
            xwing.public_key(seed),
            "patient" if patient else "practice",
            key.spki,
            b"",
        )
        return cls(circle, path, signed(replace(told, **changed), key, enclosure), key, seed)

    def approved_by(self, *custodians: str) -> Rogue:
        file = self.request.file()
        self.approvals = tuple(read(self.circle.approve(file, who), Approval) for who in custodians)
        return self

    @property
    def id(self) -> bytes:
        return fingerprint(self.key.spki)

    @property
    def name(self) -> str:
        return guest_name(self.request.id)

    def keyset(self) -> VaultKeyset:
        """The vault's own, as the custodians' shares give it."""
        with closing(open_at(self.path)) as file:
            state = peek(file)
        present = state.breakglass
        assert present is not None
        shares = {}
        for approval in self.approvals:
            custodian = present.custodians[approval.told.custodian]
            numbers = custodian.x, present.threshold, len(present.custodians)
            whose = state.vault_id, present.ceremony, present.audit_key
            record = ShareRecord(*whose, *numbers, custodian.name, 0, b"", custodian.commitment)
            from medcrypt_hsm.crypto.secret import Secret

            shares[custodian.x] = approvals.open_approval(approval, self.request, Secret(self.seed), record).value
        seed = shamir.combine(shares)
        keys = escrow.open_keyset(seed, present.escrow.sealed, state.vault_id, state.generation, present.ceremony)
        return VaultKeyset(HostKeys().handles(keys), state.vault_id)

    # Entries

    def now(self, **later: float) -> str:
        return timestamp(self.circle.practice.clock() + timedelta(**later))

    def entry(self, action: str, detail: dict[str, Any], **changed: Any) -> Entry:
        told = {"time": self.now(), "actor": "falso", "token": self.name, "subject": "", "outcome": "done"} | changed
        return Entry(action=action, detail=detail, **told)

    def opening(self, given: Sequence[Signed[Approval]] | None = None, **changed: Any) -> bytes:
        made = Opening(self.request, tuple(self.approvals if given is None else given), changed.pop("introduced", None))
        return entries.clear_entry(self.entry(BREAKGLASS_OPEN, made.detail(), **changed))

    def close(self, request: bytes | None = None, **changed: Any) -> bytes:
        id_ = self.request.id if request is None else request
        return entries.clear_entry(self.entry(BREAKGLASS_CLOSE, {"request": id_.hex()}, **changed))

    def reason(self, text: str | None = None, subject: str = "EXP-1", **changed: Any) -> bytes:
        detail = {"enclosure": self.request.enclosure.decode() if text is None else text}
        return self.sealed("breakglass.read", detail, subject=subject, **changed)

    def sealed(self, action: str, detail: dict[str, Any], **changed: Any) -> bytes:
        """As the next entry of the log."""
        with closing(open_at(self.path)) as file, file.snapshot():
            state, newest = trust.parse(file.trust_rows()), file.newest()
            row = file.record(LOG, b"", log_month(state.log_key))
        assert newest is not None
        assert row is not None
        key, entry = self.keyset().aead_key(row), self.entry(action, detail, **changed)
        return entries.seal_entry(entry, key, state.log_key, os.urandom(12), state.vault_id, newest.sequence + 1)

    def append(self, stored: bytes, claims: bytes | None = None, key: SoftToken | None = None) -> EntryRow:
        """After the newest, over the rows as they are now. ``claims``: whose id it bears, if not the rogue's."""
        signer = self.id if claims is None else claims
        with closing(open_at(self.path)) as file, file.snapshot():
            rows, newest = file.trust_rows(), file.newest()
            vault_id = trust.parse(rows).vault_id
        assert newest is not None
        sequence, digest = newest.sequence + 1, trust.digest(rows)
        hash_ = entries.entry_hash(newest.hash, sequence, digest, signer, stored)
        signature = (key or self.key).sign(entries.head_bytes(vault_id, sequence, hash_, digest))
        row = EntryRow(sequence, stored, hash_, digest, signer, signature)
        with by_hand(self.path) as db:
            insert(db, "entries", tuple(row))
        return row

    def opens(self) -> Rogue:
        """As an honest guest begins."""
        self.append(self.opening())
        self.append(self.reason())
        return self

    def change_trust(self, kind: str = "policy", name: str = "", **members: Any) -> None:
        with closing(open_at(self.path)) as file:
            (value,) = [row[2] for row in file.trust_rows() if row[:2] == (kind, name)]
        import json

        with by_hand(self.path) as db:
            insert(db, "trust", (kind, name, canonical(json.loads(value) | members)))


def to_request(approval: Signed[Approval], request: Signed[Request]) -> bytes:
    return ctx("medcrypt/approval", request.told.vault_id, request.told.ceremony, request.id, bytes([approval.told.x]))
