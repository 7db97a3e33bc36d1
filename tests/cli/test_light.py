"""What the commands that run all day have loaded before they open the vault: little, and known.

Compared with what Python itself has loaded by then, so that neither a site directory nor a version of it counts.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.checkout import ROOT

HEAVY = {
    *("typer", "click", "rich", "sqlite3", "pkcs11", "asn1crypto", "cryptography", "platformdirs"),
    *("typing", "pathlib", "dataclasses", "inspect", "tempfile", "hashlib", "threading", "urllib"),
}
ALWAYS = {
    *("", ".cli", ".cli.config", ".cli.console", ".cli.main", ".cli.output", ".cli.plain", ".cli.run"),
    *(".errors", ".sentences", ".session", ".session.client", ".session.frames", ".session.place", ".version"),
    ".process",
}
COMMANDS = {
    "decrypt pasted.txt --archive": {".cli.texts"},
    "encrypt EXP-00417 --quiet": {".cli.texts"},
    "chat EXP-00417 --idle 5m": {".cli.conversation", ".cli.texts"},
    "patient list --json": {".cli.patients"},
    "--vault practice.db patient show EXP-00417": {".cli.patients"},
}
BEGUN = """
import sys
before = set(sys.modules)
from medcrypt_hsm.cli import plain, run as place
import medcrypt_hsm.cli.main
call = plain.parse(sys.argv[1:])
run, = (cell.cell_contents for cell in call.__closure__ if isinstance(cell.cell_contents, place.Run))
run.console.warn("a word to the person")
run.result({"some": "document"}, "")
assert run.in_session() is None
print(*sorted(set(sys.modules) - before))
"""


def loaded(program: str, *arguments: str) -> set[str]:
    """The modules that the program says in its last line; Python isolated, so that ``site`` has loaded nothing."""
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={"HOME": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("line", COMMANDS)
def test_what_is_loaded_until_the_vault_is_opened(line: str) -> None:
    names = loaded(BEGUN, *line.split())
    assert {name.partition(".")[0] for name in names} & HEAVY == set()
    ours = {name.removeprefix("medcrypt_hsm") for name in names if name.partition(".")[0] == "medcrypt_hsm"}
    assert ours == ALWAYS | COMMANDS[line]


@pytest.mark.parametrize("module", ["errors", "month", "notation", "sentences", "version"])
def test_the_ground_floor_is_light(module: str) -> None:
    program = f"import sys; before = set(sys.modules); import medcrypt_hsm.{module}; print(*set(sys.modules) - before)"
    assert {name.partition(".")[0] for name in loaded(program)} & HEAVY == set()


def test_the_package_itself_loads_nothing_but_its_errors() -> None:
    program = "import sys; before = set(sys.modules); import medcrypt_hsm; print(*set(sys.modules) - before)"
    assert loaded(program) <= {"medcrypt_hsm", "medcrypt_hsm.errors", "__future__"}
