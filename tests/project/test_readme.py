"""README.md: its tour is what ``scripts/demo`` prints, its Python runs, its commands and links exist.

``python -m tests.project.test_readme`` copies the tour's output from a fresh run of the demo.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from tests.support.checkout import ROOT
from tests.support.command_line import CommandLine
from tests.support.demo import Demo, run_demo, split
from tests.support.practice import pin
from tests.support.softhsm import USER_PIN

README = ROOT / "README.md"
GUIDES = [README, *sorted((ROOT / "docs" / "operator").glob("*.md"))]
VARYING = [  # what differs from run to run, and what is put in its place; the order matters
    (r"\S*/practice/vault\.db", "VAULT"),
    (r"/usr/\S*/libsofthsm2\.so", "MODULE"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"MEDCRYPT:P2:[A-Z2-7]+", "PAYLOAD"),
    (r"(\[MEDCRYPT:v1:\w+):[^\]]*\]", r"\1 …]"),
    (r"\[MEDCRYPT:v2:[^:]*:[^:]*:([dp]:[^:]*):[^\]]*\]", r"[\1 …]"),
    (r"\b[0-9a-f]{16,}\b", "HEX"),
    (r"\b20\d\d-\d\d\b", "MONTH"),
    (r"(?m)(check code: |confirm EXP-00417 )\d{6}$", r"\1CODE"),
    (r"(?m)^(\d+ +TIME) +\S+ ", r"\1 ACTOR "),
    (r" {2,}", " "),  # columns are as wide as the longest actor
]


def normal(text: str) -> str:
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text)
    return text


def fenced(kind: str, path: Path = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def tour() -> list[tuple[str, str]]:
    """Each command of the README's tour with the output under it."""
    return [split(part) for block in fenced("console") for part in re.split(r"\n+(?=\$ )", block)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    ran = run_demo(os.environ, tmp_path_factory.mktemp("readme"))
    assert ran.code == 0, ran.output + ran.errors
    return ran


def test_the_tour_is_what_the_demo_prints(demo: Demo) -> None:
    printed = {normal(command): normal(output) for command, output in demo.steps.items()}
    shown = {normal(command): normal(output) for command, output in tour()}
    assert len(shown) > 15
    other = {command: output for command, output in shown.items() if printed.get(command) != output}
    assert not other, "run 'python -m tests.project.test_readme' to copy the tour anew"


def test_the_tour_can_be_prepared_as_the_readme_says(tmp_path: Path) -> None:
    [shell] = fenced("sh")
    shell = shell.replace("/tmp/tour", str(tmp_path / "tour"))
    done = subprocess.run(
        ["bash", "-euc", f"{shell}\nmedcrypt token list; python scripts/standalone/patient.py --help"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "blank" in done.stdout
    assert "usage: patient.py" in done.stdout


def test_the_python_example_runs(
    tmp_path: Path, token_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = fenced("python")
    assert len([line for line in example.splitlines() if line]) == 6
    monkeypatch.chdir(tmp_path)
    with Vault.create("practice/vault.db", token="doctor", uri=token_uri, pin=pin) as vault:
        vault.patients.add("EXP-00417", unconfirmed=True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: USER_PIN if prompt.startswith("PIN of ") else "")
    namespace: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), namespace)  # noqa: S102  # the point of this test
    wanted = r"EXP-00417 20\d\d-\d\d Tome 5 mg cada mañana\. Dra\. Ejemplo\n"
    assert re.fullmatch(wanted, capsys.readouterr().out)
    assert str(namespace["wire_texts"]).startswith("['[MEDCRYPT:v2:")


def commands(path: Path) -> set[tuple[str, ...]]:
    """The commands that a guide names, as words before the first option or argument: in blocks and in `code`."""
    text = path.read_text()
    code = re.findall(r"^(?:    |\$ )?(?:.*\| )?(medcrypt [^\n]*)$", text, re.MULTILINE)
    code += re.findall(r"[`'](medcrypt [^`'\n]*)[`']", text)
    found = set()
    for line in code:
        words = re.sub(r"--(vault|token|pin-source|so-pin-source|secret-source) \S+|--(json|yes|last-try)\b", "", line)
        named = []
        for word in words.split()[1:]:
            if not re.fullmatch(r"[a-z]+(-[a-z]+)?", word):
                break
            named.append(word)
        found.add(tuple(named[: 2 if named[:1] and named[0] in GROUPS else 1]))
    return found


GROUPS = ("token", "vault", "patient", "hold", "breakglass", "audit", "session", "import")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.name))
def test_every_command_that_is_named_exists(guide: Path, medcrypt: CommandLine) -> None:
    for words in sorted(commands(guide) - {()}):
        done = medcrypt(*words, "--help")
        assert done.stdout.startswith(f"Usage: medcrypt {words[0]}"), done


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.name))
def test_every_link_leads_somewhere(guide: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", guide.read_text()):
        assert (guide.parent / target).exists(), target


def refill() -> None:
    """Copy the output of each command of the tour from a run of the demo."""
    ran = run_demo(os.environ, ROOT)
    if ran.code:
        sys.exit(ran.output + ran.errors)
    fresh = {normal(command): f"$ {command}\n{output}".rstrip("\n") for command, output in ran.steps.items()}

    def block(match: re.Match[str]) -> str:
        parts = [fresh[normal(split(part)[0])] for part in re.split(r"\n+(?=\$ )", match[1])]
        return "```console\n" + "\n\n".join(parts) + "\n```"

    README.write_text(re.sub(r"^```console\n(.*?)^```$", block, README.read_text(), flags=re.MULTILINE | re.DOTALL))


if __name__ == "__main__":
    refill()
