"""Files over a session: two descriptors of regular files, and a stream from one to the other.

    in its turn: the header recorded ─▶ outside of it: the stream ─▶ the command names the file and says so ─▶ done

In: descriptors that a command has sent. Out: what becomes of them; a command that goes away, or that gives the wrong
thing, leaves ``message.failed``. No path is opened here. A descriptor of the vault's own file is never closed: closing
any drops the locks that SQLite holds on it, so the session ends, with it still open. Not here: the format (messages/).
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from medcrypt_hsm.errors import Failed, UsageError
from medcrypt_hsm.messages import files
from medcrypt_hsm.messages.files import Begun, Input
from medcrypt_hsm.messages.wire.files import Metadata
from medcrypt_hsm.session import frames, place

if TYPE_CHECKING:
    from medcrypt_hsm.session.service import Service

_BESIDE = ("", "-wal", "-shm", "-journal")


def is_of_vault(fd: int, vault: str) -> bool:
    """Is it the vault's file, one that SQLite keeps beside it, or the session's lock?"""
    found = os.fstat(fd)
    for path in (*(vault + ending for ending in _BESIDE), place.lock_of(vault)):
        try:
            if os.path.samestat(found, os.stat(path)):
                return True
        except OSError:
            continue
    return False


def stream(service: Service, kind: int, asked: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
    """The whole operation. The descriptors belong to it."""
    source, target = fds
    try:
        _check_target(source, target)
        reading, source = source, -1  # ``Input`` closes it, whatever it is
        given = Input(reading, asked.get("name") or "-", _watching(service))
        with given, os.fdopen(target, "wb") as out:
            target = -1
            if kind == frames.SEND_FILE:
                return _send(service, asked, given, out)
            return _take(service, asked, given, out)
    finally:
        for fd in (source, target):
            if fd >= 0:
                os.close(fd)


def _check_target(source: int, target: int) -> None:
    """Raises UsageError for what is no new file of the command's own."""
    found = os.fstat(target)
    writes = fcntl.fcntl(target, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    reads = fcntl.fcntl(source, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    files_both = stat.S_ISREG(found.st_mode) and stat.S_ISREG(os.fstat(source).st_mode)
    if not (files_both and writes and reads and not found.st_size):
        raise UsageError(
            "a session reads a regular file, and writes to an empty one, alone",
            "run the command again with --no-session",
        )
    if os.path.samestat(found, os.fstat(source)):
        raise UsageError("the file to read is the one to write", "name another file")
    for fd in (source, target):
        os.lseek(fd, 0, os.SEEK_SET)


def _watching(service: Service) -> files.Progress:
    def look(done: int, total: int) -> None:
        if service.is_gone():
            raise Failed("the command that wanted the file has ended", "run it again")

    return look


def _send(service: Service, asked: dict[str, Any], given: Input, out: BinaryIO) -> dict[str, Any]:
    metadata = files.described(asked["name"], given)
    with service.desk.turn(service) as vault, vault._vault.working() as unlocked:
        vault._vault.open_month_if_due()
        begun = files.begin_encrypt(unlocked, asked["patient"])
    with begun.key:
        try:
            files.stream_sealed(begun, metadata, given, out)
            return _kept(service, begun, metadata, given.size, out)
        except BaseException as exc:
            _failed(service, begun, exc)
            raise


def _take(service: Service, asked: dict[str, Any], given: Input, out: BinaryIO) -> dict[str, Any]:
    from medcrypt_hsm.month import Month

    month = None if asked["month"] is None else Month.parse(asked["month"])
    header = given.header()
    with service.desk.turn(service) as vault, vault._vault.working() as unlocked:
        service.refuse_archive(unlocked, asked["archive"], month)
        vault._vault.open_month_if_due()
        begun = files.begin_decrypt(unlocked, header, archive=asked["archive"], month=month)
    with begun.key:
        try:
            metadata, size = files.stream_opened(begun, given, out)
            return _kept(service, begun, metadata, size, out)
        except BaseException as exc:
            _failed(service, begun, exc)
            raise


def _kept(service: Service, begun: Begun, metadata: Metadata, size: int, out: BinaryIO) -> dict[str, Any]:
    """Tell the command that all is written, and wait until it has given the file its name."""
    from pathlib import Path

    out.flush()
    os.fsync(out.fileno())
    done = files.done(begun, Path("-"), metadata, size)
    told = {
        "patient": done.patient,
        "month": done.month,
        "sender": done.sender,
        "name": done.name,
        "media_type": done.media_type,
        "size": done.size,
        "seen": done.seen,
    }
    service.say(frames.SOME, told)
    if not service.await_kept():
        raise Failed("the command that wanted the file has ended", "run it again")
    return {}


def _failed(service: Service, begun: Begun, exc: BaseException) -> None:
    with (
        suppress(RuntimeError),  # the session has ended, and the vault is locked: the intent in the log is enough
        service.desk.turn(service, checked=False) as vault,
        vault._vault.working(anchor=False) as unlocked,
    ):
        begun.failed(unlocked, exc)
