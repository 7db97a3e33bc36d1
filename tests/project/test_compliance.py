"""docs/compliance.md promises nothing that is not there: its tests, its commands and their options, each part of it."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import typer

from medcrypt_hsm.cli.parser import application
from tests.support.checkout import ROOT

PAGE = (ROOT / "docs" / "compliance.md").read_text()
PARAGRAPHS = dict(re.findall(r"^### (.+)\n\n((?:.+\n)+)", PAGE, re.MULTILINE))
REQUIRED = [
    *(f"({part})" for part in ("a)(1", "a)(2)(i", "a)(2)(ii", "a)(2)(iii", "a)(2)(iv", "b", "c)(1", "c)(2", "d")),
    *("(e)(1)", "(e)(2)(i)", "(e)(2)(ii)", "5.4:"),
    *("Art. 5(1)(e):", "Art. 17:", "Art. 17(3)(b)", "Art. 18:", "Art. 25:", "Art. 30", "Art. 32:"),
]


def test_each_paragraph_of_the_rules_is_there() -> None:
    assert [part for part in REQUIRED if not any(f"{title} ".startswith(f"{part} ") for title in PARAGRAPHS)] == []
    assert "This is not legal advice." in " ".join(PAGE.split())


@pytest.mark.parametrize("title", PARAGRAPHS)
def test_each_paragraph_says_how_by_what_evidence_and_what_is_missing(title: str) -> None:
    assert re.findall(r"^- (\w[\w ]*): \S", PARAGRAPHS[title], re.MULTILINE) == [
        *("Command", "Evidence", "Test", "Not covered")
    ]


def test_every_test_that_is_named_is_there_and_tests_something() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", PAGE))
    assert len(named) > 20
    for name in named:
        tree = ast.parse((ROOT / name).read_text(), name)
        functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert any(function.startswith("test_") for function in functions), name
    lines = re.findall(r"^- Test: (.+)$", PAGE, re.MULTILINE)
    assert [
        line for line in lines if line != "none" and not re.fullmatch(r"tests/[\w/]+\.py(, tests/[\w/]+\.py)*", line)
    ] == []


def test_every_command_that_is_named_is_there_with_its_options() -> None:
    named = re.findall(r"`medcrypt ([^`]+)`", PAGE)
    assert len(named) > 30
    for line in named:
        command: Any = typer.main.get_command(application())
        words = line.split()
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not getattr(command, "commands", {}), f"medcrypt {line} is no command"
        known = {option for parameter in command.params for option in parameter.opts}
        assert [word for word in words if word not in known] == [], f"medcrypt {line}"


def test_every_link_and_every_script_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for script in re.findall(r"`(scripts/[\w./-]+)`", PAGE):
        assert (ROOT / script).exists(), script


def test_every_audit_action_that_is_named_is_one_of_the_auditors_guide() -> None:
    guide = (ROOT / "docs" / "operator" / "auditor.md").read_text().partition("## Every action")[2]
    actions = set(re.findall(r"`([a-z]+\.[a-z]+)`", guide))
    named = set(re.findall(r"`([a-z]+\.[a-z]+)`", PAGE)) - {"practice.pem"}
    assert named <= actions
