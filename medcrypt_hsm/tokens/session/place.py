"""Where a command and a vault's agent meet: a directory of this user alone, with a socket in it.

In: a ``Home``, which every vault has. Out: a connected socket whose other end is this same user, or a directory that is
locked for a new agent. The directory is in XDG_RUNTIME_DIR, or the home's own where there is none. Its lock is held for
as long as its agent lives, so that a socket without a holder is a dead agent's. Not here: what is said (protocol.py).
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from medcrypt_hsm.errors import Failed
from medcrypt_hsm.sentences import t

SOCKET = "socket"
_NEW = "socket.new"
GREETING, PATIENCE = 5.0, 60.0  # seconds: for the first answer; for any other, fingers and other commands included


class Home(Protocol):
    """What a session is of: a vault's surroundings (vault/store/surroundings.py), of which no more is known here."""

    @property
    def session_directories(self) -> list[Path]:
        """Where its session may be, the better place first; the last is beside the vault."""


def _is_ours(directory: Path) -> bool:
    try:
        state = directory.lstat()
    except OSError:
        return False
    return _private(state)


def _private(state: os.stat_result) -> bool:
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077


def _open(directory: Path) -> int | None:
    """A directory of this user's own, or None: never one that another has made, nor one behind a link."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if not _private(os.fstat(fd)):
        os.close(fd)
        return None
    return fd


def peer_is_us(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as this very user."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.geteuid())


def connect(home: Home) -> socket.socket | None:
    """To the agent that lives there; None where there is none."""
    for directory in home.session_directories:
        fd = _open(directory)
        if fd is None:
            continue
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(GREETING)
            connection.connect(_path(fd, SOCKET))
            if peer_is_us(connection):
                return connection
            connection.close()
        except OSError:
            connection.close()
        finally:
            os.close(fd)
    return None


def clear_dead(home: Home) -> bool:
    """Remove what an agent left that was killed; whether there was any."""
    found = False
    for directory in home.session_directories:
        fd = _open(directory)
        if fd is None:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(SOCKET, dir_fd=fd, follow_symlinks=False)
            _empty(directory, fd)
            found = True
        except OSError:  # its agent lives, or it left nothing
            continue
        finally:
            os.close(fd)
    return found


def _path(fd: int, name: str) -> str:
    """A name in an open directory, as short as a socket's address must be; nobody can put another directory there."""
    return f"/proc/self/fd/{fd}/{name}"


def _empty(directory: Path, fd: int) -> None:
    for name in (SOCKET, _NEW):
        with suppress(OSError):
            os.unlink(name, dir_fd=fd)
    with suppress(OSError):
        directory.rmdir()


class Place:
    """A directory that is locked for one agent, and its listening socket. ``close`` removes both."""

    def __init__(self, directory: Path, fd: int) -> None:
        self.directory = directory
        self._fd = fd
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        for name in (SOCKET, _NEW):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
        before = os.umask(0o177)
        try:
            self.listening.bind(_path(fd, _NEW))
        finally:
            os.umask(before)
        self.listening.listen(64)
        self.listening.setblocking(False)
        # Nobody finds it before it listens: a socket that refuses is a dead agent's.
        os.rename(_NEW, SOCKET, src_dir_fd=fd, dst_dir_fd=fd)

    def close(self) -> None:
        self.listening.close()
        if self._fd >= 0:
            _empty(self.directory, self._fd)
            os.close(self._fd)
            self._fd = -1


def take(home: Home) -> Place | None:
    """The place for a new agent; None where one lives already. Raises Failed."""
    directory = home.session_directories[0]
    for _ in range(20):
        try:
            directory.parent.mkdir(mode=0o700, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise Failed(
                t("{directory} cannot be made: {reason}", directory=directory, reason=exc.strerror),
                "see who put it there, and remove it",
            ) from exc
        if directory != home.session_directories[-1] and not _is_ours(directory.parent):
            raise Failed(
                t("{directory} is not this user's alone", directory=directory.parent), "see who made it, and remove it"
            )
        fd = _open(directory)
        if fd is None:
            if not os.path.lexists(directory):
                continue
            raise Failed(
                t("{directory} is not this user's alone", directory=directory), "see who made it, and remove it"
            )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), directory.lstat()):
                return Place(directory, fd)
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)  # removed by an agent that ended meanwhile
    raise Failed(t("{directory} vanishes again and again", directory=directory), "run the command again")
