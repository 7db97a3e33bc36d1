"""The global options, which may stand before or after the command, and what commands get from them: ``Run``.

Each command gets hidden copies of them, so that ``medcrypt status --json`` means ``medcrypt --json status``.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.pins import read_words
from medcrypt_hsm.cli.run import NO_SESSION_VARIABLE, PIN_SOURCE_VARIABLE, VAULT_VARIABLE, Run
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t

SOURCE = "SOURCE"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _show_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        from medcrypt_hsm import __version__

        # This option goes first: --json is not parsed yet, but main.py has looked for it.
        if context.obj["json"]:
            output.write_document({"version": __version__})
        else:
            output.write(f"medcrypt {__version__}\n")
        raise typer.Exit


HELP = "Keeps every key of a practice's encrypted messages behind a hardware token."


def global_options(
    context: typer.Context,
    vault: str | None = typer.Option(
        None,
        "--vault",
        metavar="PATH",
        help=t("The vault file; or {variable}. [default: in the user's data directory]", variable=VAULT_VARIABLE),
    ),
    token: str | None = typer.Option(None, "--token", metavar="NAME|URI", help="Which token to use."),
    pin_source: list[str] = typer.Option(
        [],
        "--pin-source",
        metavar=SOURCE,
        help=t(
            "Where the PIN comes from: prompt, env:VAR, file:PATH or fd:N, for one token NAME=…; repeatable. "
            "Or {variable}.",
            variable=PIN_SOURCE_VARIABLE,
        ),
    ),
    so_pin_source: list[str] = typer.Option(
        [], "--so-pin-source", metavar=SOURCE, help="The same for the security officer's PIN."
    ),
    puk_source: list[str] = typer.Option([], "--puk-source", metavar=SOURCE, help="The same for a PUK."),
    secret_source: list[str] = typer.Option(
        [], "--secret-source", metavar=SOURCE, help="The same for a version 1 patient's shared secret."
    ),
    no_session: bool = typer.Option(
        False,
        "--no-session",
        help=t("Ask for the PIN even where a session runs; or {variable}=1.", variable=NO_SESSION_VARIABLE),
    ),
    non_interactive: bool = typer.Option(
        False, "--non-interactive", help="Fail at once where a person would be asked."
    ),
    yes: bool = typer.Option(False, "--yes", help="Do what is destructive without asking."),
    last_try: bool = typer.Option(False, "--last-try", help="Use even the last try of a PIN."),
    quiet: bool = typer.Option(False, "--quiet", help="Only results, warnings and errors."),
    verbose: bool = typer.Option(False, "--verbose", help="Say more about what is done."),
    json: bool = typer.Option(False, "--json", help="One JSON document on stdout; errors as JSON on stderr."),
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
    ),
) -> None:
    """What stands before or after any command. Wide because each option is a parameter: typer reads them there."""
    given = dict(context.params)
    given.pop("version", None)
    context.obj = given


@functools.cache
def _parameters() -> tuple[Any, ...]:
    """``global_options`` as parsed parameters, hidden; without --version."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(global_options)
    hidden = []
    for parameter in typer.main.get_command(app).params:
        if parameter.name != "version":
            twin: Any = copy.copy(parameter)
            twin.hidden = True
            hidden.append(twin)
    return tuple(hidden)


REASON_SOURCE = "Where it comes from instead: prompt, env:VAR, file:PATH, fd:N. Arguments can be read by other users."


def reason_of(run: Run, text: str, source: str | None) -> str:
    """``--reason``, or what ``--reason-source`` names. Raises UsageError where neither is given."""
    reason = read_words(text, source, "--reason", t("reason"), run.console)
    if not reason:
        raise UsageError("a reason is needed", "give it with --reason TEXT, or --reason-source prompt")
    return reason


class Command(TyperCommand):
    """A command that takes the global options too. ``shown``: those that its own help names."""

    shown: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = {parameter.name for parameter in self.params}
        for parameter in _parameters():
            if parameter.name not in names:
                twin = copy.copy(parameter)
                twin.hidden = twin.name not in self.shown
                self.params.append(twin)

    def invoke(self, ctx: Any) -> Any:
        given = dict(ctx.obj)
        for parameter in _parameters():
            value = ctx.params.pop(parameter.name)
            if isinstance(value, (list, tuple)):
                given[parameter.name] = [*given[parameter.name], *value]
            elif value:
                given[parameter.name] = value
        ctx.obj = Run(**given)
        return super().invoke(ctx)


def command(app: typer.Typer, name: str, *, shows: Sequence[str] = ()) -> Callable[[_Function], _Function]:
    """Register a command. ``shows``: global options that belong to it, named in its help."""
    kind = type("Command", (Command,), {"shown": tuple(shows)})
    return app.command(name, cls=kind)


def run_of(context: typer.Context) -> Run:
    """The running command, as it works with its options and its person."""
    found = context.obj
    assert isinstance(found, Run)
    return found
