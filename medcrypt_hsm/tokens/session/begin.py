"""An agent's process, from its first moment until it serves.

In: a socket to the command that starts it (start.py), which tells the vault's ``Home``, the token's URI and the PIN.
Out: a hardened process whose ``Agent`` has the token open, listens and runs to its end; or the error, told to that
command. Not here: what is served (agent.py, service.py), and what is left of the session's end (vault/session_end.py).
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from medcrypt_hsm.crypto.secret import wipe_text
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.tokens import Token, TokenInfo, Touch
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.session import place, protocol
from medcrypt_hsm.tokens.session.agent import Agent, Word
from medcrypt_hsm.tokens.session.deadlines import Deadlines
from medcrypt_hsm.tokens.session.protocol import Op, ProtocolError, encode
from medcrypt_hsm.tokens.session.screen import Screen


def begin(fd: int, word: Word) -> None:
    """What the new process does, from its first moment to its last. ``word`` tells the vault of its end."""
    if os.fork():
        os._exit(0)  # the command that started it waits for this process alone; its child lives on
    _harden()
    command = socket.socket(fileno=fd)
    try:
        frame = protocol.receive(command)
        if frame is None or frame.op is not Op.BEGIN:
            return
        agent = _prepared(command, protocol.document(frame.fields[0]), word)
        command.sendall(encode(Op.DONE, [] if agent is None else [b"\1"]))
    except (OSError, ProtocolError):
        return
    except Exception as exc:
        with suppress(OSError):
            command.sendall(protocol.encode_error(exc))
        return
    finally:
        command.close()
    if agent is not None:
        agent.run()


class _Told(NamedTuple):
    """A ``place.Home``, as ``start`` has told it."""

    session_directories: list[Path]


def _prepared(command: socket.socket, told: dict[str, Any], word: Word) -> Agent | None:
    home = _Told([Path(os.fsdecode(bytes.fromhex(place))) for place in told["places"]])
    where = place.take(home)
    if where is None:
        return None
    agent: list[Agent] = []

    @contextmanager
    def touch(info: TokenInfo) -> Iterator[None]:
        if agent:
            with agent[0].touching(info):
                yield
            return
        command.sendall(encode(Op.TOUCH))
        yield
        command.sendall(encode(Op.TOUCHED))

    try:
        token = _logged_in(command, told, touch)
        deadlines = Deadlines(told["idle"], told["lasting"])
        vault_id = bytes.fromhex(told["vault_id"])
        agent.append(
            Agent(
                token,
                told["name"],
                told["vault"],
                vault_id,
                told["actor"],
                where,
                deadlines,
                Screen(),
                word,
                silent_end=told["finger"],
            )
        )
    except BaseException:
        where.close()
        raise
    return agent[0]


def _logged_in(command: socket.socket, told: dict[str, Any], touch: Touch) -> Token:
    given: list[str] = []

    def ask(info: TokenInfo) -> str:
        command.sendall(encode(Op.ASK_PIN, [canonical(protocol.info_document(info))]))
        given.append(_pin(command))
        return given[0]

    try:
        return open_token(told["uri"], ask, last_try=told["last_try"], modules=tuple(told["modules"]), touch=touch)
    finally:
        for pin in given:
            wipe_text(pin)
        given.clear()
        _scrub()


def _pin(command: socket.socket) -> str:
    """Read into memory that is wiped: ``protocol.receive`` would leave copies of it."""
    data = bytearray(4096 + 16)
    try:
        length = command.recv_into(data)
        size = int.from_bytes(data[5:9], "big")
        if length < 9 or data[4] != Op.PIN or length != 9 + size:
            raise ProtocolError("no PIN was given")
        with memoryview(data) as view:
            return str(view[9:length], "utf-8")
    finally:
        data[:] = bytes(len(data))


def _harden() -> None:
    """No core dump; no other process of this user looks in; and no swapping, where locking all memory is allowed."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    pr_set_dumpable, current, future = 4, 1, 2
    libc.prctl(pr_set_dumpable, 0, 0, 0, 0)
    # Only without a limit: under one, memory that is asked for later would be refused.
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        libc.mlockall(current | future)


def _scrub() -> None:
    """Overwrite memory that the interpreter has freed: it may still hold copies of the PIN that bindings made."""
    gc.collect()
    for size in range(48, 513, 16):  # the sizes in which small objects come
        filled = [bytes(size - bytes.__basicsize__) for _ in range(2000)]
        del filled
