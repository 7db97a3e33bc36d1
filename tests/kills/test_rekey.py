"""Re-keying killed at any moment: the next run takes it back or finishes it, and nothing in between is ever seen.

Each row of ``WORK`` is run to its end once, to learn every call that changes a file and what the vault is like
afterwards. Then copies are killed before one call after the other. What the next run finds must be what a vault is like
that was never re-keyed, or what one is like that was re-keyed undisturbed: tokens, texts, files and all.

With ``scripts/test --full`` before every call, but for SoftHSM2's rewriting of an object that is being made, which is
one file written some twenty times: there the first, the last and one between.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.kills.past import V1_SECRET
from tests.kills.place import Command, Place, Point
from tests.kills.test_kills import kills
from tests.support import FULL, PIN_VARIABLE, ROOT

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
    points: int = 3  # in a normal run
    profiles: tuple[tuple[str, str], ...] = PROFILES[:1]


def september(key: str) -> bool:
    return key.endswith("2026-09")


AWAY = ("--without", "spare")
WORK = (
    Work("shred", ("shred", "2026-09"), gone=september, points=6, profiles=PROFILES),
    Work("shred-away", ("shred", "2026-09", *AWAY), spare="2", left=("2:spare",), gone=september),
    Work("erase", ("patient", "erase", "EXP-2"), gone=lambda key: "EXP-2" in key, profiles=PROFILES[1:]),
    Work("remove", ("vault", "remove-token", "spare"), spare=None, profiles=PROFILES if FULL else PROFILES[1:]),
    Work("remove-away", ("vault", "remove-token", "spare", *AWAY), spare=None, points=2),  # found again, and emptied
    Work("sync", ("vault", "sync"), gone=september, lagging=True, profiles=PROFILES),
    Work("hold", ("hold", "add", "--patient", "EXP-1", "--reason", "a case"), doctor="2", spare="2", points=2),
)
CASES = [pytest.param(work, *profiles, id=f"{work.name}-{profiles[0]}") for work in WORK for profiles in work.profiles]


@dataclass
class Past:
    """A practice as past.py makes it, once for each pair of profiles; ``lagging``: the spare token was away since."""

    root: Path
    blank: Place
    made: dict[tuple[str, ...], tuple[Place, dict[str, str]]] = field(default_factory=dict)

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


@pytest.fixture(scope="session")
def past(blank: Place, tmp_path_factory: pytest.TempPathFactory) -> Past:
    return Past(tmp_path_factory.mktemp("past"), blank)


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


@pytest.mark.parametrize(("work", "doctor", "spare"), CASES)
def test_killed(past: Past, tmp_path: Path, work: Work, doctor: str, spare: str) -> None:
    start, wires = past(doctor, spare, lagging=work.lagging)
    todo, old_keys = command(*work.args), wrapped(start)
    undisturbed = start.copy_to(tmp_path / "undisturbed")
    undisturbed.run(todo)
    before, after = look(start.copy_to(tmp_path / "before"), wires), look(undisturbed, wires)
    assert after["objects"]["doctor"] == sorted([*REST, *kek(doctor, work.doctor)])
    assert after["objects"]["spare"] == ([] if work.spare is None else sorted([*REST, *kek(spare, work.spare)]))
    assert after["doomed_at_last"] == list(work.left)
    for key, read in after["read"].items():
        assert (read == f"to {key.replace(' ', ' in ')}") == (not work.gone(key) and "2026-08" not in key), key

    def check(place: Place, stdout: str) -> None:
        done = committed(work, place)
        assert done or not stdout, "reported, but not done"
        found = look(place, wires)
        if not done:
            # A leftover on the token that was not in use wraps nothing, and goes when its next root key is made.
            found["objects"]["spare"] = [o for o in found["objects"]["spare"] if o in before["objects"]["spare"]]
            _same(before, found)
            place.run(todo)
            found = look(place, wires)
        _same(after, found)
        nowhere([V1_SECRET.encode(), b"to EXP-1 in", b"written afterwards"], place.files())
        if work.doctor == "3" and not work.lagging:
            nowhere(old_keys, place.vault.parent.iterdir())

    kills(start, todo, work.points, check, tmp_path, choose=choose)


def _same(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """But for how many entries and rows there are, and an old root key that went only when its own token came."""
    assert not found["begun"]
    assert not found["orphans"]
    assert found["certificate_whole"]
    assert found["backed_up"] >= expected["backed_up"]
    for name in expected.keys() - {"backed_up", "rows", "doomed", "spare_orphans"}:
        assert found[name] == expected[name], name
