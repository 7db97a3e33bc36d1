"""A process that works with a vault when it is told to, for tests with several of them at once.

``python -m tests.kills.writer VAULT``. Each line on stdin is a JSON list: a job and its arguments; each is answered
by a JSON line. It says ``"ready"`` first, when the vault is open and the PIN has been used.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import MedcryptError
from tests.support.command_line import PIN_VARIABLE


def work(vault: Vault, job: str, *arguments: Any) -> Any:
    match job:
        case "encrypt":  # patient, texts
            return [wire for text in arguments[1] for wire in vault.encrypt(arguments[0], text)]
        case "decrypt":  # wires, one call each
            return [message.text for wire in arguments[0] for message in vault.decrypt(wire)]
        case "add":  # patients
            return [vault.patients.add(patient, unconfirmed=True).pairing.id for patient in arguments[0]]
        case "add_v1":  # patient, secret
            return vault.patients.add(arguments[0], protocol="v1", secret=arguments[1]).pairing.id
        case "rotate":
            opened = vault.months.open()
            return [] if opened is None else [str(month) for month in opened.months]
        case "anchor":
            return [vault.log.anchor() for _ in range(arguments[0])]
        case "backup":
            return [vault.backup(target).entries for target in arguments[0]]
    raise ValueError(job)


def answer(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    with Vault.open(sys.argv[1], pin=lambda _: os.environ[PIN_VARIABLE]) as vault:
        answer("ready")
        for line in sys.stdin:
            try:
                answer(work(vault, *json.loads(line)))
            except MedcryptError as exc:
                answer({"error": exc.name, "code": exc.exit_code, "message": str(exc)})


if __name__ == "__main__":
    main()
