"""The command line is thin: it uses the library by the names that it exports, and nothing below it."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import medcrypt_hsm
from tests.support.checkout import ROOT

BELOW = {"breakglass", "crypto", "lifecycle", "messages", "vault"}
STILL_NEEDED = [  # "importer -> imported", each with its reason in pyproject.toml. It may only shrink.
    "medcrypt_hsm.cli.commands.attest -> medcrypt_hsm.vault.store.atomic",
    "medcrypt_hsm.cli.commands.audit -> medcrypt_hsm.vault.store.atomic",
    "medcrypt_hsm.cli.qr -> medcrypt_hsm.vault.store.atomic",
]
CLI = ROOT / "medcrypt_hsm" / "cli"


def contract() -> dict[str, object]:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = (one for one in told if one["id"] == "thin-cli")
    return dict(found)


def imports(path: Path) -> Iterator[str]:
    """What a module imports, wherever in it, also for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def from_below() -> set[str]:
    """As the contract writes them."""
    found = set()
    for path in CLI.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in imports(path):
            if name.startswith("medcrypt_hsm.") and name.split(".")[1] in BELOW and is_module(name):
                found.add(f"{module} -> {name}")
    return found


def test_the_contract_forbids_what_it_should() -> None:
    told = contract()
    assert told["type"] == "forbidden"
    assert told["source_modules"] == ["medcrypt_hsm.cli"]
    assert told["forbidden_modules"] == [f"medcrypt_hsm.{name}" for name in sorted(BELOW)]


def test_what_it_still_needs_is_on_the_list_and_the_list_only_shrinks() -> None:
    assert contract()["ignore_imports"] == STILL_NEEDED
    assert sorted(from_below()) == STILL_NEEDED


def test_nothing_is_fetched_behind_the_imports_back() -> None:
    """No module's name in a string, and no way into a package through the one that was imported."""
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not any(f"medcrypt_hsm.{name}" in node.value for name in BELOW), f"{path}: {node.value}"


def test_what_it_takes_from_the_library_is_exported() -> None:
    for path in CLI.rglob("*.py"):
        names = {name.partition(".")[2] for name in imports(path) if name.startswith("medcrypt_hsm.")}
        direct = {
            name
            for name in names
            if name.split(".")[0]
            not in ("cli", "errors", "given", "notation", "process", "sentences", "tokens", *BELOW)
        }
        assert direct <= set(medcrypt_hsm.__all__), path
