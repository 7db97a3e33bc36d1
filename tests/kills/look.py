"""A program that looks at a vault and its token from the outside and says what is there, as JSON on stdout.

``python -m tests.kills.look VAULT`` with wire texts on stdin, one a line. It does what the next day's work would do
(verify, read old messages, list, anchor), so that one process answers every question a test has about what was left.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pkcs11
from pkcs11 import Attribute, ObjectClass

from medcrypt_hsm import Vault
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import softhsm_module


def objects() -> list[str]:
    """Class and label (without the vault's id) of every object on every token that has one, by PKCS#11 alone."""
    found = []
    for token in pkcs11.lib(str(softhsm_module())).get_tokens(token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED):
        with token.open(user_pin=os.environ[PIN_VARIABLE]) as session:
            for item in list(session.get_objects({Attribute.TOKEN: True})):
                try:
                    words = item[Attribute.LABEL].split(" ")[:2]
                except pkcs11.PKCS11Error:
                    words = ["(no label)"]
                found.append(f"{ObjectClass(item[Attribute.CLASS]).name} {' '.join(words)}")
    return sorted(found)


def look(path: str, wires: str) -> dict[str, Any]:
    before = objects()
    with Vault.open(path, pin=lambda _: os.environ[PIN_VARIABLE]) as vault:
        vault.log.verify()
        months = vault.status().months
        read = [message.text or message.status for message in vault.decrypt(wires, archive=True)] if wires else []
        patients = [[p.id, p.protocol, p.state] for p in vault.patients.list()]
        entries = [[n, e.time, e.action, e.subject, e.outcome, e.detail] for n, e in vault.log.entries()]
        vault.log.anchor()
        rows = vault.log.verify().rows
        orphans = vault.status().orphans
    return {
        "months": months,
        "read": read,
        "patients": patients,
        "entries": entries,
        "rows": rows,
        "orphans": orphans,
        "objects": before,
        "objects_after_anchor": objects(),
    }


if __name__ == "__main__":
    json.dump(look(sys.argv[1], sys.stdin.read()), sys.stdout)
