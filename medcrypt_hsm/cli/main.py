"""Start and end of every command: the one place where an error becomes words, JSON and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys

from medcrypt_hsm.cli import output, plain
from medcrypt_hsm.cli.console import hint_of
from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.sentences import t

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell reports of a program that SIGPIPE ended


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code. Nothing is raised, and no traceback is shown."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in options
    nowhere = sys.stdout is None
    _prepare_streams()
    try:
        if nowhere:
            # A secret is shown once, and a message is recorded as read: neither may happen when nobody sees it.
            raise MedcryptError(
                "stdout is closed: the result would be lost", "send it somewhere, to a file for example"
            )
        code = _run(list(arguments) or ["--help"], as_json)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _abandon_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        _report_interrupt(as_json)
        return INTERRUPTED
    except Exception as exc:
        error = _translate(exc)
        error.hint = hint_of(error)
        with contextlib.suppress(OSError):
            sys.stdout.flush()  # what was said before the error stands before it
        with contextlib.suppress(OSError):  # where it cannot be written, the exit code tells
            _report(error, as_json, _origin(exc) if "--verbose" in options and type(error) is MedcryptError else "")
        try:
            sys.stdout.flush()
        except OSError:
            _abandon_stdout()
        return error.exit_code


def _run(arguments: list[str], as_json: bool) -> int:
    if (command := plain.parse(arguments)) is not None:
        command()
        return 0
    from medcrypt_hsm.cli import parser

    return parser.invoke(arguments, as_json)


def _prepare_streams() -> None:
    """UTF-8 for pipes and files, whatever the locale; a character that a terminal cannot show is escaped.

    A stream that was closed before the program started goes to /dev/null. That is opened first, so that no database or
    token gets the stream's file descriptor.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            if number:
                setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        encoding = None if stream.isatty() else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]


def _translate(exc: Exception) -> MedcryptError:
    if isinstance(exc, MedcryptError):
        return exc
    if isinstance(exc, OSError) and exc.strerror:
        if exc.filename is None:
            return MedcryptError(exc.strerror)
        return MedcryptError(t("{path}: {reason}", path=exc.filename, reason=exc.strerror))
    kind = type(exc).__name__
    return MedcryptError(
        t("internal error ({kind})", kind=kind), "run it again with --verbose, and report what it says"
    )


def _origin(exc: Exception) -> str:
    """Where it came from, without its text: that may hold what nobody else should see."""
    import traceback

    frames = traceback.extract_tb(exc.__traceback__)
    return f"{type(exc).__name__} at " + " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames))


def _report(error: MedcryptError, as_json: bool, origin: str) -> None:
    if as_json:
        document: dict[str, Any] = {
            "schema": output.SCHEMA,
            "error": error.name,
            "message": error.message,
            "hint": error.hint,
        }
        for field in ("tries_left", "at"):
            if getattr(error, field, None) is not None:
                document[field] = getattr(error, field)
        if origin:
            document["origin"] = origin
        sys.stderr.write(output.json_line(document) + "\n")
        return
    sys.stderr.write(
        t("error: {message}\nhint: {hint}\n", message=output.visible(error.message), hint=output.visible(error.hint))
    )
    if origin:
        sys.stderr.write(t("origin: {origin}\n", origin=output.visible(origin)))


def _report_interrupt(as_json: bool) -> None:
    if as_json:
        document = {"schema": output.SCHEMA, "error": "interrupted", "message": "interrupted", "hint": ""}
        sys.stderr.write(output.json_line(document) + "\n")
    else:
        # A terminal shows ^C, or a prompt, in the line where the cursor is.
        sys.stderr.write("\ninterrupted\n" if sys.stderr.isatty() else "interrupted\n")


def _abandon_stdout() -> None:
    """The reader has gone: what is left in the buffer must not raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
