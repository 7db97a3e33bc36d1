"""Start-up time is a feature (docs/adr/0018): what one ``decrypt`` loads of the package is counted, and what it needs
no part of is not loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.clinic import V1_PATIENT, V2_PATIENT, Clinic

# With every package's __init__. It may sink, and does not rise without a reason here. p256-hpke wants HPKE.
HPKE = (
    "crypto.hostkeys",
    "crypto.hpke",
    "crypto.p256",
    "tokens.p256_hpke",
    "tokens.pkcs11.p256",
    "tokens.pkcs11.p256_hpke",
)
CEILING = {"aes-kw": 69, "p256-hpke": 69 + len(HPKE)}  # 68, and process: memory is protected from the first line
COUNTED = """
import sys
from medcrypt_hsm.cli.main import run
code = run(sys.argv[1:])
print(*(name for name in sys.modules if name.partition(".")[0] == "medcrypt_hsm"), file=sys.stderr)
sys.exit(code)
"""
NOT_NEEDED = (
    # What a token is called, and how the vault stands unverified (vault/inspection.py), took all of these.
    *("vault.inspection", "vault.log", "vault.ledger", "vault.store.scratch", "vault.export"),
    *("vault.audit.verify", "vault.audit.checkpoints", "vault.audit.consent", "vault.audit.statements"),
    *("lifecycle", "breakglass", "tokens.attestation", "tokens.yubikey", "session", "messages.chats"),
    *("messages.wire.files", "messages.wire.pairing", "messages.encrypt", "crypto.hostkeys", "crypto.hpke"),
)


def loaded_by(clinic: Clinic, arguments: Sequence[str | Path], stdin: str = "") -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *map(str, arguments)],
        input=stdin,
        env=clinic.run.environment(),
        cwd=clinic.run.home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_one_decrypt_loads_little(clinic: Clinic, profile: str) -> None:
    text = clinic.encrypt("hola")
    names = loaded_by(clinic, ["decrypt"], text)
    assert len(names) <= CEILING[profile], " ".join(sorted(name.removeprefix("medcrypt_hsm.") for name in names))
    assert len(names) > CEILING[profile] - 5, "fewer: let the ceiling sink with them"


def test_what_it_needs_no_part_of_is_not_loaded(clinic: Clinic, profile: str) -> None:
    not_needed = [top for top in NOT_NEEDED if profile == "aes-kw" or top not in HPKE]
    for text in (clinic.encrypt("hola"), clinic.encrypt("hola", V1_PATIENT)):
        names = loaded_by(clinic, ["decrypt"], text)
        surplus = [name for name in names for top in not_needed if f"{name}.".startswith(f"medcrypt_hsm.{top}.")]
        assert surplus == []


def test_encrypt_loads_hardly_more(clinic: Clinic) -> None:
    more = loaded_by(clinic, ["encrypt", V2_PATIENT], "hola") - loaded_by(clinic, ["decrypt"], clinic.encrypt("hola"))
    assert more <= {"medcrypt_hsm.messages.encrypt"}


def test_help_loads_nothing_of_the_vault(clinic: Clinic) -> None:
    names = loaded_by(clinic, ["--help"])
    assert {name.split(".")[1] for name in names if "." in name} == {"cli", "errors", "process", "sentences"}
