"""Where a command and a vault's agent meet: a directory beside the vault, with a lock for life and a socket in it.

In: the vault's path. Out: a held place, or who holds it; a connected socket whose other end holds the lock. Not here:
what is said (frames.py).

The lock is a POSIX one, because the kernel then names its process to whoever asks (F_GETLK), with the socket gone too;
of an flock or an open file description's lock it does not. The price: it is gone when its process closes any
descriptor of that file, and so the agent opens the file once, and closes none that somebody sends (agent.py). Nothing
here opens what is no plain file with one name: closing another name of the vault would drop SQLite's locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import time

from medcrypt_hsm.errors import Failed
from medcrypt_hsm.sentences import t

GREETING, ENDING = 5.0, 12.0  # seconds: for the first answer; in which an agent that has stopped listening is gone
_TRIES = 50  # to claim a place that others are just clearing
_SO_PEERPIDFD = 77  # Linux 6.5; Python does not name it
_FLOCK = "hhqqi4x"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Holder:
    """Who holds the lock; 0 for a process that this one cannot see."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


class Place:
    """A held lock and a listening socket. ``close`` removes both."""

    def __init__(self, path: str, directory: int, lock: int) -> None:
        """Raises OSError."""
        self._path = path
        self._directory = directory  # kept open: whatever has its name by the end, only what lies in it is removed
        self._lock = lock
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(f"/proc/self/fd/{directory}/new")  # a socket's address has room for 107 bytes
        os.chmod("new", 0o600, dir_fd=directory)
        self.listening.listen(64)
        self.listening.setblocking(False)
        self._socket = os.stat("new", dir_fd=directory, follow_symlinks=False)
        os.rename("new", "socket", src_dir_fd=directory, dst_dir_fd=directory)

    def is_in_place(self) -> bool:
        """Is this still where commands look? Otherwise nobody finds the agent, and another may begin."""
        try:
            return _is_at(self._path, self._directory, self._lock) and os.path.samestat(
                os.stat("socket", dir_fd=self._directory, follow_symlinks=False), self._socket
            )
        except OSError:
            return False

    def is_lock(self, fd: int) -> bool:
        """Is it a descriptor of the lock's file, whatever name that has by now?"""
        return os.path.samestat(os.fstat(fd), os.fstat(self._lock))

    def stop_listening(self) -> None:
        """Nobody connects from here on; the lock is held until ``close``."""
        self.listening.close()
        with contextlib.suppress(OSError):
            os.unlink("socket", dir_fd=self._directory)

    def close(self) -> None:
        self.listening.close()
        if self._lock >= 0:
            _remove(self._path, self._directory)
            os.close(self._lock)
            os.close(self._directory)
            self._lock = self._directory = -1


def _beside(vault: str) -> str:
    return os.path.realpath(vault) + "-session"


def lock_of(vault: str) -> str:
    """The file whose lock is the agent's for life."""
    return f"{_beside(vault)}/lock"


def claim(vault: str) -> Place | Holder:
    """Raises Failed."""
    path = _beside(vault)
    for _ in range(_TRIES):
        try:
            directory = _made(path)
        except FileNotFoundError:  # removed as soon as it was there
            continue
        try:
            if (claimed := _claimed(path, directory)) is not None:
                return claimed
        except OSError as exc:
            raise Failed(
                t("no session can have its place in {directory}: {reason}", directory=path, reason=exc.strerror),
                "see what is there and who put it there, and remove it; or keep the vault on another disk",
            ) from exc
        time.sleep(0.01)
    raise Failed(t("{directory} is made and removed again all the time", directory=path), "see which program does that")


