"""docs/architecture.md says what is there: its folders are the package's, its journeys lead through real functions."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter

import grimp
import pytest

from tests.support.checkout import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "medcrypt_hsm"
JOURNEYS = dict(re.findall(r"^### (.+)\n((?:(?!#).*\n)+)", PAGE, re.MULTILINE))


@cache
def definitions(file: str) -> frozenset[str]:
    """``function``, ``Class`` and ``Class.method`` of a module."""
    found = set()
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(found)


def steps(text: str) -> list[tuple[str, str]]:
    """(file, function) of each step."""
    return re.findall(r"`([a-z0-9_/]+\.py):([\w.]+)`", text)


def test_there_are_five_journeys() -> None:
    assert len(JOURNEYS) == 5
    assert all(len(steps(text)) >= 5 for text in JOURNEYS.values())


@pytest.mark.parametrize("title", JOURNEYS)
def test_each_step_of_a_journey_is_there(title: str) -> None:
    missing = [f"{file}:{name}" for file, name in steps(JOURNEYS[title]) if name not in definitions(file)]
    assert missing == []


def test_every_folder_of_the_package_stands_in_the_table() -> None:
    folders = {
        f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE
    }
    named = set(re.findall(r"`([a-z0-9_/]+/)`", PAGE))
    assert folders - named == set()


def test_a_step_that_is_not_there_is_found() -> None:
    assert "unlock" in definitions("vault/unlock.py")
    assert "no_such_function" not in definitions("vault/unlock.py")


def test_no_import_runs_in_a_circle() -> None:
    """Late imports and those for type checkers included: whoever reads one module never comes back to it."""
    graph = grimp.build_graph("medcrypt_hsm", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_nothing_is_imported_through_what_is_loaded() -> None:
    """No contract would see it."""
    found = [path.name for path in PACKAGE.rglob("*.py") if "sys.modules" in path.read_text(encoding="utf-8")]
    assert found == []
