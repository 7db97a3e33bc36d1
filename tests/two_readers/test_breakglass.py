"""Real vaults at each step of the break-glass procedure: package and script read them with public keys, and agree.

The certificates are read by the script alone. Logs that no program writes: tests/two_readers/test_requests.py,
test_uses.py and test_custody.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from tests.support.breakglass import CUSTODIANS, Circle, pin_of
from tests.support.practice import Practice, pin
from tests.support.softhsm import SoftHsm
from tests.support.two_readers import audit_keys, package_accepts, script_says

OCTOBER = Month.parse("2026-10")


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    return {name: softhsm.make_token() for name in ("doctor", *CUSTODIANS, "dora", "nueva", "otra")}


@pytest.fixture
def circle(tmp_path: Path, uris: dict[str, str]) -> Circle:
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    made.clock.set("2026-10-20")
    with made.create() as vault:
        made.pair(vault, "EXP-1")
        vault.encrypt("EXP-1", "octubre")
    made.clock.set("2026-11-20")
    with made.open() as vault:
        vault.months.open()
    return Circle(made, uris, tmp_path / "homes")


def agreed(circle: Circle, *more: str) -> Any:
    """What the script found, given every token's key; the package accepts it too. The clock goes on by an hour."""
    path, keys = circle.practice.path, audit_keys(circle.practice)
    accepted, found = script_says(path, *keys, more=more)
    assert accepted, found
    assert package_accepts(path, *keys)
    circle.practice.clock.forward(hours=1)
    return found


def certified(circle: Circle, generation: int) -> list[str]:
    beside = circle.practice.path.with_name(f"{circle.practice.path.name}-certificate-{generation}.md")
    return [each["title"] for each in agreed(circle, "--certificate", str(beside))["certificates"]]


def test_from_the_first_ceremony_to_the_second_recovery(circle: Circle) -> None:
    circle.ceremony()
    found = agreed(circle)
    assert [told["name"] for told in found["break_glass"]["custodians"]] == [*CUSTODIANS]
    assert (found["break_glass"]["threshold"], found["old_shares_not_destroyed"], found["uses"]) == (2, [], [])
    assert certified(circle, 2) == [f"Break-glass ceremony: {', '.join(CUSTODIANS)}"]
    circle.record(circle.drill("ana"))
    assert [bool(told["drilled"]) for told in agreed(circle)["break_glass"]["custodians"]] == [True, False, False]

    with circle.practice.open() as vault:
        texts = vault.encrypt("EXP-1", "noviembre")
    request = circle.request("EXP-1")
    circle.decrypt(request, [circle.approve(request, who) for who in ("ana", "carla")], *texts)
    (use,) = agreed(circle)["uses"]
    assert (use["scope"], use["approved_by"], use["noted"], use["answered"]) == (
        "patient",
        ["ana", "carla"],
        False,
        None,
    )
    with circle.practice.open() as vault:
        vault.log.verify()
    assert agreed(circle)["uses"][0]["noted"]

    with circle.practice.open() as vault:
        vault.custodians.replace("berta", "dora", circle.uris["dora"], pin_of, OtherTokens(pin))
    found = agreed(circle)
    assert [told["name"] for told in found["break_glass"]["custodians"]] == ["ana", "dora", "carla"]
    assert found["uses"][0]["answered"] == found["break_glass"]["time"]
    assert certified(circle, 3)[0].startswith("Custodian replaced: ")
    with circle.practice.open() as vault:
        vault.months.shred([OCTOBER], OtherTokens(pin))
    assert certified(circle, 4) == ["Months shredded: 2026-10"]

    request = circle.request()
    circle.recover(request, [circle.approve(request, who) for who in ("dora", "ana")])
    found = agreed(circle)
    assert [token["retired"] is None for token in found["tokens"]] == [False, True]
    assert (found["uses"][1]["scope"], found["uses"][1]["phase"]) == ("practice", "done")
    assert certified(circle, 5) == ["Practice recovered: nueva"]
    circle.rotate(token="nueva")
    assert [bool(use["answered"]) for use in agreed(circle)["uses"]] == [True, True]
    assert certified(circle, 6)[0].startswith("Break-glass rotated: ")
