"""The command line: options in, one library call, words or one JSON document out.

    main.py      start and end of every command: an error becomes words, JSON and an exit code
    parser.py    a command line parsed with typer; plain.py: without it, the two commands that run all day
    options.py   the global options; run.py: ``Run``, what a command works with
    config.py    the config file              pins.py      where PINs come from
    console.py   stderr, and the person       touch.py     waiting for a finger
    output.py    stdout, hostile text shown   texts.py     messages in and out
    naming.py    tokens by URI or name        qr.py        pairing codes as pictures
    commands/    one module a group of commands, which imports what it needs when it runs: ``medcrypt --help`` loads no
                 token, cryptography or database

In: argv, stdin, a person. Out: words, one JSON document, an exit code. Never imported here: what lies below the library
(``vault``, ``messages``, ``lifecycle``, ``breakglass``, ``crypto``). A name of theirs comes from ``medcrypt_hsm``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys

from medcrypt_hsm.process import protect_memory

MANY = 100_000  # objects that a command makes before the garbage collector looks; loading its modules makes half of it


def enter() -> None:
    """The entry point of ``medcrypt``."""
    protect_memory()
    gc.set_threshold(MANY)
    try:
        from medcrypt_hsm.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # outside of any command: while starting or ending
        code = 130
    _end(code)


def _end(code: int) -> None:
    """As ``sys.exit``, but without freeing every object, which takes a fifth of a short command's time.

    Keys are wiped, and tokens and files closed, by what ``run`` called: nothing is left for the interpreter to do.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # a stream that was closed before we began is None
            stream.flush()
    os._exit(code)
