"""Starting a session: another process asks for the PIN through this one, logs in, and stays.

The command that starts it never opens the token itself: the PIN goes from the person to the agent through a socket
pair, once, and no further. In: how the PIN is asked for. Out: an agent that listens, or the error that kept it from
that.
``begin`` is the agent's half.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Collection

from medcrypt_hsm.errors import Failed
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.tokens.session import protocol
from medcrypt_hsm.tokens.session.place import Home
from medcrypt_hsm.tokens.session.protocol import Op, ProtocolError, encode


def start(
    vault: str,
    home: Home,
    vault_id: bytes,
    name: str,
    uri: str,
    access: TokenAccess,
    *,
    actor: str,
    idle: int,
    lasting: int,
    finger: bool,
    without: Collection[str] = (),
) -> bool:
    """Start an agent for the token at ``uri``; False where one runs by now. It listens, at ``home``, when this returns.

    ``without``: environment variables that it does not get, since they hold secrets. ``finger``: the root key waits for
    one. Raises what opening a token raises. Wide because all of its parameters but two are what the agent is told.
    """
    ours, its = socket.socketpair()
    with ours:
        with its:
            environment = {key: value for key, value in os.environ.items() if key not in without}
            # -P: nothing is imported from the directory that it happens to stand in.
            command = [sys.executable, "-P", "-m", "medcrypt_hsm.agent", str(its.fileno())]
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
            "vault": vault,
            "places": [os.fsencode(directory).hex() for directory in home.session_directories],
            "vault_id": vault_id.hex(),
            "name": name,
            "uri": uri,
            "actor": actor,
            "idle": idle,
            "lasting": lasting,
            "last_try": access.last_try,
            "modules": list(access.modules),
            "finger": finger,
        }
        try:
            ours.sendall(encode(Op.BEGIN, [canonical(told)]))
            return _converse(ours, access)
        except (OSError, ProtocolError) as exc:
            raise Failed("the session's process did not start, or has ended", "run the command again") from exc


def _converse(agent: socket.socket, access: TokenAccess) -> bool:
    info: TokenInfo | None = None
    while (frame := protocol.receive(agent)) is not None:
        if frame.op is Op.ASK_PIN:
            info = protocol.info_of(protocol.document(frame.fields[0]))
            agent.sendall(encode(Op.PIN, [access.pin(info).encode()]))
        elif frame.op is Op.TOUCH and info is not None:
            with access.touch(info):
                if protocol.receive(agent) is None:
                    break
        elif frame.op is Op.ERROR:
            raise protocol.error(frame.fields)
        elif frame.op is Op.DONE:
            return bool(frame.fields)
        else:
            break
    raise ProtocolError("it broke off")
