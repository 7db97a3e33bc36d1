"""The procedure at library level, on SoftHSM2: ceremony, request, approval, one patient, the practice, and after it."""

from __future__ import annotations

import itertools
from contextlib import closing

import pytest

from medcrypt_hsm.breakglass import recover
from medcrypt_hsm.breakglass.recover import Emergency
from medcrypt_hsm.errors import VaultForeign
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.statements import Approval, Request, read
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import pin, statuses
from tests.support.store import open_at


def texts_of(circle: Circle) -> dict[str, str]:
    """Text → wire, over three months, with the ceremony in between."""
    wires: dict[str, str] = {}
    with circle.practice.open() as vault:
        phone = circle.practice.pair(vault, "EXP-1")
        circle.practice.pair(vault, "EXP-2")
        (wires["septiembre"],) = vault.encrypt("EXP-1", "septiembre")
        (wires["de otra"],) = vault.encrypt("EXP-2", "de otra")
    circle.practice.clock.set("2026-10-20")
    with circle.practice.open() as vault:
        vault.months.open()
        (wires["octubre"],) = vault.encrypt("EXP-1", "octubre")
    circle.ceremony()
    circle.practice.clock.set("2026-11-20")
    with circle.practice.open() as vault:
        vault.months.open()
        (wires["noviembre"],) = phone.write("noviembre")
    return wires


def test_one_patient_is_read_by_two_of_three_and_the_rest_is_not(circle: Circle) -> None:
    wires = texts_of(circle)
    request = circle.request("EXP-1")
    approvals = [circle.approve(request, who) for who in ("ana", "carla")]
    opened = circle.decrypt(request, approvals, *wires.values())
    assert {message.text for message in opened} == {"septiembre", "octubre", "noviembre", None}
    assert statuses(opened) == ["ok", "breakglass-refused", "ok", "ok"]
    assert "BG-9" in str(opened[1].error)
    assert circle.told[0].by.reason == "La doctora no despierta"
    with pytest.raises(BreakGlassRefused, match="BG-5"):
        circle.decrypt(request, approvals, *wires.values())
    with circle.practice.open() as vault:
        vault.log.verify()
        assert all(p.compromised for p in vault.patients.list())
        actions = [entry.action for _, entry in vault.log.entries()]
    for action in ("breakglass.open", "breakglass.read", "message.decrypt", "breakglass.close", "notes"):
        assert action in actions
    circle.practice.clock.forward(hours=1)
    circle.rotate()
    with circle.practice.open() as vault:
        vault.log.verify()
        assert vault.encrypt("EXP-1", "sigue")


@pytest.mark.parametrize("pair", list(itertools.combinations(CUSTODIANS, 2)), ids="-".join)
def test_the_practice_is_recovered_by_each_pair(circle: Circle, pair: tuple[str, str]) -> None:
    wires = texts_of(circle)
    with circle.practice.open() as vault:
        vault.encrypt("EXP-1", "otra")
    request = circle.request()
    made = circle.recover(request, [circle.approve(request, who) for who in pair])
    assert made.value["action"] == "breakglass.recover"
    with circle.practice.open() as vault:
        assert vault.token_name == "nueva"
        vault.log.verify()
        opened = vault.decrypt("\n".join(wires.values()), archive=True)
        assert [message.text for message in opened] == list(wires)
        assert all(p.compromised for p in vault.patients.list())
        vault.patients.repair("EXP-1")
    with pytest.raises(VaultForeign):
        circle.practice.open(token="doctor")
    with pytest.raises(BreakGlassRefused, match="BG-5"):
        circle.recover(request, [circle.approve(request, who) for who in pair])
    circle.practice.clock.forward(hours=1)
    circle.rotate(token="nueva")
    with circle.practice.open() as vault:
        vault.log.verify()


def test_a_custodian_is_replaced(circle: Circle) -> None:
    circle.ceremony()
    with circle.practice.open() as vault:
        made = vault.custodians.replace("berta", "dora", circle.uris["dora"], lambda name: pin, OtherTokens(pin))
        assert [c["name"] for c in made.value["custody"]["custodians"]] == ["ana", "dora", "carla"]
        assert all(share["destroyed"] for share in made.value["old_shares"])
        vault.log.verify()
    with pytest.raises(BreakGlassRefused, match="BG-1"):
        circle.request(who="ana")
    request = circle.request()
    with pytest.raises(BreakGlassRefused, match="holds no share of that vault"):
        circle.approve(request, "berta")
    circle.recover(request, [circle.approve(request, who) for who in ("dora", "ana")])


def test_a_recovery_that_was_begun_ends_with_the_token_that_it_brought_in(circle: Circle) -> None:
    """The doctor is back before it went on: the new token is taken away, and the request is used all the same."""
    circle.ceremony()
    request = circle.request()
    approvals = [circle.approve(request, who) for who in ("ana", "carla")]
    emergency = Emergency(read(request, Request), [read(a, Approval) for a in approvals], circle.hand("nueva").open())
    with (
        closing(open_at(circle.practice.path)) as file,
        emergency.token,
        recover._opened(file, emergency, "guardia", circle.practice.clock) as (unlocked, opening, secret),
    ):
        recover._introduce(unlocked, emergency, opening, secret)  # and no further
    with circle.practice.open(token="doctor") as vault:
        assert any("recovery was begun" in problem for problem in vault.status().problems)
        vault.tokens.remove("nueva", OtherTokens(pin))
        assert not any("recovery was begun" in problem for problem in vault.status().problems)
        vault.log.verify()
    with pytest.raises(BreakGlassRefused, match="BG-5"):
        circle.recover(request, approvals)
