"""A program that makes a practice with a past and two tokens, for the tests of re-keying.

``python -m tests.kills.past VAULT PROFILE PROFILE``: how the tokens "doctor" and "spare" serve. Its clock is its own.
August is shredded already, so that there is a second keyset, and a backup and a certificate that the program made
itself. On stdout, as JSON: "patient month" → the wire text of that time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from tests.support.practice import Practice, pin
from tests.support.softhsm import softhsm_module

PATIENTS = ("EXP-1", "EXP-2", "OLD-1")
MONTHS = ("2026-08", "2026-09", "2026-10", "2026-11")
V1_SECRET = "clinic-7-pairing-secret-2026"


def uri(label: str) -> str:
    return f"pkcs11:token={label}?module-path={softhsm_module()}"


def make(path: Path, doctor: str, spare: str) -> dict[str, str]:
    practice = Practice(path, uri("doctor"))
    practice.clock.set("2026-08-17")
    wires = {}
    with practice.create(options=TokenOptions(doctor)) as vault:
        for patient in PATIENTS[:2]:
            vault.patients.add(patient, unconfirmed=True)
        vault.patients.add(PATIENTS[2], protocol="v1", secret=V1_SECRET)
    practice.add("spare", uri("spare"), options=TokenOptions(spare))
    for month in MONTHS:
        practice.clock.set(f"{month}-18")
        with practice.open(token="doctor") as vault:
            for patient in PATIENTS:
                (wires[f"{patient} {month}"],) = vault.encrypt(patient, f"to {patient} in {month}")
            if month == "2026-10":
                vault.backup(path.parent.parent / "backups" / "old.db")
    practice.clock.set("2026-11-19")
    with practice.open(token="doctor") as vault:
        vault.months.shred([Month.parse("2026-08")], OtherTokens(pin))
    return wires


if __name__ == "__main__":
    json.dump(make(Path(sys.argv[1]), *sys.argv[2:]), sys.stdout)
