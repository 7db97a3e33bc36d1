"""The command line: options in, one library call, words or one JSON document out.

``run.py`` starts and ends every command (errors → hint → exit code); ``options.py`` holds the global options;
``pins.py`` gets PINs; ``console.py`` is stderr and the person at the terminal; ``output.py`` makes hostile text safe to
show. The commands are in ``status.py``, ``token.py``, ``vault.py``, ``patient.py``, ``message.py``, ``breakglass.py``,
``audit.py`` and others, and import what they need when they run: ``medcrypt --help`` loads no token, cryptography or
database.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of ``medcrypt``."""
    try:
        from medcrypt_hsm.cli.run import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # outside of any command: while starting or ending
        code = 130
    sys.exit(code)
