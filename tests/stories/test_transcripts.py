"""Sessions as text files: ``$ command`` and what it says, stdout and stderr together as a person sees them.

``<word>`` stands for what differs every time: the first occurrence takes whatever is there up to the next given
character, the later ones must be equal to it. ``[3]`` alone on a line is the exit code, where it is not 0. Text after
``<<<`` is stdin. ``@ 2026-12-01 08:00:00`` sets the clock.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.clinic import NOW
from tests.support.command_line import CommandLine
from tests.support.softhsm import SoftHsm, softhsm_module

TRANSCRIPTS = sorted((ROOT / "tests" / "stories" / "transcripts").glob("*.txt"))
_PLACEHOLDER = re.compile(r"<([a-z0-9-]+)>")


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(transcript: Path, own_softhsm: SoftHsm, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    run = CommandLine(
        home,
        own_softhsm,
        env={"MEDCRYPT_PKCS11_MODULE": str(softhsm_module()), "USER": "mara", "LOGNAME": "mara"},
        now=NOW,
    )
    known = {"home": str(home), "module": str(softhsm_module())}
    steps = _steps(transcript.read_text())
    assert steps
    for line, command, expected in steps:
        if command.startswith("@ "):
            run.now = command[2:]
            continue
        shown = _execute(run, command[2:], known)
        pattern = _pattern(expected, known)
        match = re.fullmatch(pattern, shown, re.DOTALL)
        assert match is not None, (
            f"{transcript.name}:{line}: {command}\n--- expected\n{_fill(expected, known)}\n--- shown\n{shown}"
        )
        known |= _named(match)


def _steps(text: str) -> list[tuple[int, str, str]]:
    steps: list[tuple[int, str, str]] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.startswith(("$ ", "@ ")):
            steps.append((number, line.rstrip("\n"), ""))
        elif steps and not line.startswith("#"):
            at, command, expected = steps[-1]
            steps[-1] = (at, command, expected + line)
    return [(at, command, expected.rstrip("\n")) for at, command, expected in steps]


def _execute(run: CommandLine, command: str, known: dict[str, str]) -> str:
    command, _, stdin = _fill(command, known).partition(" <<< ")
    program, *arguments = shlex.split(command)
    assert program == "medcrypt"
    done = subprocess.run(
        run.command(*arguments),
        input="".join(shlex.split(stdin)).encode(),
        env=run.environment(),
        cwd=run.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    shown = done.stdout.decode().rstrip("\n")
    return shown if done.returncode == 0 else f"{shown}\n[{done.returncode}]"


def _fill(text: str, known: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: known.get(match[1], match[0]), text)


def _pattern(expected: str, known: dict[str, str]) -> str:
    parts = re.split(_PLACEHOLDER, expected)
    pattern = ""
    new: set[str] = set()
    for at, part in enumerate(parts):
        group = part.replace("-", "_")
        if at % 2 == 0:
            pattern += re.escape(part)
        elif part in known:
            pattern += re.escape(known[part])
        elif part in new:
            pattern += f"(?P={group})"
        else:
            new.add(part)
            pattern += rf"(?P<{group}>[^\n]+?)"
    return pattern


def _named(match: re.Match[str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in match.groupdict().items()}
