"""A locking token, as a person sees it: tries left, last try refused, locked, unblocked
(tests/support/locking_token).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.checkout import ROOT
from tests.support.locking_scenarios import BLANK, MODULE, NEW_PIN, PIN, SO_PIN, URI, WRONG

STEPS = f"""
medcrypt() {{ "{sys.executable}" -m medcrypt_hsm --json "$@"; echo "exit $?"; }}
medcrypt --so-pin-source env:SO --pin-source env:PIN token init "{BLANK}" --label doctor
medcrypt --pin-source env:WRONG token pin "{URI}" --new-pin-source env:NEW
medcrypt --pin-source env:WRONG token pin "{URI}" --new-pin-source env:NEW
medcrypt --pin-source env:WRONG token pin "{URI}" --new-pin-source env:NEW
medcrypt --pin-source env:WRONG --last-try token pin "{URI}" --new-pin-source env:NEW
medcrypt --pin-source env:PIN token pin "{URI}" --new-pin-source env:NEW
medcrypt token list
medcrypt --so-pin-source env:SO token pin "{URI}" --unblock --new-pin-source env:NEW
medcrypt --pin-source env:NEW token pin "{URI}" --new-pin-source env:PIN
"""


def test_the_way_to_a_locked_pin_and_back(tmp_path: Path) -> None:
    values = {
        "SO": SO_PIN,
        "PIN": PIN,
        "NEW": NEW_PIN,
        "WRONG": WRONG,
        "HOME": str(tmp_path),
        "MEDCRYPT_PKCS11_MODULE": MODULE,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDCRYPT_")}
    done = subprocess.run(
        [str(ROOT / "tests" / "support" / "locking_token"), "sh", "-c", STEPS],
        env=environment | values,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert codes == [0, 4, 4, 4, 4, 4, 0, 0, 0], done.stdout
    documents = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = [document for document in documents if "error" in document]
    names = ["pin-wrong", "pin-wrong", "pin-last-try", "pin-locked", "pin-locked"]
    assert [error["error"] for error in errors] == names, done.stdout
    assert errors[1]["tries_left"] == 1
    assert "--last-try" in errors[2]["hint"]
    assert "--unblock" in errors[4]["hint"]
    listed = next(document["tokens"] for document in documents if "tokens" in document)
    assert "locked" in next(token["pin_flags"] for token in listed if token["label"] == "doctor")
    assert not any(pin in done.stdout for pin in (SO_PIN, PIN, NEW_PIN, WRONG))
