"""Logs with break-glass for two readers, the package and scripts/verify_audit.py (docs/spec/breakglass.md).

Entry 5 holds a ceremony of anna, ben and carla, of whom two are enough; entry 7 is the next. ``who`` has no token of the
practice and asks for break-glass, ``other`` too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support_breakglass_builder import BreakGlassBuilder, Statement, signed
from tests.support_two_readers import Rekeyed
from tests.support_vault_builder import Row, SoftToken


class Emergency(BreakGlassBuilder, Rekeyed):
    """What one of them did next."""

    def begin(self) -> Emergency:
        super().begin()
        self.who, self.other = SoftToken("emergency"), SoftToken("second")
        return self

    def ready(self, **more: Any) -> Emergency:
        self.begin().ceremony(self.doctor, self.reserve, **more)
        return self

    # Custodies

    def rotated(self, reason: str = "rotate", **more: Any) -> Emergency:
        self.ceremony(self.doctor, self.reserve, reason=reason, **more)
        return self

    def custodian_told(self, x: int = 2, drop: str = "", **changed: object) -> Emergency:
        """A rotation, whose entry tells of custodian x otherwise, and so does the row."""
        self.prepared("anna", "ben", "carla")
        told = self.coming["custodians"]
        told[x - 1] = {name: value for name, value in (told[x - 1] | changed).items() if name != drop}
        return self.committing("rotate")

    def told(self, drop: str = "", **changed: object) -> Emergency:
        """A rotation, whose entry tells of the custody otherwise than the rows."""
        self.prepared("anna", "ben", "carla")
        custody = {name: value for name, value in (self.coming | changed).items() if name != drop}
        return self.committing("rotate", custody=custody)

    def committing(self, reason: str, **detail: object) -> Emergency:
        self.intend(self.doctor, reason=reason)
        self.commit(self.doctor, self.reserve, **detail)  # type: ignore[arg-type]
        return self

    def custodian_row(self, name: str = "ben", **changed: object) -> Rekeyed:
        return self.changed("custodian", name, **changed)

    def share_row(self, name: str = "ben", before: str = "", **changed: object) -> Rekeyed:
        """Of the ceremony before."""
        old = next(name for kind, name in self.trust if kind == "oldshare").partition(":")[0]
        return self.changed("oldshare", f"{before or old}:{name}", **changed)

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
        self.open(self.who, scope="practice", **more)
        return self

    def recovered(self, **more: Any) -> Emergency:
        self.practice().recover(self.who, self.doctor, self.reserve, **more)
        return self

    def by_name(self, *names: str) -> Emergency:
        self.open(self.who, *names)
        return self

    def asking(self, **changed: Any) -> Emergency:
        """The request is otherwise, and approved as it is."""
        scope = "practice" if changed.get("scope") == "practice" else "patient"
        self.open(self.who, request=self.request(self.who, **changed), scope=scope)
        return self

    def asking_in(self, change: Callable[[bytes], bytes], as_: str = "request") -> Emergency:
        """In other bytes, and signed as they are."""
        whole = self.request(self.who).value["statement"].encode()
        self.open(self.who, request=signed(self.who, change(whole), f"medcrypt/breakglass/{as_}"))
        return self

    def approving(self, of: Statement | None = None, **changed: Any) -> Emergency:
        """Anna approves; ben otherwise, or another request."""
        request = self.request(self.who)
        approvals = [self.approve(request, "anna"), self.approve(of or request, "ben", **changed)]
        self.open(self.who, request=request, approvals=approvals)
        return self

    def told_as(self, change: Callable[[Statement, list[Statement]], dict[str, Any]]) -> Emergency:
        """The detail is otherwise than request and approvals are."""
        request = self.request(self.who)
        approvals = [self.approve(request, "anna"), self.approve(request, "ben")]
        self.open(self.who, request=request, approvals=approvals, detail=change(request, approvals))
        return self

    def token_told(self, **changed: object) -> Emergency:
        """The practice's new token is told of otherwise."""
        request = self.request(self.who, scope="practice")
        token = self.opened(self.who, request) | changed
        return self.practice(request=request, detail={"token": token})

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

    def use_row(self, **changed: object) -> Rekeyed:
        return self.changed("use", self.of(), **changed)
