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


def encrypt(
    unlocked: Unlocked, patient_id: str, source: Path, target: Path, progress: Progress, open_month: OpenMonth
) -> FileDone:
    """A new file ``target`` for a patient.

    The entry commits before anything is written. Raises Refused, UsageError, Failed and what stops the command.
    """
    _check_place(target)
    with _Input(source, progress) as given:
        metadata = _described(source, given)
        open_month()
        month = unlocked.state.newest_month
        with Secret(os.urandom(KEY_BYTES)) as file_key:
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
            with _recorded(unlocked, change.sequence, batch), Unfinished(target.parent) as unfinished:
                unfinished.out.write(header.text)
                for chunks in sealed(file_key, header, metadata, given):
                    unfinished.out.write(chunks)
                given.check_unchanged()
                try:
                    unfinished.name([target.name])
                except FileExistsError as exc:
                    raise taken(target) from exc
    return FileDone(target, patient_id, str(month), "d", metadata.name, metadata.media_type, given.size)


def check_encrypt(source: Path, target: Path) -> None:
    """What is known without a vault: is there a file to read, and a place to write? Raises UsageError."""
    _check_place(target)
    with _Input(source, silent) as given:
        _described(source, given)


def _check_place(target: Path) -> None:
    check_new(target)
    _check_writable(target.parent)


def _described(source: Path, given: _Input) -> Metadata:
    name = source.name
    if len(encoded := name.encode("utf-8", "replace")) > NAME_BYTES or encoded.decode() != name:
        raise UsageError("the file's name is not UTF-8 of at most 255 bytes", "give it another name")
    # Of its endings alone: a whole name may look like a URL, which is read otherwise.
    media_type, packed = _TYPES.guess_type("x" + "".join(source.suffixes[-2:]), strict=False)
    metadata = Metadata(name, (_PACKED.get(packed, UNKNOWN_TYPE) if packed else media_type) or UNKNOWN_TYPE)
    if given.size > most_content(metadata):
        raise UsageError(t("{path} is too long for one file of the format", path=source), "send it in several files")
    return metadata


def check_decrypt(source: Path, directory: Path) -> None:
    """The same: is this an encrypted file, and is there a place to write? Raises Malformed, UsageError."""
    _check_writable(directory)
    with _Input(source, silent) as given:
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
    with _Input(source, progress) as given:
        header = given.header()
        open_month()
        reading = Reading([header])
        read_some(unlocked, reading, [0], archive=archive, month=month)
        if reading.errors:
            raise reading.errors[0]
        (batch,) = reading.batches
        with (
            Secret(reading.plaintexts.pop(0)) as file_key,
            _recorded(unlocked, reading.intent, batch),
            Unfinished(directory) as unfinished,
        ):
            metadata, size = _write_content(opened(file_key, header, given), unfinished)
            given.check_unchanged()
            path = unfinished.name(numbered(safe_name(metadata.name)))
    _, _, was = batch.rows[0]
    whose, when = batch.pairing.id, str(header.month)
    return FileDone(path, whose, when, header.sender, metadata.name, metadata.media_type, size, was == SEEN)


def _write_content(payload: Iterator[memoryview], unfinished: Unfinished) -> tuple[Metadata, int]:
    metadata, content = Metadata.parse(next(payload))
    size = unfinished.out.write(content)
    for content in payload:
        size += unfinished.out.write(content)
    return metadata, size


@contextmanager
def _recorded(unlocked: Unlocked, intent: int, batch: Batch) -> Iterator[None]:
    """Around what happens after the intent is on record: if it comes to nothing, the log says so.

    If that cannot be written, the intent in the log is enough.
    """
    try:
        yield
    except BaseException as exc:
        error = _as_error(exc)
        with suppress(MedcryptError, OSError):
            record_failures(
                unlocked, intent, [(batch, [0])], {batch.indexes[0] if batch.indexes else 0: error}, error.name
            )
        if isinstance(exc, OSError):
            raise error from exc
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


class _Input:
    """A regular file that must stay as it is while it is read, from its beginning to its end."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._read = 0
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe must not wait for anybody
        except OSError as exc:
            raise UsageError(
                t("{path} cannot be read: {reason}", path=path, reason=exc.strerror), "name a file that is there"
            ) from exc
        self._before = os.fstat(fd)
        if not stat.S_ISREG(self._before.st_mode):
            os.close(fd)
            raise UsageError(t("{path} is not a regular file", path=path), "save it as a file first")
        self._file = os.fdopen(fd, "rb", buffering=0)
        self.size = self._before.st_size

    def __enter__(self) -> _Input:
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
        return Failed(t("{path} changed while it was read", path=self._path), "try again when nobody writes it")
