"""Who may hold what (BG-1), and what a person may be called: refused before anything is made or signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from medcrypt_hsm.breakglass import emergency
from medcrypt_hsm.breakglass.request import RequestOptions
from medcrypt_hsm.errors import MedcryptError, UsageError
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.store.rows import Location
from tests.support.breakglass import CUSTODIANS, Circle, pin_of
from tests.support.practice import Practice, pin
from tests.support.softhsm import SoftHsm


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory, softhsm: SoftHsm) -> Circle:
    """A ceremony, and a replacement while Carla was away: she has an old share. ``nueva`` has asked for something."""
    directory = tmp_path_factory.mktemp("circle")
    uris = {name: softhsm.make_token() for name in ("doctor", "spare", *CUSTODIANS, "dora", "nueva", "blank")}
    practice = Practice(directory / "practice" / "vault.db", uris["doctor"])
    practice.create().close()
    practice.add("spare", uris["spare"], using="doctor")
    made = Circle(practice, uris, directory / "homes")
    with practice.open(token="doctor") as vault:
        vault.custodians.ceremony({name: uris[name] for name in CUSTODIANS}, 2, pin_of, OtherTokens(pin))
    practice.clock.forward(hours=1)
    with practice.open(token="doctor") as vault:
        vault.custodians.replace("carla", "dora", uris["dora"], pin_of, OtherTokens(pin))
    made.request("EXP-1")
    return made


def holding(circle: Circle, **shares: str) -> object:
    """A rotation with these tokens in place of the custodians' own."""
    instead = {name: circle.uris[who] for name, who in shares.items()}
    with circle.practice.open(token="doctor") as vault:
        return vault.custodians.rotate(pin_of, OtherTokens(pin), instead=instead)


def adding(circle: Circle, who: str) -> object:
    with circle.practice.open(token="doctor") as vault:
        return vault.tokens.add("nuevo", circle.uris[who], pin=pin)


@dataclass(frozen=True)
class Wrong:
    name: str
    do: Callable[[Circle], object]
    words: str = "BG-1"

    def __str__(self) -> str:
        return self.name


WRONG = (
    Wrong("a share on the token in use", lambda c: holding(c, ana="doctor")),
    Wrong("a share on a spare token", lambda c: holding(c, ana="spare")),
    Wrong("a share on the requester's", lambda c: holding(c, ana="nueva")),
    Wrong("two shares on one token", lambda c: holding(c, ana="berta")),
    Wrong("two shares on a new one", lambda c: holding(c, ana="blank", berta="blank")),
    Wrong("a custodian's token added to the vault", lambda c: adding(c, "ana")),
    Wrong("a request with the doctor's", lambda c: c.request(who="doctor")),
    Wrong("a request with a spare token", lambda c: c.request(who="spare")),
    Wrong("a request with a custodian's", lambda c: c.request(who="ana")),
)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_each_on_a_token_of_its_own(circle: Circle, wrong: Wrong) -> None:
    def held() -> dict[str, list[str]]:
        found = {}
        for who in ("doctor", "spare", "ana", "berta", "carla", "dora", "nueva", "blank"):
            with open_token(circle.uris[who], pin) as token:
                found[who] = sorted(token.names())
        return found

    before = held()
    with pytest.raises(BreakGlassRefused, match=wrong.words) as caught:
        wrong.do(circle)
    assert caught.value.hint
    assert held() == before
    with circle.practice.open(token="doctor") as vault:
        vault.log.verify()


NAMES = ("x" * 201, "ni\udcff", "x" * 70_000)


@pytest.mark.parametrize("name", NAMES, ids=len)
def test_what_a_person_may_be_called(circle: Circle, name: str) -> None:
    """A longer one would make a file that nobody can read, and one that is no text no file at all."""

    def refused(call: Callable[[], object]) -> None:
        with pytest.raises(UsageError):
            call()

    request = circle.request("EXP-1")
    hand, journal = circle.hand("nueva"), circle.journal("nueva")
    for asked in (
        RequestOptions("nueva", "motivo", name),
        RequestOptions("nueva", name * 5, "Dr. Ejemplo"),
        RequestOptions(name, "motivo", "x"),
    ):
        refused(lambda asked=asked: emergency.request(Location.parse(circle.practice.path), hand, asked, journal))  # type: ignore[misc]
    custodian = emergency.Actor(pin, name, circle.uris["ana"], clock=circle.practice.clock)
    refused(lambda: emergency.approve(request, custodian, circle.journal("ana"), lambda reviewed: None))
    refused(lambda: emergency.drill(custodian, circle.journal("ana")))
    assert circle.approve(request, "ana")  # the request is still on its token, and its journal goes on
    lines = (circle.home / "ana" / "journal").read_bytes().splitlines()
    assert [f'"sequence":{number},'.encode() in line for number, line in enumerate(lines, 1)] == [True] * len(lines)


def test_the_longest_names_there_may_be(circle: Circle) -> None:
    asked = RequestOptions("n" * 32, "€" * 1000, "€" * 200, "EXP-1", 72)
    made = emergency.request(
        Location.parse(circle.practice.path), circle.hand("nueva"), asked, circle.journal("nueva")
    ).file()
    custodian = emergency.Actor(pin, "€" * 200, circle.uris["ana"], clock=circle.practice.clock)
    approved = emergency.approve(made, custodian, circle.journal("ana"), lambda reviewed: None).file()
    assert max(len(made), len(approved)) < 1 << 16
    before = len((circle.home / "ana" / "journal").read_bytes().splitlines())
    circle.approve(made, "ana")
    last = (circle.home / "ana" / "journal").read_bytes().splitlines()[-1]
    assert f'"sequence":{before + 1},'.encode() in last


def test_nothing_is_lost_by_a_refusal(circle: Circle, tmp_path: Path) -> None:
    with circle.practice.open(token="doctor") as vault, pytest.raises(MedcryptError):
        vault.custodians.ceremony({"ana": circle.uris["blank"]}, 2, pin_of, OtherTokens(pin))
    request = circle.request()
    circle.recover(request, [circle.approve(request, who) for who in ("dora", "ana")])
