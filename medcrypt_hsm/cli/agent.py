"""Is there a session that does this command's work? Asked before anything heavy is loaded.

In: how the vault is named. Out: the way to its session, or None: then the command opens the vault itself. This module,
and all that the commands of ``plain.py`` load before they know, need no typer, database, token or ``typing``
(tests/cli/test_light.py).
"""

from __future__ import annotations


def session_for(vault: str) -> object | None:
    """None where no session runs for the vault that is named so."""
    return None
