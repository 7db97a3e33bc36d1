"""Commands about custodians, and what must hold whatever happens to them: for tests.

In: ``Circles``, a row of ``WORK``. Out: a ``Campaign``, which knows what the vault is like without the command and
after it, and whether a place that was disturbed is one of the two. Plain code without pytest.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.kills.circle import EVERYBODY, NOW
from tests.kills.place import Command, Place, Point
from tests.kills.rekeyed import _run
from tests.support.breakglass import CUSTODIANS
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import softhsm_module

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
    again: tuple[int, ...] = (0,)  # exit codes of the same command after a kill
    pins: tuple[tuple[str, str], ...] = field(default=PINS)

    def command(self, wires: dict[str, str]) -> Command:
        text = "\n".join(wires.values()) if self.stdin else ""
        chosen = ("--token", self.own) if self.own == "doctor" else ()
        return Command((*chosen, "--yes", "breakglass", *self.args), text, at=f"{NOW}:00", env=self.pins)


WORK = (
    Work("ceremony", ("ceremony", *shares(*CUSTODIANS)), 3, plain=True, again=(0, 2)),
    Work("rotate", ("rotate",), 3),
    Work("replace", ("replace", "berta", *shares("dora")), 2, again=(0, 2)),
    Work("recover", ("recover", *approved("nueva")), 3, own="nueva", again=(0, 6)),
    Work("decrypt", ("decrypt", *approved("guardia")), 3, own="guardia", stdin="all", again=(0, 6)),
)


@dataclass
class Circles:
    """A practice of seven tokens, with custodians or ``plain``; each made once."""

    root: Path
    blank: Place
    made: dict[bool, tuple[Place, dict[str, str]]] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)

    def __call__(self, *, plain: bool) -> tuple[Place, dict[str, str]]:
        if plain not in self.made:
            what = "plain" if plain else "make"
            place = self.blank.copy_to(self.root / what)
            for name in EVERYBODY[1:]:
                place.softhsm.make_token(name)
            self.made[plain] = place, _run(place, "tests.kills.circle", what, str(place.vault))
        return self.made[plain]

    def campaign(self, name: str) -> Campaign:
        if name not in self.campaigns:
            work = next(work for work in WORK if work.name == name)
            self.campaigns[name] = Campaign.of(work, *self(plain=work.plain), self.root / name)
        return self.campaigns[name]


def look(place: Place, wires: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = _run(place, "tests.kills.circle", "look", str(place.vault), stdin=wires)
    return found


def state(place: Place) -> dict[tuple[str, str], Any]:
    """The trust rows as the kill left them."""
    return {(kind, name): json.loads(value) for kind, name, value in place.rows("SELECT kind, name, value FROM trust")}


def same(expected: dict[str, Any], found: dict[str, Any], *but: str) -> None:
    for name in expected.keys() - {*but}:
        assert found[name] == expected[name], name


@dataclass(frozen=True)
class Campaign:
    """One row of ``WORK``: where it begins, and what a vault is like before it and after it."""

    work: Work
    directory: Path
    start: Place
    wires: dict[str, str]
    todo: Command
    before: dict[str, Any]
    after: dict[str, Any]
    generation: int

    @classmethod
    def of(cls, work: Work, start: Place, wires: dict[str, str], directory: Path) -> Campaign:
        todo = work.command(wires)
        undisturbed = start.copy_to(directory / "undisturbed")
        assert undisturbed.run(todo).stdout
        before, after = look(start.copy_to(directory / "before"), wires), look(undisturbed, wires)
        assert after["read"] == before["read"] == [f"to EXP-1 in {month}" for month in wires]
        return cls(work, directory, start, wires, todo, before, after, state(start)["vault", ""]["generation"])

    @cached_property
    def points(self) -> list[Point]:
        """Every call of the command that changes a file."""
        return self.start.copy_to(self.directory / "counted").points(self.todo)

    def committed(self, place: Place) -> bool:
        return bool(state(place)["vault", ""]["generation"] != self.generation)

    def check(self, place: Place, stdout: str) -> None:
        """Whatever happened: the vault is as before, or the same command makes of it what it is afterwards."""
        rows, name = state(place), self.work.name
        done = self.committed(place)
        used = any(kind == "use" for kind, _ in rows)
        assert done or name == "decrypt" or not stdout, "reported, but not done"
        if not done and not used:
            # The old custodians, if there were any, are as good as ever. Leftovers on tokens open nothing.
            copy = place.copy_to(place.root.with_name(f"{place.root.name}-copy"))
            found = look(copy, self.wires)
            found["keks"]["nueva"] = self.before["keks"]["nueva"]
            same(self.before, found, *MAYBE, "objects", "ceremonies", *(["uses"] if name == "decrypt" else []))
            shutil.rmtree(copy.root)
        again = place.run(self.todo, code=None)
        assert again.returncode in (self.work.again if done or name == "decrypt" else (0,)), again
        found = look(place, self.wires)
        same(self.after, found, *MAYBE)
        assert found["compromised"] == (name in ("recover", "decrypt"))
