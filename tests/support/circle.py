"""A practice with custodians on the command line: one machine for the everyday tests, or one for each person.

Plain code without pytest. Files go from one home to another by copying, and nothing else does.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.clinic import NOW, Clinic
from tests.support.command_line import PIN_VARIABLE, CommandLine
from tests.support.softhsm import SoftHsm, softhsm_module

CUSTODIANS = ("ana", "berta", "carla")
REASON = "La doctora no despierta"
LATER = "2026-11-22 13:00:00"  # after a ceremony at NOW by more than the second that a drill needs


def uri(label: str) -> str:
    return f"pkcs11:token={label}?module-path={softhsm_module()}"


def shares(*names: str) -> list[str]:
    return [part for name in names for part in ("--share-token", f"{name}={uri(name)}")]


def own_sources(*names: str) -> dict[str, str]:
    """A PIN for the token in use, and one for each of these by name."""
    return {"MEDCRYPT_PIN_SOURCE": " ".join([f"env:{PIN_VARIABLE}", *(f"{n}=env:{PIN_VARIABLE}" for n in names)])}


def with_custodians(clinic: Clinic, *more: str) -> Clinic:
    """The clinic with tokens for three custodians, one that opens nothing, and ``more``; no ceremony yet."""
    for label in (*CUSTODIANS, "nueva", *more):
        clinic.run.softhsm.make_token(label)
    clinic.run.env |= own_sources(*CUSTODIANS, *more)
    return clinic


def ceremony(clinic: Clinic, *options: str) -> Any:
    return clinic.run("--json", "--yes", "breakglass", "ceremony", *shares(*CUSTODIANS), *options).json


def copied(clinic: Clinic, directory: Path) -> Clinic:
    copy = clinic.copy(directory)
    copy.run.env |= own_sources(*CUSTODIANS, "dora")
    return copy


def refused(clinic: Clinic, *arguments: str | Path, code: int, **more: Any) -> Any:
    """The error's document: with a hint, and a rule's name where it is a rule's."""
    found = clinic.run("--json", "--yes", "breakglass", *arguments, code=code, **more).error
    assert found["hint"]
    return found


@dataclass
class Asking:
    """Requests and approvals of one clinic, as files in its home."""

    clinic: Clinic

    def request(self, patient: str = "", *, name: str = "pedido", at: str = NOW, hours: int = 24) -> Path:
        file = self.clinic.run.home / name
        who = ("--patient", patient) if patient else ()
        options = ("--reason", REASON, *who, "--hours", str(hours), "--token", f"nueva={uri('nueva')}")
        self.clinic.run("breakglass", "request", *options, file, at=at)
        return file

    def approve(self, request: Path, who: str, *, at: str = NOW) -> Path:
        file = request.with_name(f"{request.name}.{who}")
        self.clinic.run("--yes", "breakglass", "approve", request, "--token", uri(who), file, at=at)
        return file

    def approved(self, patient: str = "", who: Sequence[str] = ("ana", "carla"), **more: Any) -> list[Path]:
        request = self.request(patient, **more)
        return [request, *(self.approve(request, name) for name in who)]


@dataclass
class Machine(CommandLine):
    """One person's: a home, a SoftHSM2 directory with their token alone, no vault but one that is sent."""

    @classmethod
    def of(cls, directory: Path) -> Machine:
        home = directory / "home"
        home.mkdir(mode=0o700, parents=True)
        env = {"MEDCRYPT_VAULT": str(home / "vault" / "vault.db")}
        return cls(home, SoftHsm(directory / "softhsm").prepare(), env, NOW)

    @property
    def vault(self) -> Path:
        return self.home / "vault" / "vault.db"

    def copy(self, directory: Path) -> Machine:
        """As it is now, elsewhere: what is done there leaves this one as it was."""
        made = Machine.of(directory)
        shutil.copytree(self.home, made.home, dirs_exist_ok=True)
        shutil.copytree(self.softhsm.directory / "tokens", made.softhsm.directory / "tokens", dirs_exist_ok=True)
        return made

    def get(self, *files: Path) -> list[Path]:
        """Files from other machines, as they arrive by mail."""
        return [Path(shutil.copy(file, self.home / file.name)) for file in files]

    def get_vault(self, file: Path) -> None:
        self.vault.parent.mkdir(mode=0o700)
        shutil.copy(file, self.vault)


def split(whole: SoftHsm, machines: dict[str, Machine]) -> None:
    """Each token of a SoftHSM2 directory to its person's own, by label."""
    for directory in sorted((whole.directory / "tokens").iterdir()):
        content = (directory / "token.object").read_bytes()
        for label, machine in machines.items():
            if label.encode().ljust(32) in content:
                shutil.move(directory, machine.softhsm.directory / "tokens" / directory.name)
