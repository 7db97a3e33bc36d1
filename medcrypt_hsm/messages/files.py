"""Files for and from patients: a file is a message that holds a key, followed by long content under that key.

``encrypt``: make the header, record it, write the chunks. ``decrypt``: the header is planned, recorded and opened as
a message is (``decrypt.read_some``), then every chunk, into a file that has no name of its own before the last has
opened; a failure is recorded too. In: paths and an unlocked vault. Not here: the format (wire/files.py), names from
senders (filenames.py).
"""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import Failed, MedcryptError, Refused, UsageError
from medcrypt_hsm.messages import patients
from medcrypt_hsm.messages.decrypt import Reading, read_some
from medcrypt_hsm.messages.encrypt import writing_key
from medcrypt_hsm.messages.filenames import numbered, safe_name
from medcrypt_hsm.messages.plan import Batch
from medcrypt_hsm.messages.record import SEEN, record_failures, record_written
from medcrypt_hsm.messages.wire.files import (
    HEADER_BYTES,
    KEY_BYTES,
    NAME_BYTES,
    NONCE_BYTES,
    PREFIX_BYTES,
    UNKNOWN_TYPE,
    FileHeader,
    Metadata,
    check_length,
    head,
    key_aad,
    most_content,
    opened,
    sealed,
)
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import MESSAGE_ENCRYPT
from medcrypt_hsm.vault.store.atomic import Unfinished, check_new, taken
from medcrypt_hsm.vault.unlocked import Unlocked

Progress = Callable[[int, int], None]
"""Told how many bytes of how many were read."""
_TYPES = mimetypes.MimeTypes()  # Python's own table, and not the machine's, which says what is installed there
_TYPES.add_type("application/dicom", ".dcm")
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


OpenMonth = Callable[[], object]
"""Opens the month that is due, if one is, before anything is done under it."""


