"""Who acts: what the audit log says of the person at the machine, by the kernel and the user database.

In: a user id, and the login user id that the kernel keeps through su and sudo. Out: "name (uid N)". Not here: what the
environment says (LOGNAME, USER): whoever types the command chooses that.
"""

from __future__ import annotations

import os
import pwd

_NO_LOGIN = (1 << 32) - 1  # the kernel's word for a process that descends from no login


def of_this_process() -> str:
    """Who runs this process."""
    return of(os.getuid(), loginuid_of("self"))


def of(uid: int, loginuid: int | None = None) -> str:
    """The user ``uid``, and who logged in where the kernel knows it and it is another."""
    if loginuid is None or loginuid == uid:
        return _named(uid)
    return f"{_named(uid)}, logged in as {_named(loginuid)}"


def loginuid_of(process: int | str) -> int | None:
    """The login user id of a process by its number, or None where the kernel keeps or shows none."""
    try:
        with open(f"/proc/{process}/loginuid", "rb") as file:
            loginuid = int(file.read(32))
    except (OSError, ValueError):
        return None
    return None if loginuid == _NO_LOGIN else loginuid


def _named(uid: int) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "unknown"
    return f"{name} (uid {uid})"
