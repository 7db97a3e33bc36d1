"""An agent's process, from its first moment until it serves.

In: a socket to the command that starts it (start.py), which tells the vault, the token and the PIN. Out: a hardened
process that has the vault unlocked, listens and runs to its end; or the error, told to that command. Not here: what is
served (agent.py, service.py).
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from medcrypt_hsm.api.vault import Vault
from medcrypt_hsm.crypto.secret import wipe_text
from medcrypt_hsm.errors import Failed
from medcrypt_hsm.process import protect_memory
from medcrypt_hsm.session import frames, place, said
from medcrypt_hsm.session.agent import Agent
from medcrypt_hsm.session.deadlines import Deadlines
from medcrypt_hsm.session.desk import Desk
from medcrypt_hsm.session.frames import ProtocolError, encode
from medcrypt_hsm.session.screen import Screen
from medcrypt_hsm.session.whose import Peer
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.vault.audit.actions import SESSION_START


def begin(fd: int) -> None:
    """What the new process does, from its first moment to its last."""
    if os.fork():
        os._exit(0)  # the command that started it waits for this process alone; its child lives on
    memory_locked = _harden()
    command = socket.socket(fileno=fd)
    try:
        frame = frames.receive(command, frames.STARTING)
        if frame is None or frame[0] != frames.BEGIN:
            return
        agent = _prepared(command, frame[1], memory_locked)
        command.sendall(encode(frames.DONE, {"started": agent is not None}))
    except (OSError, ProtocolError):
        return
    except Exception as exc:
        with suppress(OSError):
            command.sendall(encode(frames.ERROR, said.error_value(exc)))
        return
    finally:
        command.close()
    if agent is not None:
        agent.run()


def _prepared(command: socket.socket, told: dict[str, Any], memory_locked: bool) -> Agent | None:
    vault_path = os.fsdecode(bytes.fromhex(told["vault"]))
    where = place.claim(vault_path)
    if not isinstance(where, place.Place):
        return None
    try:
        return _unlocked(command, told, vault_path, where, memory_locked)
    except BaseException:
        where.close()
        raise


def _unlocked(
    command: socket.socket, told: dict[str, Any], vault_path: str, where: place.Place, memory_locked: bool
) -> Agent:
    starter = Peer.of_socket(command)  # whoever made the pair: the command
    if not (told["anywhere"] or starter.terminal.is_known):
        raise Failed(
            "this machine does not say in which terminal a command runs, or what led this terminal's session has ended",
            "open another terminal, or start the session with --anywhere",
        )
    agent = Agent(where, Screen(), memory_locked)
    agent.actor, agent.vault_path = starter.actor, vault_path
    began: list[bool] = []

    @contextmanager
    def touch(info: TokenInfo) -> Iterator[None]:
        if began:
            with agent.touching(info):
                yield
            return
        command.sendall(encode(frames.TOUCH, {"label": info.label}))
        yield
        command.sendall(encode(frames.TOUCHED))

    agent.deadlines = Deadlines(told["idle"], told["lasting"])
    desk: list[Desk] = []
    vault = _opened(command, told, vault_path, starter, touch, desk)
    unlocked = vault._unlocked
    finger = unlocked.registered.touch != "never"
    desk.append(
        Desk(
            starter.terminal,
            agent.deadlines,
            agent.wake,
            archive=told["archive"],
            anywhere=told["anywhere"],
            finger=finger,
        )
    )
    agent.desk = desk[0]
    agent.desk.vault = vault
    detail = {"idle": told["idle"], "for": told["lasting"]}
    detail |= {name: True for name in ("archive", "anywhere") if told[name]}
    try:
        unlocked.record(SESSION_START, unlocked.registered.name, detail)
    except BaseException:
        vault.close()
        raise
    if finger:
        unlocked.drop_keys()  # each connection unlocks the vault for itself, with a touch
    began.append(True)
    return agent


def _opened(
    command: socket.socket, told: dict[str, Any], vault_path: str, starter: Peer, touch: Any, desk: list[Desk]
) -> Vault:
    given: list[str] = []

    def ask(info: TokenInfo) -> str:
        asked = info._asdict() | {"pin_flags": sorted(info.pin_flags)}
        command.sendall(encode(frames.ASK_PIN, asked))
        given.append(_pin(command))
        return given[0]

    try:
        return Vault.open(
            vault_path,
            pin=TokenAccess(ask, told["last_try"], tuple(told["modules"]), touch),
            token=told["token"],
            actor=starter.actor,
            on_month_opened=lambda opened: desk[0].month_opened(opened) if desk else None,
        )
    finally:
        for pin in given:
            wipe_text(pin)
        given.clear()
        _scrub()


def _pin(command: socket.socket) -> str:
    """Read into memory that is wiped: ``frames.receive`` would leave copies of it."""
    data = bytearray(4096 + 16)
    try:
        length = command.recv_into(data)
        size = int.from_bytes(data[:4], "big") - 1
        if length < 6 or data[4] != frames.PIN or length != 5 + size:
            raise ProtocolError("no PIN was given")
        with memoryview(data) as view:
            return str(view[5:length], "utf-8")
    finally:
        data[:] = bytes(len(data))


def _harden() -> bool:
    """No core dump; no other process of this user looks in; no swapping, where locking all memory is allowed.

    Whether it is locked.
    """
    os.umask(0o077)
    protect_memory()
    # Only without a limit: under one, memory that is asked for later would be refused. Keys are locked in any case, as
    # far as the limit allows (crypto/secret.py).
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        current, future = 1, 2
        return bool(ctypes.CDLL(None).mlockall(current | future) == 0)
    return False


def _scrub() -> None:
    """Overwrite memory that the interpreter has freed: it may still hold copies of the PIN that bindings made."""
    gc.collect()
    for size in range(48, 513, 16):  # the sizes in which small objects come
        filled = [bytes(size - bytes.__basicsize__) for _ in range(2000)]
        del filled
