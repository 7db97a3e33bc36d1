"""A practice with a past, built once and copied by the tests that damage, kill or crowd it. See conftest.py."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.kills.place import Command, Look, Place
from tests.support.checkout import ROOT
from tests.support.softhsm import softhsm_module

NOVEMBER, DECEMBER = "2026-11-20 10:00:00", "2026-12-01 10:00:00"
V1_SECRET = "clinic-7-pairing-secret-2026"
PLAINTEXT = "the plaintext of a message"
WITH_SECRET = (("V1_SECRET", V1_SECRET),)
CREATE = Command(("vault", "create", "--token", f"doctor=pkcs11:token=doctor?module-path={softhsm_module()}"))
WHOLE = ["DATA medcrypt anchor", "PRIVATE_KEY medcrypt audit", "PUBLIC_KEY medcrypt audit", "SECRET_KEY medcrypt kek"]


@dataclass(frozen=True)
class Established:
    """A vault with four patients, messages, a backup and more messages; what looking at it shows."""

    place: Place
    wires: list[str]
    texts: list[str]
    look: Look

    @property
    def entries(self) -> list[list[object]]:
        """Without what looking itself wrote."""
        entries: list[list[object]] = self.look["entries"]
        return entries[: -len(looking(self.wires))]


def looking(wires: list[str]) -> list[str]:
    """What look.py enters into the log before it reads it."""
    return ["message.decrypt", "patient.list", "audit.show"] if wires else ["patient.list", "audit.show"]


def establish(blank: Place, root: Path) -> Established:
    place = blank.copy_to(root / "base")
    place.run(CREATE)
    (place.root / "backups").mkdir(mode=0o700)
    patients = ("EXP-1", "EXP-2", "OLD-1", "EXP-3")
    texts = [f"{PLAINTEXT} to {patient}" for patient in patients]
    jobs: list[tuple[object, ...]] = [("add", ["EXP-1", "EXP-2", "EXP-3"]), ("add_v1", "OLD-1", V1_SECRET)]
    writing = [("encrypt", patient, [text]) for patient, text in zip(patients, texts, strict=True)]
    jobs += [*writing[:3], ("backup", [str(place.root / "backups" / "old.db")]), writing[3]]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills.writer", str(place.vault)],
        input="".join(json.dumps(job) + "\n" for job in jobs),
        env=place.medcrypt.environment(NOVEMBER),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()][1:]
    wires = [wire for job, made in zip(jobs, answers, strict=True) if job[0] == "encrypt" for wire in made]
    look = place.copy_to(root / "look").look(wires, NOVEMBER)
    assert look["read"] == texts
    assert look["objects"] == WHOLE
    return Established(place, wires, texts, look)
