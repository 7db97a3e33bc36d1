"""Nothing in the package is too long or too wide to be read, unless its docstring says why.

A class has at most 250 lines, a module 500, a function eight parameters. What is longer has a sentence in its docstring
that begins with "Long because", what is wider one that begins with "Wide because". There are few.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

LONGEST_MODULE, LONGEST_CLASS, WIDEST_FUNCTION = 500, 250, 8
FEW = 6  # exceptions; the number only falls
Function = ast.FunctionDef | ast.AsyncFunctionDef
MODULES = sorted((ROOT / "medcrypt_hsm").rglob("*.py"))


def parameters(function: Function) -> int:
    """Without self and cls."""
    told = function.args
    named = [*told.posonlyargs, *told.args, *told.kwonlyargs, *filter(None, (told.vararg, told.kwarg))]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def reason(node: ast.Module | ast.ClassDef | Function, beginning: str) -> bool:
    """Does a sentence of the docstring begin so?"""
    words = " ".join((ast.get_docstring(node) or "").split())
    return words.startswith(beginning) or f". {beginning}" in words


def oversized(source: str) -> Iterator[tuple[str, bool]]:
    """What is too long or too wide, and whether its docstring says why."""
    module = ast.parse(source)
    if (lines := len(source.splitlines())) > LONGEST_MODULE:
        yield f"{lines} lines", reason(module, "Long because")
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            if (lines := node.end_lineno - node.lineno + 1) > LONGEST_CLASS:
                yield f"class {node.name}: {lines} lines", reason(node, "Long because")
        elif isinstance(node, Function) and (wide := parameters(node)) > WIDEST_FUNCTION:
            yield f"{node.name}: {wide} parameters", reason(node, "Wide because")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_too_long_or_too_wide_without_a_reason(path: Path) -> None:
    assert [what for what, excused in oversized(path.read_text()) if not excused] == []


def test_exceptions_are_few() -> None:
    excused = [f"{path.name}: {what}" for path in MODULES for what, said in oversized(path.read_text()) if said]
    assert len(excused) <= FEW, excused


WIDE = "def f(self, a, b, c, d, e, *f, g, h, **i):\n    "


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("pass\n" * 500, []),
        ("pass\n" * 501, [("501 lines", False)]),
        ('"""Long because of this."""\n' + "pass\n" * 500, [("501 lines", True)]),
        ("class A:\n" + "    pass\n" * 249, []),
        ("class A:\n" + "    pass\n" * 250, [("class A: 251 lines", False)]),
        (
            'class A:\n    """A.\n\n    Long because of\n    this."""\n' + "    pass\n" * 250,
            [("class A: 255 lines", True)],
        ),
        ("def f(a, b, c, d, e, /, f, *, g, h): ...", []),
        (WIDE + "...", [("f: 9 parameters", False)]),
        (WIDE + '"""It does. Wide because of this."""', [("f: 9 parameters", True)]),
        (WIDE + '"""It is wide because of this."""', [("f: 9 parameters", False)]),
        ("async " + WIDE + "...", [("f: 9 parameters", False)]),
    ],
)
def test_what_it_sees(source: str, found: list[tuple[str, bool]]) -> None:
    assert list(oversized(source)) == found
