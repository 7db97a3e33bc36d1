"""The commands that run all day, parsed without typer: loading it was a third of ``encrypt`` and ``decrypt``.

Only command lines that leave no doubt are parsed here, with the same result as by typer: options.py and
commands/ declare the options, and tests compare the two parsers. For everything else (help, mistakes, other
commands) the result is None, and parser.py parses it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
VALUES: dict[str, dict[str, str]] = {
    "encrypt": {},
    "decrypt": {"--month": "month"},
    "chat": {"--idle": "idle"},
    "patient list": {},
    "patient show": {},
}
DEFAULTS = {"idle": "15m"}
FLAGS: dict[str, dict[str, str]] = {
    "encrypt": {},
    "decrypt": {"--archive": "archive"},
    "chat": {"--archive": "archive"},
    "patient list": {},
    "patient show": {},
}
# How many words after the command, at least and at most.
WORDS = {"encrypt": (1, 2), "decrypt": (0, 1), "chat": (1, 1), "patient list": (0, 0), "patient show": (1, 1)}


def parse(arguments: Sequence[str]) -> Callable[[], None] | None:
    """What runs this command line, or None."""
    found = split(arguments)
    if found is None:
        return None
    command, given, own, words = found
    from medcrypt_hsm.cli.run import Run

    run = Run(**given)
    optional = [None] * (WORDS[command][1] - len(words))  # the file, which may be left out
    call = _function(command)
    return lambda: call(run, *words, *optional, **own)


def _function(command: str) -> Callable[..., None]:
    if command.startswith("patient "):
        from medcrypt_hsm.cli import patients

        return patients.show if command == "patient show" else patients.list_all
    if command == "chat":
        from medcrypt_hsm.cli import conversation

        return conversation.chat
    from medcrypt_hsm.cli import texts

    return texts.encrypt if command == "encrypt" else texts.decrypt


def split(arguments: Sequence[str]) -> tuple[str, dict[str, Any], dict[str, Any], list[str]] | None:
    """The command, the global options, its own options, and the words after it."""
    given: dict[str, Any] = dict.fromkeys(GLOBAL_VALUES.values())
    given |= {name: [] for name in GLOBAL_LISTS.values()} | dict.fromkeys(GLOBAL_FLAGS.values(), False)
    own: dict[str, Any] = {}
    words: list[str] = []
    command = ""
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        if word == "-" or not word.startswith("-"):
            if command:
                words.append(word)
                continue
            command = f"{word} {next(rest, '')}" if word == "patient" else word
            if command not in WORDS:
                return None
            own = {name: DEFAULTS.get(name) for name in VALUES[command].values()}
            own |= dict.fromkeys(FLAGS[command].values(), False)
        elif word in GLOBAL_FLAGS:
            given[GLOBAL_FLAGS[word]] = True
        elif command and word in FLAGS[command]:
            own[FLAGS[command][word]] = True
        else:
            value = value if equals else next(rest, "")
            if not value or value.startswith("-"):
                return None
            if option in GLOBAL_LISTS:
                given[GLOBAL_LISTS[option]].append(value)
            elif option in GLOBAL_VALUES:
                given[GLOBAL_VALUES[option]] = value
            elif command and option in VALUES[command]:
                own[VALUES[command][option]] = value
            else:
                return None
    if not command:
        return None
    at_least, at_most = WORDS[command]
    if "" in words or not at_least <= len(words) <= at_most:
        return None
    return command, given, own, words
