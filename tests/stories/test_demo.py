"""``scripts/demo``: the first thing that anybody runs. In the barest environment, from any directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.demo import DEMO, Demo, run_demo


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is started, and what it gets as its home and for its temporary files."""
    return tmp_path_factory.mktemp("away")


@pytest.fixture(scope="module")
def demo(away: Path) -> Demo:
    return run_demo({"PATH": os.environ["PATH"], "HOME": str(away), "TMPDIR": str(away)}, away)


def test_it_succeeds_in_an_empty_environment(demo: Demo) -> None:
    assert demo.code == 0, demo.output + demo.errors


def test_it_leaves_nothing_behind(demo: Demo, away: Path) -> None:
    assert list(away.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        r"token doctor is ready: pkcs11:token=doctor;serial=",
        r"proven$",
        r"check code: \d{6}$",
        r"patient EXP-00417 is confirmed$",
        r"EXP-00417  Paciente Ejemplo  v2        active ",
        r"EXP-00112  Otro Ejemplo      v1        active ",
        r"\[MEDCRYPT:v2:[\w+/]{11}:\d{4}-\d\d:d:1\.1:.*\]$",
        r"\[MEDCRYPT:v2:[\w+/]{11}:\d{4}-\d\d:p:1\.1:.*\]$",
        r"\[MEDCRYPT:v1:RVhQLTAwMTEy:.*\]$",
        r"Tome 5 mg cada mañana\. Dra\. Ejemplo$",  # as the patient's program read it
        r"Gracias, doctora\. ¿También el domingo\?$",  # as the doctor read it
        r"Su cita es el lunes\. Dra\. Ejemplo$",
        r"│ Ahí estaré\.$",
        r"── .* · message 4 of 4 · NOT READ$|── message 4 of 4 · NOT READ$",
        r"\(exit code 5\)$",
        r"\d+ +\S+Z +\S.* message\.encrypt +EXP-00417 +done$",
        r"\d+ +\S+Z +\S.* message\.failed +EXP-00417 +not-authentic$",
        r"verified with the token: ",
        r"verified: vault [0-9a-f]{32}, \d+ entries, 1 tokens introduced$",
        r"checkpoints that the log continues: \d+$",
        r"state: +verified$",
        r"problems: +none$",
        r"month: +\d{4}-\d\d archived$",
        r"problem: +past retention: \d{4}-\d\d \(1 month\): run 'medcrypt shred --due'$",
        r"shredded: \d{4}-\d\d$",
        r"token spare: old root key 1 destroyed$",
        r"error: the keys of \d{4}-\d\d were shredded at ",
        r"error: the vault at .* was re-keyed since this backup was made: what was destroyed would come back$",
        r"- backup\.db of \S+: opens with no token of this practice any more$",
        r"needed: +2 of 3 custodians$",
        r"proven: +it opens and matches, at \S+Z$",
        r"drill of ana at \S+Z is recorded$",
        r"opens: +THE WHOLE PRACTICE$",
        r"the practice is on token new now$",
        r"Su cita es el martes\. Dra\. Ejemplo$",  # read with the new token
        r"error: token doctor was removed from this vault at ",
        r"problem: +BG-8: break-glass was used for the whole practice at \S+Z: run 'medcrypt breakglass rotate'",
    ],
)
def test_it_shows(demo: Demo, line: str) -> None:
    assert re.search(f"^{line}", demo.output, re.MULTILINE), demo.output


def test_every_command_is_shown_before_its_output(demo: Demo) -> None:
    groups = {" ".join(command.split()[1:3]) for command in demo.steps if command.startswith("medcrypt ")}
    wanted = [
        "token init",
        "token check",
        "vault create",
        "patient add",
        "patient confirm",
        "audit show",
        "audit verify",
        "shred --due",
        "breakglass ceremony",
        "breakglass recover",
    ]
    assert groups.issuperset(wanted)


def test_no_pin_is_an_argument() -> None:
    """PINs come from environment variables whose names alone the commands have."""
    script = DEMO.read_text()
    assert not re.search(r"--(so-)?pin[ =]", script)
    for source in re.findall(r"-source[ =](\S+)", script):
        assert source.startswith("env:"), source
    commands = re.findall(r'^run(?:_expecting \d)? "(.*?)"$', script, re.MULTILINE | re.DOTALL)
    assert len(commands) > 20
    assert not [c for c in commands if re.search(r"\$\{?(PIN|SO_PIN|PASSPHRASE|V1_SECRET)", c)]
