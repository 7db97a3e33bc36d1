"""A program that makes a practice with custodians, and one that looks at it afterwards: for killed break-glass work.

``python -m tests.kills.circle make VAULT``: three months, with custodians ana, berta and carla, a request of the whole
practice and one of patient EXP-1 (tokens ``nueva`` and ``guardia``), each approved by ana and berta. Their files lie in
``desk`` beside the vault's directory. ``plain``: the same without custodians. On stdout, as JSON: month → wire text.

``python -m tests.kills.circle look VAULT`` with such a JSON object on stdin: what is there, by every token that is.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.vault.choosing import peek
from tests.kills.aftermath import objects, pin
from tests.kills.past import uri
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import Practice
from tests.support.store import open_at

EVERYBODY = ("doctor", *CUSTODIANS, "dora", "nueva", "guardia")
NOW = "2026-11-20 10:00"


def make(path: Path, *, plain: bool) -> dict[str, str]:
    practice = Practice(path, uri("doctor"))
    circle = Circle(practice, {name: uri(name) for name in EVERYBODY}, path.parent.parent / "homes")
    practice.clock.set("2026-09-17")
    wires = {}
    practice.create().close()
    with practice.open() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
    for month in ("2026-09", "2026-10", "2026-11"):
        practice.clock.set(f"{month}-18")
        with practice.open() as vault:
            vault.months.open()
            (wires[month],) = vault.encrypt("EXP-1", f"to EXP-1 in {month}")
    if not plain:
        circle.ceremony()
        practice.clock.set(NOW)
        desk = path.parent.parent / "desk"
        desk.mkdir(mode=0o700)
        for who, patient in (("nueva", ""), ("guardia", "EXP-1")):
            request = circle.request(patient, who=who, name=who)
            (desk / f"{who}.request").write_bytes(request)
            for custodian in ("ana", "berta"):
                (desk / f"{who}-{custodian}.approval").write_bytes(circle.approve(request, custodian))
    return wires


def look(path: Path, wires: dict[str, str]) -> dict[str, Any]:
    """By the practice's token, the doctor's or the new one: everything is verified, read and put together."""
    with closing(open_at(path)) as file:
        tokens = peek(file).tokens
    name = "nueva" if "nueva" in tokens and len(tokens) == 1 else "doctor"
    found: dict[str, Any] = {"opens": name}
    with Vault.open(path, token=name, pin=pin) as vault:
        opened = vault.decrypt("\n".join(wires.values()), archive=True)
        found["read"] = [message.text or message.status for message in opened]
        vault.encrypt("EXP-1", "written afterwards")
        state = vault._unlocked.state
        glass = state.breakglass
        found["begun"] = state.rekey is not None
        found["tokens"] = sorted(state.tokens)
        found["custodians"] = [] if glass is None else sorted(glass.custodians)
        found["old"] = sorted(share.name for share in state.old_shares)
        found["uses"] = sorted((use.scope, use.phase, bool(use.answered)) for use in state.uses)
        found["compromised"] = all(pairing.compromised for pairing in vault.patients.list())
        if glass is not None:
            shares = {custodian: uri(custodian) for custodian in glass.custodians}
            found["proven"] = len(vault.custodians.reconstruct(shares, lambda _: pin, OtherTokens(pin)))
            every = {custodian: uri(custodian) for custodian in (*CUSTODIANS, "dora")}
            synced = vault.tokens.sync(OtherTokens(pin), every, lambda _: pin)
            found["destroyed"], found["left"] = len(synced.shares_destroyed), list(synced.shares_left)
        vault.log.verify()
    numbered = ("share", "approval", "kek ")  # with a ceremony's id or a generation, which a second run makes others
    found["objects"] = {
        who: sorted({label.rsplit(" ", 1)[0] if any(n in label for n in numbered) else label for label in labels})
        for who, labels in objects().items()
    }
    found["keks"] = {
        who: sum("kek " in label and "share" not in label for label in labels) for who, labels in objects().items()
    }
    found["ceremonies"] = {
        who: len({label.rsplit(" ", 1)[1] for label in labels if "share" in label or "approval" in label})
        for who, labels in objects().items()
    }
    try:
        Vault.open(path, token="doctor", pin=pin).close()
        found["doctor"] = "opens"
    except MedcryptError as exc:
        found["doctor"] = exc.name
    return found


if __name__ == "__main__":
    what, vault_path = sys.argv[1], Path(sys.argv[2])
    result = look(vault_path, json.load(sys.stdin)) if what == "look" else make(vault_path, plain=what == "plain")
    json.dump(result, sys.stdout)
