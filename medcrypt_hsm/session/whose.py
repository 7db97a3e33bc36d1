"""Whose process is at the other end, and in which terminal it runs: by the kernel and /proc.

In: a socket, or a process's id. Out: ``Peer`` and ``Terminal``, to be compared. Not here: what that allows (desk.py).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import NamedTuple

from medcrypt_hsm.session.place import has_ended, peer_of
from medcrypt_hsm.vault import actor

_ENDED = ("Z", "X")  # a process that has ended, and has its number yet


class Terminal(NamedTuple):
    """A POSIX session: its leader, when that was started (in ticks), and its terminal.

    As long as a process is in it, the kernel gives its leader's number to no other. ``started`` is "" where the leader
    has ended, and ``leader`` 0 where /proc does not say: neither is equal to any terminal, not to itself.
    """

    leader: int
    started: str
    tty: int

    @classmethod
    def of_process(cls, pid: int) -> Terminal:
        """Raises OSError for one that is gone, or that /proc does not show."""
        fields = _stat(pid)
        leader, tty = int(fields[3]), int(fields[4])
        try:
            of_leader = _stat(leader)
        except OSError:
            return cls(leader, "", tty)
        return cls(leader, "" if of_leader[0] in _ENDED else of_leader[19], tty)

    @property
    def is_known(self) -> bool:
        """Can a process be found to be in it, or not? Of a session without its leader, nobody can tell."""
        return self.leader > 0 and bool(self.started)

    def is_same(self, other: Terminal) -> bool:
        return self.is_known and self == other


UNKNOWN = Terminal(0, "", 0)


class Peer(NamedTuple):
    """``close`` it with its connection."""

    pid: int  # 0: in another container
    uid: int
    login: int | None
    program: str  # as it calls itself: any program may call itself anything
    started: str
    terminal: Terminal
    handle: int  # a pidfd, or -1

    @classmethod
    def of_socket(cls, connection: socket.socket) -> Peer:
        """Raises OSError for one that is gone: nobody knows whose it was."""
        pid, uid, handle = peer_of(connection)
        try:
            found = _looked_at(pid)
            if has_ended(handle):  # what was read may be another's, with the same number
                raise ProcessLookupError(pid)
            return cls(pid, uid, None if pid <= 0 else actor.loginuid_of(pid), *found, handle)
        except BaseException:
            if handle >= 0:
                os.close(handle)
            raise

    @property
    def actor(self) -> str:
        """Who acts, as the log names them."""
        return actor.of(self.uid, self.login)

    def stays(self) -> bool:
        """Does the process that connected still run, where it was?"""
        if has_ended(self.handle):
            return False
        try:
            _, started, terminal = _looked_at(self.pid)
        except OSError:
            return False
        return (started, terminal) == (self.started, self.terminal) and not has_ended(self.handle)

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)


def _looked_at(pid: int) -> tuple[str, str, Terminal]:
    """A process's own name, its start and its terminal. Raises OSError for one that is gone."""
    if pid <= 0:
        return "unknown", "", UNKNOWN
    try:
        started = _stat(pid)[19]
        with open(f"/proc/{pid}/comm", "rb") as file:
            program = file.read().decode("utf-8", "replace").rstrip("\n")
        return program, started, Terminal.of_process(pid)
    except OSError:
        with suppress(PermissionError):
            os.kill(pid, 0)
        return "unknown", "", UNKNOWN  # it runs, and /proc (mounted with hidepid) does not show it


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the name before them may hold anything."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2].decode("ascii").split()
