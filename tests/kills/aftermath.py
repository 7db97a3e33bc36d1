"""A program that does the next work with a vault of two tokens, and says as JSON what it found and what is left.

``python -m tests.kills.aftermath VAULT`` with a JSON object on stdin: name → wire text. The doctor's token comes first:
whatever opens the vault ends what was interrupted. Then the spare one, if it is there, opens it too.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11 import Attribute, ObjectClass

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.vault import log
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import softhsm_module
from tests.support.store import open_at


def pin(info: object) -> str:
    return os.environ[PIN_VARIABLE]


def objects() -> dict[str, list[str]]:
    """Label of each token → class and label of its objects without the vault's id, by PKCS#11 alone."""
    found: dict[str, list[str]] = {}
    for token in pkcs11.lib(str(softhsm_module())).get_tokens(token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED):
        with token.open(user_pin=pin(token)) as session:
            labels = []
            for item in list(session.get_objects({Attribute.TOKEN: True})):
                _, what, _, *generation = item[Attribute.LABEL].split(" ")
                labels.append(" ".join([ObjectClass(item[Attribute.CLASS]).name, what, *generation]))
            found[token.label.strip()] = sorted(labels)
    return found


def work(vault: Vault, path: Path, wires: dict[str, str]) -> dict[str, Any]:
    """Everything that a day's work asks of it; red is an exception."""
    read = [message.text or message.status for message in vault.decrypt("\n".join(wires.values()), archive=True)]
    vault.encrypt("EXP-1", "written afterwards")
    state = vault._unlocked.state
    newest = [entry.detail["certificate"] for _, entry in vault.log.entries() if "certificate" in entry.detail][-1]
    beside = path.with_name(f"{path.name}-certificate-{newest['generation']}.json")
    certificate = beside if beside.exists() else path.parent.parent / "backups" / "certificate.json"
    document, note = certificate.read_bytes(), certificate.with_suffix(".md").read_text()
    with closing(open_at(path.with_name(f"{path.name}-backup-{newest['generation']}"), in_use=False)) as copy:
        backed_up = log.verify(vault._unlocked.over(copy)).entries
    return {
        "generation": state.generation,
        "begun": state.rekey is not None,
        "doomed": sorted(doomed.row for doomed in state.doomed),
        "keysets": {name: state.keyset_of(name).kek for name in state.tokens if not state.lags(name)},  # type: ignore[union-attr]
        "tokens": sorted(state.tokens),
        "retired": sorted(state.retired),
        "holds": len(state.holds),
        "shredded": sorted(str(month) for month in state.months if state.is_shredded(month)),
        "read": dict(zip(wires, read, strict=True)),
        "patients": sorted(pairing.id for pairing in vault.patients.list()),
        "rows": vault.log.verify().rows,
        "backed_up": backed_up,
        "certified": newest["generation"],
        "certificate_whole": json.loads(document) == newest and sha256(document).hexdigest() in note,
        "orphans": list(vault.status().orphans),
    }


def main(path: Path, wires: dict[str, str]) -> dict[str, Any]:
    with Vault.open(path, token="doctor", pin=pin) as vault:
        found = work(vault, path, wires)
    try:
        with Vault.open(path, token="spare", pin=pin) as vault:
            vault.log.verify()
            (read,) = vault.decrypt(wires["EXP-1 2026-11"])
            found["spare"] = read.text or read.status
            found["spare_orphans"] = list(vault.status().orphans)
    except MedcryptError as exc:
        found["spare"] = exc.name
    if found["retired"]:
        with Vault.open(path, token="doctor", pin=pin) as vault:
            vault.tokens.sync(OtherTokens(pin))  # empties a removed token that is there
    with Vault.open(path, token="doctor", pin=pin) as vault:
        found["doomed_at_last"] = sorted(doomed.row for doomed in vault._unlocked.state.doomed)
        vault.log.verify()
    found["objects"] = objects()
    files = (file.name for directory in (path.parent, path.parent.parent / "backups") for file in directory.iterdir())
    found["files"] = sorted(file for file in files if not file.endswith((".json", ".md")))
    return found


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), json.load(sys.stdin)), sys.stdout)
