"""The protocol itself: it speaks of no path, and is held to its word. And who opens the SQLite file by hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from inspect import getsource
from pathlib import Path

import pytest

import medcrypt_hsm
from medcrypt_hsm.vault.store.store import Draft, Store
from tests.support.checkout import ROOT
from tests.vault.store import rows_contract, store_contract

# Who opens the file without the store. This list only shrinks: whoever wants a row asks tests/support/store.py.
BY_HAND = {
    "tests/support/store.py",  # the helper
    "tests/support/vault_builder.py",  # writes a vault by the spec alone
    "tests/vault/store/test_file.py",  # what is no vault file
    "tests/two_readers/test_vaults.py",  # which databases are vaults, and evidence that stays as it is
    "tests/adversary/attacks/on_database.py",  # what SQLite would do with a file that is not what it seems
}
PACKAGE = Path(medcrypt_hsm.__file__).parent


def methods(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def importers(directory: Path, module: str) -> Iterator[str]:
    for path in directory.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if module in names:
                yield path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("protocol", [Store, Draft])
def test_it_speaks_of_no_path(protocol: type) -> None:
    (source,) = ast.parse(getsource(protocol)).body
    assert not [node for node in ast.walk(source) if isinstance(node, ast.Name) and node.id in ("Path", "PathLike")]
    assert not [name for name in methods(protocol) if "path" in name or "file" in name]


@pytest.mark.parametrize("protocol", [Store, Draft])
def test_the_contract_leaves_no_method_out(protocol: type) -> None:
    sources = getsource(store_contract) + getsource(rows_contract)
    asked = {node.attr for node in ast.walk(ast.parse(sources)) if isinstance(node, ast.Attribute)}
    assert methods(protocol) <= asked


def test_sqlite_is_known_to_the_store_alone() -> None:
    assert set(importers(PACKAGE, "sqlite3")) == {
        f"medcrypt_hsm/vault/store/{name}.py" for name in ("scratch", "sqlite")
    }


def test_the_backend_is_known_to_the_store_alone() -> None:
    found = importers(PACKAGE, "medcrypt_hsm.vault.store.sqlite")
    assert set(found) == {f"medcrypt_hsm/vault/store/{name}.py" for name in ("sqlite_new", "store")}


def test_tests_ask_the_store() -> None:
    assert set(importers(ROOT / "tests", "sqlite3")) == BY_HAND
