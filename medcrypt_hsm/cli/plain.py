"""``encrypt`` and ``decrypt``, parsed without typer: of the commands that run all day, loading it was a third.

Only command lines that leave no doubt are parsed here, with the same result as by typer: options.py and
commands/message.py declare the options, and tests compare the two parsers. For everything else (help, mistakes, other
commands) the result is None, and parser.py parses it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GLOBAL_VALUES = {"--vault": "vault", "--token": "token"}
GLOBAL_LISTS = {
    "--pin-source": "pin_source",
    "--so-pin-source": "so_pin_source",
    "--puk-source": "puk_source",
    "--secret-source": "secret_source",
}
GLOBAL_FLAGS = {
    "--no-session": "no_session",
    "--non-interactive": "non_interactive",
    "--yes": "yes",
    "--last-try": "last_try",
    "--quiet": "quiet",
    "--verbose": "verbose",
    "--json": "json",
}
VALUES = {"encrypt": {}, "decrypt": {"--month": "month"}}
FLAGS = {"encrypt": {}, "decrypt": {"--archive": "archive"}}
WORDS = {"encrypt": (1, 2), "decrypt": (0, 1)}  # how many after the command, at least and at most


def parse(arguments: Sequence[str]) -> Callable[[], None] | None:
    """What runs this command line, or None."""
    found = split(arguments)
    if found is None:
        return None
    command, given, own, words = found
    from medcrypt_hsm.cli import texts
    from medcrypt_hsm.cli.run import Run

    run = Run(**given)
    files = [Path(word) for word in words[-1:]] if len(words) == WORDS[command][1] else [None]
    if command == "encrypt":
        return functools.partial(texts.encrypt, run, words[0], *files)
    return functools.partial(texts.decrypt, run, *files, **own)


def split(arguments: Sequence[str]) -> tuple[str, dict[str, Any], dict[str, Any], list[str]] | None:
    """The command, the global options, its own options, and the words after it."""
    command = next((word for word in arguments if word in WORDS), None)
    if command is None:
        return None
    given: dict[str, Any] = dict.fromkeys(GLOBAL_VALUES.values())
    given |= {name: [] for name in GLOBAL_LISTS.values()} | dict.fromkeys(GLOBAL_FLAGS.values(), False)
    own: dict[str, Any] = dict.fromkeys(VALUES[command].values())
    own |= dict.fromkeys(FLAGS[command].values(), False)
    words: list[str] = []
    named = False  # the command, so far
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        if word == "-" or not word.startswith("-"):
            if named:
                words.append(word)
            elif word != command:
                return None
            named = True
        elif word in GLOBAL_FLAGS:
            given[GLOBAL_FLAGS[word]] = True
        elif named and word in FLAGS[command]:
            own[FLAGS[command][word]] = True
        else:
            value = value if equals else next(rest, "")
            if not value or value.startswith("-"):
                return None
            if option in GLOBAL_LISTS:
                given[GLOBAL_LISTS[option]].append(value)
            elif option in GLOBAL_VALUES:
                given[GLOBAL_VALUES[option]] = value
            elif named and option in VALUES[command]:
                own[VALUES[command][option]] = value
            else:
                return None
    at_least, at_most = WORDS[command]
    if not named or "" in words or not at_least <= len(words) <= at_most:
        return None
    return command, given, own, words
