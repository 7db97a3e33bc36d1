"""Break-glass at library level: a practice, its custodians' tokens, and a token that opens nothing yet.

Plain code without pytest. Files travel as bytes, as they would on a stick or by mail.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from medcrypt_hsm import Vault
from medcrypt_hsm.breakglass import emergency
from medcrypt_hsm.breakglass.approve import Reviewed
from medcrypt_hsm.breakglass.emergency import Actor
from medcrypt_hsm.breakglass.journal import Journal
from medcrypt_hsm.breakglass.request import RequestOptions
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens import PinPrompt
from medcrypt_hsm.vault.audit.statements import Approval, Drill, Request, read
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.store.rows import Location
from tests.support.practice import Practice, pin
from tests.support.store import open_at

CUSTODIANS = ("ana", "berta", "carla")


def pin_of(name: str) -> PinPrompt:
    return pin


def agreed(reviewed: Reviewed) -> None: ...


@dataclass
class Circle:
    """A practice with custodians. ``uris``: tokens by who has them; ``nueva`` opens nothing yet."""

    practice: Practice
    uris: Mapping[str, str]
    home: Path
    told: list[Reviewed] = field(default_factory=list)

    def ceremony(self, *names: str, threshold: int = 2, company: OtherTokens | None = None) -> Certificate:
        shares = {name: self.uris[name] for name in names or CUSTODIANS}
        with self.practice.open() as vault:
            return vault.custodians.ceremony(shares, threshold, self.pin_of, company or OtherTokens(self.practice.pin))

    def rotate(self, token: str | None = None) -> Certificate:
        with self.practice.open(token=token) as vault:
            return vault.custodians.rotate(self.pin_of, OtherTokens(self.practice.pin))

    def pin_of(self, name: str) -> PinPrompt:
        return self.practice.pin

    def hand(self, who: str) -> Actor:
        return Actor(self.practice.pin, who, self.uris[who], clock=self.practice.clock)

    def journal(self, who: str) -> Journal:
        return Journal(self.home / who / "journal")

    def request(self, patient: str = "", *, who: str = "nueva", name: str = "nueva", hours: int = 24) -> bytes:
        asked = RequestOptions(name, "La doctora no despierta", "Dr. Guardia Ejemplo", patient, hours)
        return emergency.request(Location.parse(self.practice.path), self.hand(who), asked, self.journal(who)).file()

    def approve(self, request: bytes, who: str) -> bytes:
        return emergency.approve(request, self.hand(who), self.journal(who), self.told.append).file()

    def drill(self, who: str) -> bytes:
        with closing(open_at(self.practice.path)) as file:
            present = peek(file).breakglass
        assert present is not None
        signed, _ = emergency.drill(self.hand(who), self.journal(who), present.ceremony)
        return signed.file()

    def record(self, *results: bytes) -> list[str]:
        with self.practice.open() as vault:
            return vault.custodians.drill([read(result, Drill) for result in results])

    def decrypt(
        self, request: bytes, approvals: list[bytes], *texts: str, who: str = "nueva", month: Month | None = None
    ) -> list[Opened]:
        given = [read(approval, Approval) for approval in approvals]
        found = wire.find("\n".join(texts))
        asked = read(request, Request)
        return emergency.decrypt(Location.parse(self.practice.path), self.hand(who), asked, given, found, month=month)

    def recover(self, request: bytes, approvals: list[bytes], *, who: str = "nueva") -> Certificate:
        given = [read(approval, Approval) for approval in approvals]
        hand = self.hand(who)
        with Vault.recover(
            self.practice.path,
            read(request, Request),
            given,
            pin=hand.pin,
            uri=hand.uri,
            actor=hand.actor,
            clock=hand.clock,
        ) as vault:
            assert vault.finished is not None
            return vault.finished
