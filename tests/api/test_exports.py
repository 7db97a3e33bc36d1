"""What ``medcrypt_hsm`` exports: every name of ours that a method of the library takes or returns, and no other."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import medcrypt_hsm
from medcrypt_hsm import emergency
from tests.support.checkout import ROOT

EXPORTS = {name: getattr(medcrypt_hsm, name) for name in medcrypt_hsm.__all__}
PARTS = ("Chats", "Custodians", "Files", "Holds", "Log", "Months", "Patients", "Tokens")
DOORS = [medcrypt_hsm.Vault, medcrypt_hsm.Chat, *(EXPORTS[name] for name in PARTS), emergency]
TAKEN_APART = {  # what programs meet in a value that they are given, and hand to a function or compare with
    *("MedcryptError", "MessageV1", "MessageV2", "RequestedBy", "RetiredToken", "TokenInfo", "Step", "__version__"),
}


def methods(door: type | ModuleType) -> Iterator[tuple[str, Callable[..., object]]]:
    """Its public functions, and what its properties call."""
    for name, member in inspect.getmembers_static(door):
        if isinstance(member, (classmethod, staticmethod)):
            member = member.__func__
        if isinstance(member, property):
            member = member.fget
        if name.startswith("_") or not inspect.isfunction(member):
            continue
        if member is emergency.recover:
            continue  # what ``Vault.recover`` is made of: its result is no vault yet
        if isinstance(door, type) or member.__module__ == door.__name__:
            yield f"{door.__name__}.{name}", inspect.unwrap(member)


METHODS = [*(pair for door in DOORS for pair in methods(door))]
METHODS += [(name, found) for name, found in EXPORTS.items() if inspect.isfunction(found)]


def classes_in(hint: object) -> Iterator[type]:
    """Every class of ours in a type, however deep."""
    if isinstance(hint, list):  # the arguments of a Callable
        for inner in hint:
            yield from classes_in(inner)
    for inner in typing.get_args(hint):
        yield from classes_in(inner)
    found = typing.get_origin(hint) or hint
    if isinstance(found, type) and found.__module__.partition(".")[0] == "medcrypt_hsm":
        yield found


def classes_of(method: Callable[..., object]) -> set[type]:
    """Names that a module imports for type checkers alone are looked for among the exports, and nowhere else."""
    hints = typing.get_type_hints(method, localns=EXPORTS)
    return {found for hint in hints.values() for found in classes_in(hint)}


@pytest.mark.parametrize(("name", "method"), METHODS, ids=[name for name, _ in METHODS])
def test_what_a_method_takes_and_returns_is_exported(name: str, method: Callable[..., object]) -> None:
    hints = typing.get_type_hints(method, localns=EXPORTS)
    parameters = set(inspect.signature(method).parameters) - {"self", "cls"}
    assert parameters | {"return"} <= set(hints), f"{name} has no types"
    assert not {found.__name__ for found in classes_of(method)} - set(EXPORTS)


def test_nothing_else_is_exported() -> None:
    """But for functions, ``emergency``, and names of types that are no classes (``PinPrompt``, ``Message``)."""
    met = {found for _, method in METHODS for found in classes_of(method)}
    classes = {name for name, found in EXPORTS.items() if isinstance(found, type)}
    assert classes - {found.__name__ for found in met} - {"Vault", "SessionVault"} <= TAKEN_APART
    assert {name for name in TAKEN_APART if name not in EXPORTS} == set()


def test_each_resolves_to_what_it_is_called() -> None:
    called = {"find": "find_messages", "words": "in_words"}
    for name, found in EXPORTS.items():
        if isinstance(found, (type, ModuleType)) or inspect.isfunction(found):
            there = found.__name__.rpartition(".")[2]
            assert called.get(there, there) == name
        assert found is getattr(medcrypt_hsm, name)


def test_the_list_for_type_checkers_says_the_same() -> None:
    """``__all__``, the homes and the imports under TYPE_CHECKING: none has a name that another lacks."""
    source = ast.parse(Path(str(medcrypt_hsm.__file__)).read_text())
    (guarded,) = (node for node in source.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    homes = {alias.asname or alias.name: node.module for node in imports for alias in node.names}
    assert {*homes, "MedcryptError"} == set(medcrypt_hsm.__all__)
    for name, home in homes.items():
        late = f"medcrypt_hsm.{medcrypt_hsm._HOME_OF[name]}"
        assert late in (home, f"{home}.{name}"), name


def test_dir_tells_of_them_and_nothing_else_is_there() -> None:
    assert set(medcrypt_hsm.__all__) <= set(dir(medcrypt_hsm))
    assert list(medcrypt_hsm.__all__) == sorted(set(medcrypt_hsm.__all__))
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = medcrypt_hsm.Nothing
    program = "from medcrypt_hsm import *; from medcrypt_hsm import Month; print(Month.__name__, TokenAccess.__name__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["Month", "TokenAccess"], done.stderr


def test_a_vault_is_not_made_of_anything() -> None:
    with pytest.raises(TypeError, match=r"Vault\.open"):
        medcrypt_hsm.Vault()
