"""Every command, parsed by typer: which module has it, and what the parser says made into our own errors."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

from medcrypt_hsm.cli.options import HELP, global_options
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t

# Typer carries a copy of click; this finds the base of its errors in any version.
_CommandLineError: Any = typer.BadParameter.__mro__[2]
_MODULES = {
    "status": "status",
    "token": "token",
    "vault": "vault",
    "patient": "patient",
    "encrypt": "message",
    "decrypt": "message",
    "rotate": "message",
    "chat": "chat",
    "import": "imports",
    "encrypt-file": "file",
    "decrypt-file": "file",
    "session": "session",
    "shred": "shred",
    "hold": "hold",
    "breakglass": "breakglass",
    "audit": "audit",
}
"""First word of a command → where it is. In the order of the help."""


def application(arguments: Sequence[str] = ()) -> typer.Typer:
    """Every command; or at least the one that ``arguments`` name: making all takes longer than reading a text."""
    words = [word for word in arguments if word in _MODULES or word == "--help"]
    named = words if words and words[0] != "--help" else list(_MODULES)
    app = typer.Typer(name="medcrypt", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(help=HELP)(global_options)
    for module in dict.fromkeys(module for word, module in _MODULES.items() if word in named):
        import_module(f"medcrypt_hsm.cli.commands.{module}").register(app)
    return app


def invoke(arguments: list[str], as_json: bool) -> int:
    """Parse and run one command line; its exit code. Raises UsageError for what cannot be parsed."""
    command = typer.main.get_command(application(arguments))
    try:
        with command.make_context("medcrypt", arguments, obj={"json": as_json}) as context:
            command.invoke(context)
    except typer.Exit as exc:
        return exc.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except _CommandLineError as exc:
        failed = getattr(exc, "ctx", None)
        path = failed.command_path if failed is not None else "medcrypt"
        words = exc.format_message().rstrip(".")
        words = words[:1].lower() + words[1:]  # typer's own, which begins like a sentence
        raise UsageError(words, t("see '{path} --help'", path=path)) from exc
    return 0
