"""Starting a session: a new process asks for the PIN through this one, unlocks the vault, and stays.

The command that starts it never opens the token itself: the PIN goes from the person to the agent through a socket
pair, once, and no further. In: what ``Vault.open`` takes, and how long. Out: an agent that listens, recorded in the
vault's log, or the error that kept it from listening. Not here: the agent's own part of its start (begin.py).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Collection
from contextlib import closing, suppress
from typing import Any

from medcrypt_hsm.errors import Failed, MedcryptError
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.session import frames, place, said
from medcrypt_hsm.session.deadlines import IDLE, LASTING, check_times
from medcrypt_hsm.session.frames import ProtocolError, encode
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.vault import notes
from medcrypt_hsm.vault.audit.actions import SESSION_END
from medcrypt_hsm.vault.choosing import choose_token, peek
from medcrypt_hsm.vault.clock import system_clock
from medcrypt_hsm.vault.opening import this_user
from medcrypt_hsm.vault.store.rows import Location, Named
from medcrypt_hsm.vault.store.store import open_store


def start_session(
    path: Named,
    pin: PinPrompt | TokenAccess,
    token: str | None = None,
    *,
    idle: int = IDLE,
    lasting: int = LASTING,
    archive: bool = False,
    anywhere: bool = False,
    without: Collection[str] = (),
) -> bool:
    """A session for the vault at ``path``, recorded in it; False where one runs already.

    ``idle`` and ``lasting`` in seconds. It serves the terminal of this process, or ``anywhere``; ``archive``: archived
    months, imports and exports too. ``without``: environment variables that hold secrets. Raises what ``Vault.open``
    raises.
    """
    check_times(idle, lasting)
    access, vault = TokenAccess.of(pin), Location.parse(path).absolute()
    if place.clear_dead(str(vault)):
        note_killed(vault)
    with closing(open_store(vault)) as file:
        choose_token(peek(file), token, access.modules)
    ours, its = socket.socketpair()
    with ours:
        with its:
            environment = {key: value for key, value in os.environ.items() if key not in without}
            # -P: nothing is imported from the directory that it happens to stand in.
            command = [sys.executable, "-P", "-m", "medcrypt_hsm.session", str(its.fileno())]
            subprocess.run(
                command,
                env=environment,
                cwd="/",
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                check=False,
            )
        told = {
            "vault": os.fsencode(str(vault)).hex(),
            "token": token,
            "idle": idle,
            "lasting": lasting,
            "archive": archive,
            "anywhere": anywhere,
            "last_try": access.last_try,
            "modules": list(access.modules),
        }
        try:
            ours.sendall(encode(frames.BEGIN, told))
            return _converse(ours, access)
        except (OSError, ProtocolError) as exc:
            raise Failed("the session's process did not start, or has ended", "run the command again") from exc


def note_killed(vault: Location) -> None:
    """Leave a note of an agent that was killed: it could not."""
    with suppress(MedcryptError, OSError):
        notes.write(vault, SESSION_END, timestamp(system_clock()), token="", actor=this_user(), why="killed")


def _converse(agent: socket.socket, access: TokenAccess) -> bool:
    info: TokenInfo | None = None
    while (frame := frames.receive(agent, frames.STARTING)) is not None:
        kind, value, _ = frame
        if kind == frames.ASK_PIN:
            info = _info(value)
            pin = access.pin(info).encode()
            agent.sendall((len(pin) + 1).to_bytes(4, "big") + bytes((frames.PIN,)) + pin)
        elif kind == frames.TOUCH and info is not None:
            with access.touch(info):
                if frames.receive(agent, frames.STARTING) is None:
                    break
        elif kind == frames.ERROR:
            raise said.error_of(value)
        elif kind == frames.DONE:
            return value == {"started": True}
        else:
            break
    raise ProtocolError("it broke off")


def _info(value: dict[str, Any]) -> TokenInfo:
    try:
        return TokenInfo(**{**value, "pin_flags": frozenset(value["pin_flags"])})
    except (KeyError, TypeError):
        raise ProtocolError("not what a token says of itself") from None
