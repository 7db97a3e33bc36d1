"""Logs with break-glass for two readers, the package and scripts/standalone/verify_audit.py (docs/spec/breakglass.md).

Entry 5 holds a ceremony of anna, ben and carla, of whom two are enough; entry 7 is the next. ``who`` has no token of
the practice and asks for break-glass, ``other`` too; ``new`` is the token that break-glass for the practice introduces.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.breakglass_builder import BreakGlassBuilder, Statement, signed
from tests.support.two_readers import Rekeyed
from tests.support.vault_builder import Row, SoftToken, canonical


class Emergency(BreakGlassBuilder, Rekeyed):
    """What one of them did next."""

    def begin(self) -> Emergency:
        super().begin()
        self.who, self.other, self.new = SoftToken("who"), SoftToken("other"), SoftToken("emergency")
        return self

    def ready(self, **more: Any) -> Emergency:
        self.begin().ceremony(self.doctor, self.reserve, **more)
        return self

    # Custodies

    def rotated(self, reason: str = "rotate", **more: Any) -> Emergency:
        self.ceremony(self.doctor, self.reserve, reason=reason, **more)
        return self

    def custodian_told(self, number: int = 2, drop: str = "", row: bool = False, **changed: object) -> Emergency:
        """A rotation, whose entry tells of this custodian otherwise; also in its ``row``."""
        self.prepared("anna", "ben", "carla")
        told = [dict(each) for each in self.coming["custodians"]]
        told[number - 1] |= changed
        told[number - 1].pop(drop, None)
        if row:
            self.coming["custodians"] = told
        return self.told(custodians=told)

    def told(self, drop: str = "", **changed: object) -> Emergency:
        """A rotation, whose entry tells of the custody otherwise than the rows."""
        if not self.coming:
            self.prepared("anna", "ben", "carla")
        custody = {name: value for name, value in (self.coming | changed).items() if name != drop}
        return self.committing("rotate", custody=custody)

    def told_by(self, reason: str) -> Emergency:
        """Rows and entry are those of a custody, and it is a re-key of another reason."""
        self.prepared("anna", "ben", "carla")
        return self.committing(reason)

    def committing(self, reason: str, **detail: Any) -> Emergency:
        self.intend(self.doctor, reason=reason)
        self.commit(self.doctor, self.reserve, **detail)
        return self

    def custodian_row(self, **changed: object) -> Rekeyed:
        return self.changed("custodian", "ben", **changed)

    def copied(self, kind: str, name: str, row: bytes) -> Emergency:
        """One more row; the doctor signs the state."""
        self.trust[kind, name] = row
        self.sealed(self.doctor)
        return self

    def any_of(self, kind: str) -> bytes:
        return next(value for (each, _), value in self.trust.items() if each == kind)

    def upper(self, kind: str) -> Emergency:
        """One row's name in upper case, and its value as it is."""
        name = next(name for each, name in self.trust if each == kind)
        before, colon, behind = name.partition(":")
        return self.copied(kind, before.upper() + colon + behind, self.trust.pop((kind, name)))

    def back(self, kind: str, name: str, *step: Callable[[], object]) -> Emergency:
        """The row as it was before what is done now."""
        row = self.trust[kind, name]
        for each in step:
            each()
        return self.copied(kind, name, row)

    def share_row(self, name: str = "ben", before: str = "", **changed: object) -> Emergency:
        """Ben's share of the ceremony before, changed; or one more like it, of another name or ceremony."""
        old = next(key for kind, key in self.trust if kind == "oldshare" and key.endswith(":ben"))
        row = canonical(json.loads(self.trust["oldshare", old]) | changed)
        return self.copied("oldshare", f"{before or old.partition(':')[0]}:{name}", row)

    # Uses

    def used(self, **more: Any) -> Emergency:
        """For one patient, and what is done with it."""
        self.open(self.who, **more)
        self.sealed(self.who)
        return self

    def noted(self, **more: Any) -> Emergency:
        self.used(**more).sealed(self.doctor)
        return self

    def practice(self, **more: Any) -> Emergency:
        self.open(self.who, new=self.new, **more)
        return self

    def recovered(self, *gone: SoftToken, **more: Any) -> Emergency:
        """By the new token; it retires the others."""
        self.practice().recover(self.new, *(gone or (self.doctor, self.reserve)), **more)
        return self

    def by_name(self, *names: str) -> Emergency:
        self.open(self.who, *names)
        return self

    def asking(self, **changed: Any) -> Emergency:
        """The request is otherwise, and approved as it is."""
        self.open(self.who, request=self.request(self.who, **changed))
        return self

    def asking_in(self, change: Callable[[bytes], bytes], as_: str = "request") -> Emergency:
        """In other bytes, and signed as they are."""
        whole = self.request(self.who).value["statement"].encode()
        self.open(self.who, request=signed(self.who, change(whole), f"medcrypt/breakglass/{as_}"))
        return self

    def approving(self, of: Statement | None = None, name: str = "ben", **changed: Any) -> Emergency:
        """Anna approves; ben otherwise, or another request."""
        request = self.request(self.who)
        approvals = [self.approve(request, "anna"), self.approve(of or request, name, **changed)]
        self.open(self.who, request=request, approvals=approvals)
        return self

    def told_as(self, change: Callable[[Statement, list[Statement]], dict[str, Any]]) -> Emergency:
        """The detail is otherwise than request and approvals are."""
        request = self.request(self.who)
        approvals = [self.approve(request, "anna"), self.approve(request, "ben")]
        self.open(self.who, request=request, approvals=approvals, detail=change(request, approvals))
        return self

    def token_told(self, row: bool = False, **changed: Any) -> Emergency:
        """The practice's new token is told of otherwise; also in its ``row``."""
        request = self.request(self.who, scope="practice")
        token = self.opened(self.new, request) | changed
        self.add_token_row(self.new, **(changed if row else {}))
        return self.practice(request=request, detail={"token": token}, row=False)

    def of(self, requester: SoftToken | None = None) -> str:
        """The request that was used."""
        return self.requests[(requester or self.who).id].id

    def used_again(self, by: SoftToken) -> Row:
        """The same request."""
        return self.open(by, request=self.requests[self.who.id])

    def two_guests(self, again: SoftToken) -> Row:
        """The second opens while the first is at work, and then one of them goes on."""
        self.open(self.who)
        self.open(self.other)
        return self.sealed(again)

    def never_noted(self) -> Emergency:
        """The rows of the uses do not come with what a token signs."""
        self.noting = False
        return self

    def used_before(self) -> Row:
        """By custodians of whom the log does not tell."""
        self.prepared("anna", "ben")
        self.custody, self.custodians = self.coming, self.coming_custodians
        row = {"audit_key": self.doctor.id.hex()}
        self.trust["breakglass", ""] = canonical(row)
        request = self.request(self.who)
        approvals = [self.approve(request, name) for name in self.custodians]
        del self.trust["breakglass", ""]
        return self.open(self.who, request=request, approvals=approvals)

    def use_row(self, **changed: object) -> Rekeyed:
        return self.changed("use", self.of(), **changed)