def silent(done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class FileDone:
    """A file that was written whole. ``name`` and ``media_type`` are the sender's words; ``path`` is where it is."""

    path: Path
    patient: str
    month: str
    sender: str  # "d" or "p": proves only that a holder of the key wrote it
    name: str = field(repr=False)
    media_type: str
    size: int  # of the content
    seen: bool = False

    @property
    def status(self) -> str:
        return "seen" if self.seen else "ok"


class Interrupted(MedcryptError):
    """What the log says of a file during which a person pressed Ctrl-C."""

    name = "interrupted"


@dataclass(frozen=True, slots=True)
class Begun:
    """A file whose header is on record: what streams it, with no vault at hand, and what records it if that fails."""

    key: Secret
    header: FileHeader
    batch: Batch
    intent: int

    def failed(self, unlocked: Unlocked, exc: BaseException) -> None:
        """The log says that it came to nothing. If that cannot be written, the intent in the log is enough."""
        error = _as_error(exc)
        place = self.batch.indexes[0] if self.batch.indexes else 0
        with suppress(MedcryptError, OSError):
            record_failures(unlocked, self.intent, [(self.batch, [0])], {place: error}, error.name)


def begin_encrypt(unlocked: Unlocked, patient_id: str) -> Begun:
    """A header for a patient's file under the newest month, recorded. The caller wipes its key.

    Raises Refused, UsageError and what stops the command.
    """
    month = unlocked.state.newest_month
    file_key = Secret(os.urandom(KEY_BYTES))
    try:
        with unlocked.change(MESSAGE_ENCRYPT, patient_id) as change:
            pairing = patients.writable(unlocked, patient_id)
            if pairing.protocol == "v1":
                raise Refused(
                    t("{patient} is paired with version 1, which has no files", patient=patient_id),
                    t("pair with version 2 first: 'medcrypt patient add {patient}'", patient=patient_id),
                )
            first = head(pairing.pairing, month, "d", os.urandom(PREFIX_BYTES), os.urandom(NONCE_BYTES))
            key = writing_key(unlocked, pairing, month)
            try:
                header = FileHeader.parse(first + key.seal(first[-NONCE_BYTES:], file_key.value, key_aad(first)))
            finally:
                key.destroy()
            batch = record_written(unlocked, change, pairing, month, [header])
    except BaseException:
        file_key.wipe()
        raise
    return Begun(file_key, header, batch, change.sequence)


def begin_decrypt(unlocked: Unlocked, header: FileHeader, *, archive: bool, month: Month | None) -> Begun:
    """A file's key from its header, as messages are opened: recorded first. The caller wipes it."""
    reading = Reading([header])
    read_some(unlocked, reading, [0], archive=archive, month=month)
    if reading.errors:
        raise reading.errors[0]
    (batch,) = reading.batches
    return Begun(Secret(reading.plaintexts.pop(0)), header, batch, reading.intent)


def stream_sealed(begun: Begun, metadata: Metadata, given: Input, out: BinaryIO) -> None:
    """The whole file of the format, from ``given`` to ``out``. Raises Failed, OSError."""
    out.write(begun.header.text)
    for chunks in sealed(begun.key, begun.header, metadata, given):
        out.write(chunks)
    given.check_unchanged()


def stream_opened(begun: Begun, given: Input, out: BinaryIO) -> tuple[Metadata, int]:
    """The content, whose header ``given`` was read for; what the sender says of it, and how many bytes it has.

    Raises NotAuthentic, Failed, OSError; what was written by then is not to be used.
    """
    payload = opened(begun.key, begun.header, given)
    metadata, content = Metadata.parse(next(payload))
    size = out.write(content)
    for content in payload:
        size += out.write(content)
    given.check_unchanged()
    return metadata, size


def encrypt(
    unlocked: Unlocked, patient_id: str, source: Path, target: Path, progress: Progress, open_month: OpenMonth
) -> FileDone:
    """A new file ``target`` for a patient.

    The entry commits before anything is written. Raises Refused, UsageError, Failed and what stops the command.
    """
    _check_place(target)
    with Input.of_path(source, progress) as given:
        metadata = described(source.name, given)
        open_month()
        begun = begin_encrypt(unlocked, patient_id)
        with begun.key, _recorded(unlocked, begun), Unfinished(target.parent) as unfinished:
            stream_sealed(begun, metadata, given, unfinished.out)
            try:
                unfinished.name([target.name])
            except FileExistsError as exc:
                raise taken(target) from exc
    month = str(begun.header.month)
    return FileDone(target, patient_id, month, "d", metadata.name, metadata.media_type, given.size)


def check_encrypt(source: Path, target: Path) -> None:
    """What is known without a vault: is there a file to read, and a place to write? Raises UsageError."""
    _check_place(target)
    with Input.of_path(source, silent) as given:
        described(source.name, given)


def _check_place(target: Path) -> None:
    check_new(target)
    _check_writable(target.parent)


def described(name: str, given: Input) -> Metadata:
    """What goes with a file of this name, encrypted. Raises UsageError."""
    if len(encoded := name.encode("utf-8", "replace")) > NAME_BYTES or encoded.decode() != name or not name:
        raise UsageError("the file's name is not UTF-8 of at most 255 bytes", "give it another name")
    # Of its endings alone: a whole name may look like a URL, which is read otherwise.
    media_type, packed = _TYPES.guess_type("x" + "".join(Path(name).suffixes[-2:]), strict=False)
    metadata = Metadata(name, (_PACKED.get(packed, UNKNOWN_TYPE) if packed else media_type) or UNKNOWN_TYPE)
    if given.size > most_content(metadata):
        raise UsageError(t("{path} is too long for one file of the format", path=name), "send it in several files")
    return metadata


def check_decrypt(source: Path, directory: Path) -> None:
    """The same: is this an encrypted file, and is there a place to write? Raises Malformed, UsageError."""
    _check_writable(directory)
    with Input.of_path(source, silent) as given:
        given.header()


def decrypt(
    unlocked: Unlocked,
    source: Path,
    directory: Path,
    progress: Progress,
    open_month: OpenMonth,
    *,
    archive: bool = False,
    month: Month | None = None,
) -> FileDone:
    """A new file in ``directory``, under the sender's name as far as that is harmless and free.

    ``archive`` reads older retained months, ``month`` one of them. Raises NotAuthentic, Refused, UsageError, Failed and
    what stops the command; then nothing is there.
    """
    _check_writable(directory)
    with Input.of_path(source, progress) as given:
        header = given.header()
        open_month()
        begun = begin_decrypt(unlocked, header, archive=archive, month=month)
        with begun.key, _recorded(unlocked, begun), Unfinished(directory) as unfinished:
            metadata, size = stream_opened(begun, given, unfinished.out)
            path = unfinished.name(numbered(safe_name(metadata.name)))
    return done(begun, path, metadata, size)


def done(begun: Begun, path: Path, metadata: Metadata, size: int) -> FileDone:
    """What is told of a file that was opened whole."""
    _, _, was = begun.batch.rows[0]
    whose, header = begun.batch.pairing.id, begun.header
    return FileDone(
        path, whose, str(header.month), header.sender, metadata.name, metadata.media_type, size, was == SEEN
    )


@contextmanager
def _recorded(unlocked: Unlocked, begun: Begun) -> Iterator[None]:
    """Around what happens after the intent is on record: if it comes to nothing, the log says so."""
    try:
        yield
    except BaseException as exc:
        begun.failed(unlocked, exc)
        if isinstance(exc, OSError):
            raise _as_error(exc) from exc
        raise


def _as_error(exc: BaseException) -> MedcryptError:
    if isinstance(exc, MedcryptError):
        return exc
    if isinstance(exc, OSError):
        return Failed(t("nothing was written: {reason}", reason=exc.strerror), "see to it, and run the command again")
    if isinstance(exc, KeyboardInterrupt):
        return Interrupted("interrupted")
    return Failed(t("internal error ({kind})", kind=type(exc).__name__))


def _check_writable(directory: Path) -> None:
    if not directory.is_dir():
        raise UsageError(t("there is no directory {directory}", directory=directory), "make it first, with mode 0700")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(t("nothing can be written in {directory}", directory=directory), "name another directory")


class Input:
    """A regular file that must stay as it is while it is read, from its beginning to its end."""

    def __init__(self, fd: int, called: str, progress: Progress) -> None:
        """``fd`` is its own from now on. Raises UsageError for what is no regular file."""
        self._called = called
        self._progress = progress
        self._read = 0
        self._before = os.fstat(fd)
        if not stat.S_ISREG(self._before.st_mode):
            os.close(fd)
            raise UsageError(t("{path} is not a regular file", path=called), "save it as a file first")
        self._file = os.fdopen(fd, "rb", buffering=0)
        self.size = self._before.st_size

    @classmethod
    def of_path(cls, path: Path, progress: Progress) -> Input:
        """Raises UsageError."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe must not wait for anybody
        except OSError as exc:
            raise UsageError(
                t("{path} cannot be read: {reason}", path=path, reason=exc.strerror), "name a file that is there"
            ) from exc
        return cls(fd, str(path), progress)

    def fileno(self) -> int:
        return self._file.fileno()

    def __enter__(self) -> Input:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._file.readinto(buffer) or 0
        self._read += count
        if self._read > self.size:  # one that somebody goes on writing would never end
            raise self._changed()
        self._progress(self._read, self.size)
        return count

    def header(self) -> FileHeader:
        """From the beginning. Raises Malformed, also for a length that no file has."""
        raw = self._file.read(HEADER_BYTES) or b""
        self._read += len(raw)
        header = FileHeader.parse(raw)
        check_length(self.size)
        return header

    def check_unchanged(self) -> None:
        """Raises Failed."""
        now = os.fstat(self._file.fileno())
        same = (now.st_size, now.st_mtime_ns) == (self._before.st_size, self._before.st_mtime_ns)
        if not same or self._read != self.size:
            raise self._changed()

    def _changed(self) -> Failed:
        return Failed(t("{path} changed while it was read", path=self._called), "try again when nobody writes it")
