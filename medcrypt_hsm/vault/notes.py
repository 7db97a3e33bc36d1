"""Notes: what failed before unlock, in a file beside the vault until the next unlock enters it into the log.

Written before any key is there, a note is only as trustworthy as the file; the entry says so by its action. The file
changes its name before the commit that enters it and goes after it, so that a kill between loses and doubles nothing.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from medcrypt_hsm.errors import VaultError
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.vault.audit.actions import NOTES
from medcrypt_hsm.vault.unlocked import Unlocked

MOST_NOTES = 1000  # entered at once; a file that was stuffed must not stop the practice
LONGEST = 500


def _path(vault: Path) -> Path:
    return vault.with_name(vault.name + "-notes")


@contextmanager
def _locked(vault: Path) -> Iterator[int]:
    """The notes file, open for appending, ours alone."""
    while True:
        try:
            fd = os.open(_path(vault), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise VaultError(
                f"the notes file {_path(vault)} cannot be opened: {exc.strerror}", "see who put it there, and remove it"
            ) from exc
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise VaultError(f"{_path(vault)} is not a file", "see who put it there, and remove it")
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                same = os.fstat(fd).st_ino == _path(vault).stat().st_ino
            except FileNotFoundError:
                same = False
            if same:  # otherwise it was entered and removed while we waited
                yield fd
                return
        finally:
            os.close(fd)


def write(vault: Path, what: str, time: str, **fields: Any) -> None:
    """Note that ``what`` (an error's name) happened. Without a vault directory there is nothing to note it in."""
    if not vault.exists():
        return
    with _locked(vault) as fd:
        os.write(fd, canonical({"what": what, "time": time, **fields}) + b"\n")
        os.fsync(fd)


def pending(vault: Path) -> bool:
    return _path(vault).exists() or bool(_leftovers(vault))


def _leftovers(vault: Path) -> list[Path]:
    """Notes that a killed run was about to enter, or had just entered."""
    found = vault.parent.glob(f"{glob.escape(vault.name)}-notes-{'[0-9a-f]' * 64}")
    return sorted(file for file in found if file.is_file() and not file.is_symlink())


def enter(unlocked: Unlocked) -> int:
    """Enter what is noted; how many notes that were."""
    vault = unlocked.file.path
    if not pending(vault):
        return 0
    with _locked(vault):
        entered = 0
        for source in (*_leftovers(vault), _path(vault)):
            if source != _path(vault) and _was_entered(unlocked, source):
                source.unlink()
                continue
            notes = _read(source)
            if notes:
                source = _enter_one(unlocked, source, notes)
            source.unlink()
            entered += len(notes)
    return entered


def _enter_one(unlocked: Unlocked, source: Path, notes: list[Any]) -> Path:
    """One file, one entry; the file's name after the commit."""
    renamed = source

    def settle(entry_hash: bytes) -> None:
        nonlocal renamed
        vault = unlocked.file.path
        renamed = source.rename(vault.with_name(f"{vault.name}-notes-{entry_hash.hex()}"))

    with unlocked.change(NOTES, before_commit=settle) as change:
        change.detail["notes"] = notes
    return renamed


def _was_entered(unlocked: Unlocked, leftover: Path) -> bool:
    try:
        return unlocked.file.has_entry_hash(bytes.fromhex(leftover.name.rsplit("-", 1)[1]))
    except ValueError:
        return False


def _refuse(number: str) -> None:
    raise ValueError("not a number that canonical JSON knows")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """At most LONGEST bytes of each line, and never more than that in memory."""
    whole = True
    while line := file.readline(LONGEST):
        if whole:
            yield line
        whole = line.endswith(b"\n")


def _read(file: Path) -> list[Any]:
    """Lines as they are; what is not JSON is kept as text, because somebody may have wanted it unread."""
    notes: list[Any] = []
    with file.open("rb") as lines:
        for line in _lines(lines):
            if len(notes) == MOST_NOTES:
                notes.append({"what": "more notes than can be entered were dropped"})
                break
            text = line.decode("utf-8", "replace").rstrip("\n")
            try:
                note = json.loads(text, parse_float=_refuse, parse_constant=_refuse)
                canonical(note)  # half a character (a lone surrogate) is JSON, but no entry can hold it
            except (ValueError, RecursionError):
                note = {"what": "unreadable", "text": text}
            notes.append(note if isinstance(note, dict) else {"what": "unreadable", "text": text})
    return notes
