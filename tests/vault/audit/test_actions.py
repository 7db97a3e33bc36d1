"""The table of actions: that all code reads it, that the spec says the same, and that exports have its names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from medcrypt_hsm.vault.audit import actions
from medcrypt_hsm.vault.audit.actions import ACTIONS, ALARM, CLEAR_ACTIONS, FAILED, GUEST_ACTIONS
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.export import FORMATS, Told, severity

ROOT = Path(__file__).parents[3]
SPEC = (ROOT / "docs" / "spec" / "audit.md").read_text()
TOLD_BESIDE = {actions.BREAKGLASS_APPROVE, actions.BREAKGLASS_DECRYPT, actions.BREAKGLASS_REQUEST}


def entry(action: str, outcome: str = "done") -> Entry:
    return Entry("2026-11-22T12:00:00Z", "mara", "doctor", action, "", outcome)


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Texts that are used as values: no docstrings, no members of a ``detail``."""
    left_out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            left_out.add(node.value)
        elif isinstance(node, ast.Subscript):
            left_out.add(node.slice)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in left_out:
            yield node.lineno, node.value


def test_no_action_is_written_out_anywhere_else() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {text}"
        for path in sorted((ROOT / "medcrypt_hsm").rglob("*.py"))
        if path not in (Path(actions.__file__), ROOT / "medcrypt_hsm" / "__init__.py")  # that one names modules
        for line, text in literals(ast.parse(path.read_text()))
        if text in ACTIONS or text in TOLD_BESIDE
    ]
    assert found == []


def test_whoever_writes_an_entry_names_its_action_by_a_constant() -> None:
    """No action is put together from pieces, where the search above would not find it."""
    for path in sorted((ROOT / "medcrypt_hsm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("change", "record") and node.args:
                assert not isinstance(node.args[0], ast.Constant | ast.JoinedStr | ast.BinOp), f"{path}:{node.lineno}"


def test_a_constant_is_called_as_its_action() -> None:
    for action in {*ACTIONS, *TOLD_BESIDE}:
        assert getattr(actions, action.upper().replace(".", "_")) == action


def test_each_action_has_a_name_of_its_own() -> None:
    assert len({action.says for action in ACTIONS.values()}) == len(ACTIONS)
    assert not {action.says for action in ACTIONS.values()} & {name.replace(".", " ") for name in ACTIONS}
    assert not TOLD_BESIDE & set(ACTIONS)


def test_a_guest_writes_nothing_in_the_clear_but_its_end() -> None:
    assert {"breakglass.read", "message.decrypt", "message.failed"} == GUEST_ACTIONS
    assert not GUEST_ACTIONS & set(CLEAR_ACTIONS)


class TestTheSpec:
    def test_lists_every_action_with_whether_it_is_in_the_clear(self) -> None:
        clear: dict[str, bool] = {}
        for names, whether in re.findall(r"^\| ((?:`[a-z.]+`(?:, )?)+) \| (yes|no) \|", SPEC, re.MULTILINE):
            for name in re.findall(r"`([a-z.]+)`", names):
                assert clear.setdefault(name, whether == "yes") == (whether == "yes")
        assert clear == {name: bool(action.clear) for name, action in ACTIONS.items()}

    def test_has_the_names_and_severities_of_exports(self) -> None:
        found = re.findall(r"^\| `([a-z.]+)` \| ([A-Z][^|`]+) \| ([0-9]) \|$", SPEC, re.MULTILINE)
        assert found == [(name, action.says, str(action.severity)) for name, action in ACTIONS.items()]


@pytest.mark.parametrize("action", ACTIONS)
def test_an_export_for_a_siem_says_what_it_is_and_how_severe(action: str) -> None:
    _, line = FORMATS["cef"]([Told(1, entry(action), bytes(32))])
    head = line.split("|")
    assert head[4:7] == [action, ACTIONS[action].says, str(ACTIONS[action].severity)]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_failure_is_never_less_severe_than_what_failed(action: str) -> None:
    usual = severity(entry(action))
    assert severity(entry(action, "intended")) == usual
    assert severity(entry(action, "refused")) == max(usual, FAILED)
    assert severity(entry(action, "not-authentic")) == max(usual, ALARM)


def test_uses_of_break_glass_stand_above_all_else() -> None:
    highest = {name for name, action in ACTIONS.items() if action.severity == actions.OVER_ALL}
    assert highest == {"vault.restore", "breakglass.open", "breakglass.read", "breakglass.recover"}
