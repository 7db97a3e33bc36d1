"""The command line: options in, one library call, words or one JSON document out.

``main.py`` starts and ends every command (errors → hint → exit code); ``parser.py`` parses it, or ``plain.py`` the two
that run all day; ``options.py`` holds the global options and ``run.py`` what they make of one run; ``pins.py`` gets
PINs; ``console.py`` is stderr and the person at the terminal; ``output.py`` makes hostile text safe to show. The
commands are in ``commands/``, and import what they need when they run: ``medcrypt --help`` loads no token, cryptography
or database.

In: argv, stdin, a person. Out: words, one JSON document, an exit code. Never imported here: what lies below the library
(``vault``, ``messages``, ``lifecycle``, ``breakglass``, ``crypto``). A name of theirs comes from ``medcrypt_hsm``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys

MANY = 100_000  # objects that a command makes before the garbage collector looks; loading its modules makes half of it


def enter() -> None:
    """The entry point of ``medcrypt``."""
    gc.set_threshold(MANY)
    try:
        from medcrypt_hsm.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # outside of any command: while starting or ending
        code = 130
    _end(code)


def _end(code: int) -> None:
    """As ``sys.exit``, but nothing is taken apart: a fifth of a short command's time, for memory that goes anyway.

    Keys are wiped, and tokens and files closed, by what ``run`` called: nothing is left to the interpreter's end.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # what is None was closed before we began
            stream.flush()
    os._exit(code)
