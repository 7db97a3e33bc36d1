"""The commands that run all day are parsed without typer, to the same as with it, or not at all."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

from medcrypt_hsm.cli import conversation, parser, patients, plain, texts
from medcrypt_hsm.errors import UsageError
from tests.support.checkout import ROOT

CALLED = [
    (texts, "encrypt"),
    (texts, "decrypt"),
    (conversation, "chat"),
    (patients, "list_all"),
    (patients, "show"),
]
Told = tuple[str, dict[str, Any], dict[str, Any]]

PLAIN = [
    ["decrypt"],
    ["decrypt", "-"],
    ["decrypt", "pasted.txt", "--archive"],
    ["--vault", "practice.db", "--token=doctor", "decrypt", "--month", "2026-10"],
    ["decrypt", "--month=2026-10", "--json", "a", "--no-session"],
    ["encrypt", "EXP-1"],
    ["encrypt", "EXP-1", "note.txt", "--quiet"],
    ["--pin-source", "spare=env:A", "encrypt", "--pin-source=env:B", "EXP-1", "-", "--vault", "other.db"],
    ["chat", "EXP-1"],
    ["chat", "--idle", "5m", "EXP-1", "--archive"],
    ["patient", "list"],
    ["--json", "patient", "list", "--vault", "practice.db"],
    ["patient", "show", "EXP-1", "--json"],
    ["patient", "show", "encrypt"],
    ["--vault", "one.db", "--vault", "two.db", "decrypt", "--vault", "three.db"],
]
NOT_PLAIN = [
    [],
    ["status"],
    ["decrypt", "--help"],
    ["--version", "decrypt"],
    ["decrypt", "--", "-file"],
    ["decrypt", "one", "two"],
    ["--archive", "decrypt"],
    ["decrypt", "--mont", "2026-10"],
    ["decrypt", "--archive=yes"],
    ["decrypt", "--month"],
    ["decrypt", "--month="],
    ["decrypt", "--vault", "--json"],
    ["decrypt", "-q"],
    ["encrypt"],
    ["encrypt", "EXP-1", "a", "b"],
    ["encrypt", "EXP-1", "--month", "2026-10"],
    ["status", "decrypt"],
    ["--token", "decrypt"],
    ["patient"],
    ["patient", "--json", "list"],
    ["patient", "list", "EXP-1"],
    ["patient", "show"],
    ["patient", "add", "EXP-1"],
    ["list"],
    ["chat"],
    ["chat", "EXP-1", "--idle"],
    ["chat", "EXP-1", "--month", "2026-10"],
]
WORDS = sorted({word for line in PLAIN + NOT_PLAIN for word in line} | {"", "--token", "--month", "ñ", "--yes", "x=y"})


@pytest.fixture(scope="module")
def told() -> Iterator[list[Told]]:
    """What the commands were called with, instead of their being run."""
    calls: list[Told] = []

    def note(module: Any, name: str) -> Any:
        signature = inspect.signature(getattr(module, name))

        def command(*given: Any, **named: Any) -> None:
            arguments = signature.bind(*given, **named).arguments
            run = arguments.pop("run")
            console = (run.console.quiet, run.console.verbose, run.console._may_ask)
            calls.append((name, vars(run) | {"console": console, "pins": None}, arguments))

        return command

    with pytest.MonkeyPatch.context() as patch:
        for module, name in CALLED:
            patch.setattr(module, name, note(module, name))
        yield calls


def by_typer(arguments: list[str], told: list[Told]) -> Told:
    told.clear()
    assert parser.invoke(arguments, "--json" in arguments) == 0
    return told.pop()


def plainly(arguments: list[str], told: list[Told]) -> Told | None:
    told.clear()
    command = plain.parse(arguments)
    if command is None:
        return None
    command()
    return told.pop()


def test_every_option_is_known() -> None:
    application: Any = typer.main.get_command(parser.application())
    kinds: dict[str, dict[str, str]] = {"values": {}, "lists": {}, "flags": {}}
    for option in application.params:
        if option.name not in ("version", "help"):
            kind = "flags" if option.is_flag else "lists" if option.multiple else "values"
            kinds[kind][option.opts[0]] = option.name
    assert kinds == {"values": plain.GLOBAL_VALUES, "lists": plain.GLOBAL_LISTS, "flags": plain.GLOBAL_FLAGS}
    for name in plain.WORDS:
        place = application
        for word in name.split():
            place = place.commands[word]
        own = [option for option in place.params if option.name not in ("help", *_names(kinds))]
        options = {option.opts[0]: option for option in own if option.opts[0].startswith("-")}
        words = [option for option in own if not option.opts[0].startswith("-")]
        assert {text: option.name for text, option in options.items() if option.is_flag} == plain.FLAGS[name]
        valued = {text: option for text, option in options.items() if not option.is_flag}
        assert {text: option.name for text, option in valued.items()} == plain.VALUES[name]
        assert all(option.default == plain.DEFAULTS.get(option.name) for option in valued.values())
        assert (sum(word.required for word in words), len(words)) == plain.WORDS[name]


def _names(kinds: dict[str, dict[str, str]]) -> set[str]:
    return {name for kind in kinds.values() for name in kind.values()}


@pytest.mark.parametrize("arguments", PLAIN, ids=" ".join)
def test_plain_lines(arguments: list[str], told: list[Told]) -> None:
    found = plainly(arguments, told)
    assert found is not None
    assert found == by_typer(arguments, told)


@pytest.mark.parametrize("arguments", NOT_PLAIN, ids=" ".join)
def test_lines_that_are_left_to_typer(arguments: list[str]) -> None:
    assert plain.parse(arguments) is None


@given(st.lists(st.sampled_from(WORDS), max_size=7).flatmap(lambda rest: st.permutations(["decrypt", *rest])))
@example(["patient", "show", "patient"])
@example(["patient", "list", "decrypt"])
@example(["--token", "patient", "patient", "list"])
@example(["--token", "decrypt", "decrypt"])  # a value that is named like a command
@example(["--token", "encrypt", "decrypt"])
@example(["--token", "decrypt"])
@example(["decrypt", "encrypt"])
@example(["encrypt", "decrypt"])
@example(["encrypt", "encrypt"])
@example(["--month", "decrypt", "encrypt"])
def test_any_line(told: list[Told], arguments: list[str]) -> None:
    """Whatever is parsed plainly is parsed by typer too, and to the same."""
    found = plainly(arguments, told)
    if found is not None:
        assert found == by_typer(arguments, told)


def test_typer_says_what_is_wrong(told: list[Told]) -> None:
    with pytest.raises(UsageError, match="no such option: --mont"):
        parser.invoke(["decrypt", "--mont", "2026-10"], False)


@pytest.mark.parametrize("arguments", [["decrypt", "nowhere"], ["encrypt", "EXP-1", "nowhere"]], ids=" ".join)
def test_they_do_not_wait_for_typer(arguments: list[str]) -> None:
    program = (
        "import sys; from medcrypt_hsm.cli.main import run;"
        f"print(run({arguments!r}), 'typer' in sys.modules); run(['--help']); assert 'typer' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "2 False"
