"""Whoever names a file names one that is there: in docs, in docstrings and in comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

FOLDERS = ("medcrypt_hsm", "tests", "scripts", "docs", "softhsm")
# A file with its ending; not part of an address, of a longer name, or of a pattern.
NAME = re.compile(r"(?<![\w/.:@*-])((?:[a-z0-9_-]+/)*[a-z0-9_-]+\.(?:py|md|toml|c|cast))(?![\w/*-])")
# What is handed to others, and called by its bare name there; and what belongs to somebody else.
BARE = {"patient.py", "recover.py", "verify_audit.py", "config.toml", "conftest.py"}


def sources() -> Iterator[Path]:
    yield from (ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml"))
    for folder in FOLDERS:
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".c"))


def said(path: Path) -> Iterator[str]:
    """What a person reads: all of a text; of a program its docstrings and comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    yield from re.findall(r'"""(?:.|\n)*?"""', text)
    yield from re.findall(r"#.*", text)


def names_in(text: str) -> set[str]:
    return {name for name in NAME.findall(text) if name not in BARE}


def is_there(name: str, named_in: Path) -> bool:
    """Beside the file that names it or in a folder above, or from the package, the docs or the root."""
    folders = [ROOT, ROOT / "medcrypt_hsm", ROOT / "docs", ROOT / "tests", *named_in.parents]
    return any((folder / name).exists() for folder in folders if folder.is_relative_to(ROOT))


@pytest.mark.parametrize("path", sorted(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(path: Path) -> None:
    named = {name for text in said(path) for name in names_in(text)}
    assert {name for name in named if not is_there(name, path)} == set()


def test_the_pattern_finds_what_it_is_for() -> None:
    assert names_in("see vault/unlock.py, `docs/spec/audit.md` and (gone.py).") == {
        *("vault/unlock.py", "docs/spec/audit.md", "gone.py")
    }
    assert names_in("https://example.org/x.py, tests/*.py, a.b.py, patient.py") == set()
    assert not is_there("gone.py", ROOT / "README.md")
