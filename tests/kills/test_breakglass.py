"""Ceremony, rotation, replacement, recovery and reading by break-glass, killed at any moment.

What the next run finds is what the vault was before, with the old custodians as good as ever, or what it is afterwards;
and the same command, run again, makes the latter of the former. A use of break-glass is never forgotten.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kills.circle import CUSTODIANS, EVERYBODY, NOW
from tests.kills.place import Command, Place
from tests.kills.rekeyed import _run, choose
from tests.kills.test_kills import kills
from tests.support import PIN_VARIABLE, softhsm_module

PINS = (("MEDCRYPT_PIN_SOURCE", " ".join(f"{name}=env:{PIN_VARIABLE}" for name in EVERYBODY)),)
MAYBE = ("destroyed", "old", "compromised")  # a killed run leaves old shares to 'vault sync'; the look runs that


def token(name: str) -> str:
    return f"{name}=pkcs11:token={name}?module-path={softhsm_module()}"


def shares(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--share-token", token(name))]


def approved(who: str) -> list[str]:
    return [f"@PLACE@/desk/{who}.request", *(f"@PLACE@/desk/{who}-{c}.approval" for c in ("ana", "berta"))]


@dataclass(frozen=True)
class Work:
    """A command, where it begins, and how often a normal run kills it."""

    name: str
    args: tuple[str, ...]
    points: int
    plain: bool = False
    stdin: str = ""
    own: str = "doctor"  # the token in use
    again: tuple[int, ...] = (0,)  # exit codes of the same command behind a kill
    pins: tuple[tuple[str, str], ...] = field(default=PINS)

    def command(self, wires: dict[str, str]) -> Command:
        text = "\n".join(wires.values()) if self.stdin else ""
        chosen = ("--token", self.own) if self.own == "doctor" else ()
        return Command((*chosen, "--yes", "breakglass", *self.args), text, at=f"{NOW}:00", env=self.pins)


WORK = (
    Work("ceremony", ("ceremony", *shares(*CUSTODIANS)), 4, plain=True, again=(0, 2)),
    Work("rotate", ("rotate",), 4),
    Work("replace", ("replace", "berta", *shares("dora")), 3, again=(0, 2)),
    Work("recover", ("recover", *approved("nueva")), 5, own="nueva", again=(0, 6)),
    Work("decrypt", ("decrypt", *approved("guardia")), 4, own="guardia", stdin="all", again=(0, 6)),
)


@pytest.fixture(scope="module")
def circles(blank: Place, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], tuple[Place, dict[str, str]]]:
    """A practice of seven tokens, with custodians or without; each made once."""
    made: dict[bool, tuple[Place, dict[str, str]]] = {}

    def make(plain: bool) -> tuple[Place, dict[str, str]]:
        if plain not in made:
            place = blank.copy_to(tmp_path_factory.mktemp("circle") / "place")
            for name in EVERYBODY[1:]:
                place.softhsm.make_token(name)
            what = "plain" if plain else "make"
            made[plain] = place, _run(place, "tests.kills.circle", what, str(place.vault))
        return made[plain]

    return make


def look(place: Place, wires: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = _run(place, "tests.kills.circle", "look", str(place.vault), stdin=wires)
    return found


def state(place: Place) -> dict[tuple[str, str], Any]:
    """The trust rows as the kill left them."""
    return {(kind, name): json.loads(value) for kind, name, value in place.rows("SELECT kind, name, value FROM trust")}


def same(expected: dict[str, Any], found: dict[str, Any], *but: str) -> None:
    for name in expected.keys() - {*but}:
        assert found[name] == expected[name], name


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.name)
def test_killed(circles: Callable[[bool], tuple[Place, dict[str, str]]], tmp_path: Path, work: Work) -> None:
    start, wires = circles(work.plain)
    todo = work.command(wires)
    undisturbed = start.copy_to(tmp_path / "undisturbed")
    said = undisturbed.run(todo).stdout
    assert said
    before, after = look(start.copy_to(tmp_path / "before"), wires), look(undisturbed, wires)
    assert after["read"] == before["read"] == [f"to EXP-1 in {month}" for month in wires]
    generation = state(start)["vault", ""]["generation"]

    def check(place: Place, stdout: str) -> None:
        rows = state(place)
        done = rows["vault", ""]["generation"] != generation
        used = any(kind == "use" for kind, _ in rows)
        assert done or work.name == "decrypt" or not stdout, "reported, but not done"
        if not done and not used:
            # The old custodians, if there were any, are as good as ever. Leftovers on tokens open nothing.
            copy = place.copy_to(place.root.with_name(f"{place.root.name}-copy"))
            found = look(copy, wires)
            same(before, found, *MAYBE, "objects", "ceremonies", *(["uses"] if work.name == "decrypt" else []))
            shutil.rmtree(copy.root)
        again = place.run(todo, code=None)
        assert again.returncode in (work.again if done or work.name == "decrypt" else (0,)), again
        found = look(place, wires)
        same(after, found, *MAYBE)
        assert found["compromised"] == (work.name in ("recover", "decrypt"))

    kills(start, todo, work.points, check, tmp_path, choose=choose)
