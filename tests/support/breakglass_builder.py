"""Builds logs with break-glass straight from docs/spec/breakglass.md: ceremonies, requests, approvals, uses.

Custodians and requesters are software P-256 keys. What a stranger with public keys cannot look into is random bytes of
the right size: shares, escrow, X-Wing keys, enclosures. Each step takes what is to be otherwise, so that a log can be
wrong in one thing and right in all that follows from it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.support.vault_builder import Row, SoftToken, VaultBuilder, canonical, ctx, sha256


@dataclass(frozen=True)
class Statement:
    """As an entry has it, and the id."""

    value: dict[str, str]
    id: str


def state(kind: str, signer: SoftToken, members: dict[str, object], drop: tuple[str, ...] = ()) -> Statement:
    """A request or an approval, signed as it is."""
    type_ = f"medcrypt/breakglass/{kind}"
    base = {"enclosed": os.urandom(32).hex(), "type": type_, "version": 1} | members
    return signed(signer, canonical({name: value for name, value in base.items() if name not in drop}), type_)


def signed(signer: SoftToken, text: bytes, type_: str) -> Statement:
    value = {"signature": signer.sign(ctx(type_, text)).hex(), "statement": text.decode()}
    return Statement(value, sha256(ctx(type_, text)).hex())


def later(time: str, **by: float) -> str:
    moment = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S%z") + timedelta(**by)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class BreakGlassBuilder(VaultBuilder):
    custody: dict[str, Any] = field(default_factory=dict)  # as told; empty before the first ceremony
    custodians: dict[str, SoftToken] = field(default_factory=dict)  # approval keys by name
    coming: dict[str, Any] = field(default_factory=dict)  # the custody that the next commit tells; empty: none
    coming_custodians: dict[str, SoftToken] = field(default_factory=dict)
    coming_key: bytes = b""  # X-Wing
    unnoted: dict[str, Row] = field(default_factory=dict)  # by request: their rows come with a token's next entry
    called: dict[bytes, str] = field(default_factory=dict)  # guest's key → token name in its entries
    requests: dict[bytes, Statement] = field(default_factory=dict)  # likewise → the request that it used
    noting: bool = True  # as it should be

    def append(self, stored: bytes, by: SoftToken, *, claims: bytes | None = None) -> Row:
        if by.id not in self.called and self.noting:
            self.note()
        return super().append(stored, by, claims=claims)

    def note(self) -> None:
        """The rows of the uses before."""
        for request, row in self.unnoted.items():
            told = {"answered": "", "entry": row.sequence, "phase": "done", "scope": "patient", "since": row.time}
            self.set_trust("use", request, told)
        self.unnoted.clear()

    # Ceremonies

    def prepared(self, *names: str, threshold: int = 2, **changed: object) -> None:
        """The custody that the next commit tells, of custodians with new approval keys."""
        self.coming_custodians = {name: SoftToken(name) for name in names}
        self.coming_key = os.urandom(1216)
        told = [
            {"approval_key": token.spki.hex(), "attestation": "token-claimed", "kek": "", "name": name, "x": x,
             "commitment": os.urandom(32).hex(), "model": "soft", "profile": "aes-kw", "serial": f"C{x}"}
            for x, (name, token) in enumerate(self.coming_custodians.items(), 1)
        ]  # fmt: skip
        custody = {"ceremony": os.urandom(6).hex(), "key": sha256(self.coming_key).hex(), "threshold": threshold}
        self.coming = custody | {"custodians": told} | changed

    def ceremony(
        self, by: SoftToken, *present: SoftToken, names: tuple[str, ...] = ("anna", "ben", "carla"),
        threshold: int = 2, reason: str = "ceremony", retire: tuple[SoftToken, ...] = (), end: bool = True,
        detail: dict[str, Any] | None = None, drop: tuple[str, ...] = (), **changed: object,
    ) -> Row:  # fmt: skip
        """From the intent to the end. ``detail`` and ``drop`` change the entry alone, ``changed`` what it tells of the
        custody. Of the old custody each share is left, until ``destroy``.
        """
        self.prepared(*names, threshold=threshold, **changed)
        self.intend(by, reason=reason)
        row = self.commit(by, *present, retire=retire, drop=drop, **(detail or {}))
        if end:
            self.end(by)
        return row

    def also_committed(self, by: SoftToken) -> dict[str, object]:
        """The rows of a new custody, or of the present one: an escrow of the new generation."""
        told: dict[str, object] = {}
        now, entry = self.now(), len(self.rows) + 1
        recovers = b'"reason":"recover"' in self.trust.get(("rekey", ""), b"")
        if self.noting:
            self.note()
        for kind, name in [*self.trust]:
            if kind == "use" and recovers:
                self.change_row(kind, name, phase="done")
            if kind == "use" and self.coming and b'"answered":""' in self.trust[kind, name]:
                self.change_row(kind, name, answered=now)
            if kind == "custodian" and self.coming:
                del self.trust[kind, name]
                self.old_share(name, entry, now)
        if self.coming:
            self.custody, self.coming, self.custodians = self.coming, {}, self.coming_custodians
            told["custody"] = self.custody
            self.custody_rows(by, entry, now)
        if self.custody:
            self.escrow()
        return told

    def old_share(self, name: str, entry: int, now: str) -> None:
        told = next(told for told in self.custody["custodians"] if told["name"] == name)
        row = {member: told[member] for member in ("approval_key", "model", "serial")}
        row |= {"entry": entry, "label": "Share", "since": now, "uri": "pkcs11:"}
        self.set_trust("oldshare", f"{self.custody['ceremony']}:{name}", row)

    def custody_rows(self, by: SoftToken, entry: int, now: str) -> None:
        row = {"audit_key": by.id.hex(), "ceremony": self.custody["ceremony"], "entry": entry, "since": now}
        self.set_trust("breakglass", "", row | {"key": self.coming_key.hex(), "threshold": self.custody["threshold"]})
        for told in self.custody["custodians"]:
            row = {name: told[name] for name in told if name != "name"}
            self.set_trust(
                "custodian", str(told.get("name")), row | {"drilled": "", "label": "Share", "uri": "pkcs11:"}
            )

    def escrow(self, **changed: object) -> None:
        row = {"ceremony": self.custody["ceremony"], "generation": self.generation, "sealed": os.urandom(1232).hex()}
        self.set_trust("escrow", "", row | changed)

    def destroy(self) -> None:
        """Every old share, found and proven destroyed."""
        for kind, name in [*self.trust]:
            if kind == "oldshare":
                del self.trust[kind, name]

    # Uses

    def request(
        self, requester: SoftToken, *, scope: str = "patient", by: SoftToken | None = None, drop: tuple[str, ...] = (),
        **changed: object,
    ) -> Statement:  # fmt: skip
        """Signed by the requester's key, or ``by``; from now on for three days."""
        now, newest = self.now(), next(row for row in reversed(self.rows) if row.signer not in self.called)
        members: dict[str, object] = {
            "ceremony": self.custody.get("ceremony", "00" * 6), "created": now, "expires": later(now, days=3),
            "hash": newest.hash.hex(), "key": os.urandom(1216).hex(), "scope": scope, "sequence": newest.sequence,
            "signer": requester.spki.hex(), "vault": self.vault.hex(),
        }  # fmt: skip
        return state("request", by or requester, members | changed, drop)

    def approve(
        self, request: Statement, name: str, *, by: SoftToken | None = None, drop: tuple[str, ...] = (),
        **changed: object,
    ) -> Statement:  # fmt: skip
        """By that custodian, with their approval key or ``by``'s."""
        told = next(told for told in self.custody["custodians"] if told["name"] == name)
        members: dict[str, object] = {
            "audit_key": json.loads(self.trust["breakglass", ""])["audit_key"], "ceremony": self.custody["ceremony"],
            "commitment": told["commitment"], "custodian": name, "request": request.id, "time": self.now(),
            "vault": self.vault.hex(), "x": told["x"],
        }  # fmt: skip
        return state("approval", by or self.custodians[name], members | changed, drop)

    def open(
        self, requester: SoftToken, *names: str, request: Statement | None = None,
        approvals: list[Statement] | None = None, new: SoftToken | None = None, detail: dict[str, Any] | None = None,
        drop: tuple[str, ...] = (), by: SoftToken | None = None, row: bool = True, **members: object,
    ) -> Row:  # fmt: skip
        """``breakglass.open`` by approval of ``names``, of the first two if there are none; of the practice if there is
        a ``new`` token. ``detail`` and ``drop`` change the detail, ``members`` the entry; ``by`` signs it if not the
        requester.
        """
        request = request or self.request(requester, scope="practice" if new else "patient")
        if approvals is None:
            approvals = [self.approve(request, name) for name in names or [*self.custodians][:2]]
        told: dict[str, object] = {"approvals": [one.value for one in approvals], "request": request.value}
        if new:
            if self.noting:
                self.note()
            told["token"] = self.opened(new, request, row=row)
        self.called[requester.id] = f"bg-{request.id[:8]}"
        self.requests[requester.id] = request
        told = {name: value for name, value in (told | (detail or {})).items() if name not in drop}
        members = {"token": self.called[requester.id]} | members
        entry = self.clear("breakglass.open", told, by or requester, **members)
        if not new:
            self.unnoted[request.id] = entry
        return entry

    def opened(self, new: SoftToken, request: Statement, *, row: bool = True) -> dict[str, object]:
        """The rows of a practice that is opened, and the token as the entry tells it."""
        self.keks[new.name] = self.generation
        if row:
            self.add_token_row(new)
        self.add_keyset(new)
        use = {"answered": "", "entry": len(self.rows) + 1, "phase": "open", "scope": "practice", "since": self.now()}
        self.set_trust("use", request.id, use)
        return {
            "attestation": "token-claimed", "audit_key": new.spki.hex(), "id": new.id.hex(), "kek": "",
            "model": "soft", "name": new.name, "profile": "aes-kw", "serial": "1",
        }  # fmt: skip

    def close(self, requester: SoftToken, *, detail: dict[str, object] | None = None, **members: object) -> Row:
        told = {"request": self.requests[requester.id].id} | (detail or {})
        return self.clear("breakglass.close", told, requester, **({"token": self.called[requester.id]} | members))

    def recover(self, by: SoftToken, *gone: SoftToken, end: bool = True, **more: Any) -> Row:
        """The re-key that ends the recovery of a practice."""
        self.intend(by, reason="recover")
        row = self.commit(by, retire=gone, **more)
        if end:
            self.end(by)
        return row