def _made(path: str) -> int:
    """A descriptor of the directory, this user's alone. Raises Failed, FileNotFoundError."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as exc:
        raise Failed(
            t("{directory} cannot be made: {reason}", directory=path, reason=exc.strerror),
            "see who put it there, and remove it",
        ) from exc
    try:
        directory = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        raise
    except OSError:  # a link, a file, another user's
        raise _not_ours(path) from None
    state = os.fstat(directory)
    if state.st_uid != os.geteuid() or state.st_mode & 0o077:
        os.close(directory)
        raise _not_ours(path)
    return directory


def _not_ours(path: str) -> Failed:
    return Failed(t("{directory} is not this user's alone", directory=path), "see who made it, and remove it")


def _claimed(path: str, directory: int) -> Place | Holder | None:
    """None where it has to be tried again. Raises Failed, OSError. The descriptor is the place's, or closed."""
    lock = -1
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open("lock", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory))
        lock = _open_lock(path, directory, os.O_RDWR)
        if not _locked(lock):
            pid = _holder(lock)
            return None if pid is None else Holder(pid)
        if not _is_at(path, directory, lock):  # cleared by another between open and lock: nobody would find us
            return None
        for name in ("new", "socket"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        try:
            place = Place(path, directory, lock)
        except OSError:  # a file system without sockets, a full one
            _remove(path, directory)
            raise
        lock = directory = -1
        return place
    except FileNotFoundError:
        return None
    finally:
        for fd in (lock, directory):
            if fd >= 0:
                os.close(fd)


def clear_dead(vault: str) -> bool:
    """Remove what an agent left that was killed; whether there was any."""
    path = _beside(vault)
    directory = lock = -1
    try:
        directory = os.open(path, _DIRECTORY)
        if os.fstat(directory).st_uid != os.geteuid():
            return False
        lock = _open_lock(path, directory, os.O_RDWR)
        if not (_locked(lock) and _is_at(path, directory, lock)):
            return False  # its agent lives, or another one's does by now
        left = _has(directory, "socket")
        _remove(path, directory)
        return left
    except (OSError, Failed):
        return False
    finally:
        for fd in (lock, directory):
            if fd >= 0:
                os.close(fd)


def _remove(path: str, directory: int) -> None:
    for name in ("new", "socket", "lock"):
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
    with contextlib.suppress(OSError):
        if os.path.samestat(os.lstat(path), os.fstat(directory)):
            os.rmdir(path)


def _open_lock(path: str, directory: int, how: int) -> int:
    """Raises Failed where the name is something else's, OSError."""
    # O_PATH opens nothing: looking at it lets go of no lock.
    seen = os.open("lock", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        state = os.fstat(seen)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            raise Failed(t("{file} is no session's", file=f"{path}/lock"), "see who put it there, and remove it")
        return os.open(f"/proc/self/fd/{seen}", how | os.O_CLOEXEC)
    finally:
        os.close(seen)


def _locked(lock: int) -> bool:
    """Raises OSError where the file system has no locks."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another process has it
        return False
    return True


def _is_at(path: str, directory: int, lock: int) -> bool:
    """Do the names still lead there? Raises OSError."""
    return os.path.samestat(os.lstat(path), os.fstat(directory)) and os.path.samestat(
        os.stat("lock", dir_fd=directory, follow_symlinks=False), os.fstat(lock)
    )


def _has(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _holder(lock: int) -> int | None:
    """The process that holds it, by the kernel; 0 for one that this process cannot see, None for none."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        return None
    return max(0, int(pid))  # another machine's, on a shared disk, is negative


def find(vault: str) -> socket.socket | None:
    """Connected to the agent of this vault; None where none runs, or it has just ended. Raises Failed."""
    path = _beside(vault)
    end = time.monotonic() + ENDING
    while (held := _alive(path)) is not None:
        pid, uid = held
        _refuse_unreachable(pid, uid)
        if (connection := _connected(path, pid)) is not None:
            return connection
        if time.monotonic() > end:
            raise unreached(pid)
        time.sleep(0.05)  # it may be ending: it has stopped listening, and records that
    return None


def unreached(pid: int) -> Failed:
    """What to say where the process of a session does not answer."""
    if _state(pid) in ("T", "t"):
        return Failed(
            t("process {process} holds the session of this vault, and is stopped", process=pid),
            t("let it go on: 'kill -CONT {process}'; or end it: 'kill -KILL {process}'", process=pid),
        )
    return Failed(
        t("process {process} holds the session of this vault, and is not reached", process=pid),
        t("end it: 'kill {process}'", process=pid),
    )


def _refuse_unreachable(pid: int, uid: int) -> None:
    """Raises Failed for an agent that this process will never reach."""
    if not pid:
        raise Failed(
            "a session of this vault runs where this command cannot see its process: outside of this container, or "
            "on another machine",
            "end it there: 'medcrypt session lock'",
        )
    if uid != os.geteuid():
        raise Failed(
            t("process {process} holds the session of this vault, for another user (uid {uid})", process=pid, uid=uid),
            "end it as that user: 'medcrypt session lock'",
        )
    if _state(pid) in ("T", "t"):
        raise unreached(pid)


def _state(pid: int) -> str:
    """One letter, as the kernel says it; "" where it does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1].decode("ascii", "replace")
    except OSError:
        return ""


def _alive(path: str) -> tuple[int, int] | None:
    """Process and user of the agent; None where there is none. Raises Failed where that cannot be known."""
    directory = lock = -1
    try:
        directory = os.open(path, _DIRECTORY)
        lock = _open_lock(path, directory, os.O_RDONLY)
        pid = _holder(lock)
        return None if pid is None else (pid, os.fstat(lock).st_uid)
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG or (exc.errno == errno.ENOTDIR and not os.path.lexists(path)):
            return None
        raise Failed(
            t("whether a session runs is not known: {directory} cannot be read: {reason}",
              directory=path, reason=exc.strerror),
            "see what is there and who put it there; commands ask for the PIN meanwhile",
        ) from exc  # fmt: skip
    finally:
        for fd in (lock, directory):
            if fd >= 0:
                os.close(fd)


def _connected(path: str, pid: int) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    handle = -1
    try:
        directory = os.open(path, _DIRECTORY)
        try:
            connection.settimeout(GREETING)
            connection.connect(f"/proc/self/fd/{directory}/socket")
        finally:
            os.close(directory)
        peer, uid, handle = peer_of(connection)
        if peer == pid and uid == os.geteuid() and not has_ended(handle):
            return connection
    except OSError:
        pass
    finally:
        if handle >= 0:
            os.close(handle)
    connection.close()
    return None


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """The process at the other end, its user, and a pidfd of it; -1 where the kernel gives none.

    It is the process that connected, or listened: a socket that was handed on is still its own. Its number may be
    another's by now; a pidfd that has not ended says that it is not. Raises OSError for one that is gone.
    """
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        handle = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise
        handle = -1  # Linux before 6.5
    return pid, uid, handle


def has_ended(handle: int) -> bool:
    """The process of a pidfd; of none that is not known."""
    if handle < 0:
        return False
    polled = select.poll()
    polled.register(handle, select.POLLIN)
    return bool(polled.poll(0))
