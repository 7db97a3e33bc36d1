"""Commands that re-key a vault of two tokens, and what must hold whatever happens to them: for tests.

In: a ``Past``, a row of ``WORK``. Out: a ``Campaign``, which knows what the vault is like without the command and after
it, and whether a place that was disturbed is one of the two. Plain code without pytest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.kills.past import V1_SECRET
from tests.kills.place import Command, Place, Point
from tests.support.checkout import FULL, ROOT
from tests.support.command_line import PIN_VARIABLE

NOW = "2026-11-20 10:00:00"
PINS = (("MEDCRYPT_PIN_SOURCE", f"doctor=env:{PIN_VARIABLE} spare=env:{PIN_VARIABLE}"),)
PROFILES = (("aes-kw", "p256-hpke"), ("p256-hpke", "aes-kw"))
CLASSES = {"aes-kw": ["SECRET_KEY"], "p256-hpke": ["PRIVATE_KEY", "PUBLIC_KEY"]}
REST = ["DATA anchor", "PRIVATE_KEY audit", "PUBLIC_KEY audit"]


def command(*args: str) -> Command:
    return Command(("--token", "doctor", "--yes", *args), env=PINS, at=NOW)


@dataclass(frozen=True)
class Work:
    """A command and what it comes to: generations of the root keys on both tokens, old ones left, texts not read."""

    name: str
    args: tuple[str, ...]
    doctor: str = "3"
    spare: str | None = "3"  # None: nothing of the vault is left there
    left: tuple[str, ...] = ()
    gone: Callable[[str], bool] = lambda key: False
    lagging: bool = False  # it begins where the spare token was away when September was shredded
    points: int = 2  # in a normal run
    profiles: tuple[tuple[str, str], ...] = PROFILES[:1]


def september(key: str) -> bool:
    return key.endswith("2026-09")


AWAY = ("--without", "spare")
WORK = (
    Work("shred", ("shred", "2026-09"), gone=september, points=3, profiles=PROFILES),
    Work("shred-away", ("shred", "2026-09", *AWAY), spare="2", left=("2:spare",), gone=september),
    Work(
        "erase",
        ("patient", "erase", "EXP-2", "--certificate", "@PLACE@/backups/certificate"),
        gone=lambda key: "EXP-2" in key,
        profiles=PROFILES[1:],
    ),
    Work("remove", ("vault", "remove-token", "spare"), spare=None, profiles=PROFILES if FULL else PROFILES[1:]),
    Work("remove-away", ("vault", "remove-token", "spare", *AWAY), spare=None, points=2),  # found again, and emptied
    Work("sync", ("vault", "sync"), gone=september, lagging=True, profiles=PROFILES),
    Work("hold", ("hold", "add", "--patient", "EXP-1", "--reason", "a case"), doctor="2", spare="2", points=2),
)


@dataclass
class Past:
    """A practice as past.py makes it, once for each pair of profiles; ``lagging``: the spare token was away since."""

    root: Path
    blank: Place
    made: dict[tuple[str, ...], tuple[Place, dict[str, str]]] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)

    def __call__(self, doctor: str, spare: str, *, lagging: bool = False) -> tuple[Place, dict[str, str]]:
        key = (doctor, spare, "lagging" if lagging else "")
        if key not in self.made and lagging:
            place, wires = self(doctor, spare)
            place = place.copy_to(self.root / "-".join(key))
            place.run(command("shred", "2026-09", *AWAY))
            self.made[key] = place, wires
        elif key not in self.made:
            place = self.blank.copy_to(self.root / "-".join(key))
            place.softhsm.make_token("spare")
            (place.root / "backups").mkdir(mode=0o700)
            wires = _run(place, "tests.kills.past", str(place.vault), doctor, spare)
            self.made[key] = place, wires
        return self.made[key]

    def campaign(self, work: Work, doctor: str, spare: str) -> Campaign:
        name = f"{work.name}-{doctor}"
        if name not in self.campaigns:
            self.campaigns[name] = Campaign.of(self, work, doctor, spare, self.root / name)
        return self.campaigns[name]


def _run(place: Place, module: str, *arguments: str, stdin: object = None) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=json.dumps(stdin),
        env=place.medcrypt.environment(NOW),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def look(place: Place, wires: dict[str, str]) -> dict[str, Any]:
    """What aftermath.py finds and leaves, but for what SQLite has beside its file."""
    found: dict[str, Any] = _run(place, "tests.kills.aftermath", str(place.vault), stdin=wires)
    found["files"] = [name for name in found["files"] if name not in ("vault.db-wal", "vault.db-shm")]
    return found


def choose(points: list[Point], most: int) -> list[Point]:
    """Of each object that SoftHSM2 writes the first, a middle and the last write; a normal run takes some evenly."""
    telling: list[Point] = []
    for rewriting, group in groupby(points, lambda p: p.what.endswith("*.object") and p.call in ("write", "ftruncate")):
        run = list(group)
        telling += [run[0], run[len(run) // 2], run[-1]] if rewriting and len(run) > 3 else run
    if FULL:
        return telling
    return [telling[round(i * (len(telling) - 1) / (most - 1))] for i in range(most)]


def raw(place: Place) -> tuple[bool, dict[str, Any]]:
    """Of the file as the kill left it: is something begun, and generation → row of each keyset?"""
    rows = {(kind, name): json.loads(value) for kind, name, value in place.rows("SELECT kind, name, value FROM trust")}
    return ("rekey", "") in rows, rows


def committed(work: Work, place: Place) -> bool:
    _, rows = raw(place)
    if work.name == "hold":
        return any(kind == "hold" for kind, _ in rows)
    if work.name == "sync":
        return rows.get(("keyset", "3:spare"), {}).get("kek") == 3
    return bool(rows["vault", ""]["generation"] == 3)


def wrapped(place: Place) -> list[bytes]:
    """Every key as it is wrapped under the present keyset."""
    return [row for (row,) in place.rows("SELECT wrapped FROM records")]


def nowhere(secrets: list[bytes], files: Iterable[Path]) -> None:
    for file in files:
        content = file.read_bytes()
        assert not [secret.hex() for secret in secrets if secret in content], file


def kek(profile: str, generation: str) -> list[str]:
    return [f"{kind} kek {generation}" for kind in CLASSES[profile]]


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
    old_keys: list[bytes]

    @classmethod
    def of(cls, past: Past, work: Work, doctor: str, spare: str, directory: Path) -> Campaign:
        start, wires = past(doctor, spare, lagging=work.lagging)
        todo = command(*work.args)
        undisturbed = start.copy_to(directory / "undisturbed")
        undisturbed.run(todo)
        before, after = look(start.copy_to(directory / "before"), wires), look(undisturbed, wires)
        return cls(work, directory, start, wires, todo, before, after, wrapped(start))

    @cached_property
    def points(self) -> list[Point]:
        """Every call of the command that changes a file."""
        return self.start.copy_to(self.directory / "counted").points(self.todo)

    def check(self, place: Place, stdout: str) -> None:
        """Whatever happened: the next run makes of it one of the two."""
        done = committed(self.work, place)
        assert done or not stdout, "reported, but not done"
        found = self._look(place)
        if not done:
            # A leftover on the token that was not in use wraps nothing, and goes when its next root key is made.
            found["objects"]["spare"] = [o for o in found["objects"]["spare"] if o in self.before["objects"]["spare"]]
            _same(self.before, found)
            place.run(self.todo)
            found = self._look(place)
        _same(self.after, found)
        nowhere([V1_SECRET.encode(), b"to EXP-1 in", b"written afterwards"], place.files())
        if self.work.doctor == "3" and not self.work.lagging:
            nowhere(self.old_keys, place.vault.parent.iterdir())

    def _look(self, place: Place) -> dict[str, Any]:
        found = look(place, self.wires)
        for objects in found["objects"].values():
            if objects[:2] == ["DATA anchor"] * 2:  # harmless, until that token's next anchor
                del objects[0]
        spare = found["objects"]["spare"]
        if found["retired"] and set(spare) <= set(REST):
            spare.clear()  # killed when all is told: they count for nothing, and go if that token is added anew
        return found


def _same(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """But for how many entries and rows there are, and an old root key that went only when its own token came."""
    assert not found["begun"]
    assert not found["orphans"]
    assert found["certificate_whole"]
    assert found["backed_up"] >= expected["backed_up"]
    for name in expected.keys() - {"backed_up", "rows", "doomed", "spare_orphans"}:
        assert found[name] == expected[name], name


SHRED, SYNC = WORK[0], next(work for work in WORK if work.name == "sync")


def commit_of(points: list[Point]) -> Point:
    """The sync by which it is committed: the last one before a token forgets anything, an old anchor or root key."""
    forgets = next(i for i, p in enumerate(points) if p.call == "unlink" and p.what.endswith("*.object"))
    return [p for p in points[:forgets] if (p.call, p.what) == ("fdatasync", "practice/vault.db-wal")][-1]
