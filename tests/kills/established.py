"""A practice with a past, built once and copied by the tests that damage, kill or crowd it. See conftest.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.kills.place import Command, Look, Place
from tests.support import softhsm_module

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
        return self.look["entries"][: -len(looking(self.wires))]


def looking(wires: list[str]) -> list[str]:
    """What look.py enters into the log before it reads it."""
    return ["message.decrypt", "patient.list", "audit.show"] if wires else ["patient.list", "audit.show"]


def establish(blank: Place, root: Path) -> Established:
    place = blank.copy_to(root / "base")
    place.run(CREATE)
    for patient in ("EXP-1", "EXP-2", "EXP-3"):
        place.run(Command(("patient", "add", patient, "--unconfirmed")))
    place.run(
        Command(("patient", "add", "OLD-1", "--protocol", "v1", "--secret-source", "env:V1_SECRET"), env=WITH_SECRET)
    )
    patients = ("EXP-1", "EXP-2", "OLD-1", "EXP-3")
    texts = [f"{PLAINTEXT} to {patient}" for patient in patients]
    wires = [
        place.run(Command(("encrypt", patient), stdin=text)).stdout.strip()
        for patient, text in zip(patients[:3], texts, strict=False)
    ]
    (place.root / "backups").mkdir(mode=0o700)
    place.run(Command(("vault", "backup", "@PLACE@/backups/old.db")))
    wires.append(place.run(Command(("encrypt", "EXP-3"), stdin=texts[3])).stdout.strip())
    look = place.copy_to(root / "look").look(wires, NOVEMBER)
    assert look["read"] == texts
    assert look["objects"] == WHOLE
    return Established(place, wires, texts, look)
