"""A file → its text in pieces of bounded size, also out of a zip. What is no UTF-8 in it becomes U+FFFD.

A damaged byte in somebody's message is no reason to refuse the others; inside one of ours it makes that one malformed.
A zip is hostile: one member is read and none is unpacked; its directory, its ratio and its size are bounded.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.sentences import t

PIECE = 1 << 18  # bytes
_DIRECTORY = 4 << 20  # bytes of a zip's directory: some 40,000 files
_FREE = 64 << 20  # bytes that any zip may unpack to
_RATIO = 200  # to the packed size; chats pack to a fifth, and what repeats itself to a fiftieth
_CHAT = "_chat.txt"
_DAMAGED = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
)


def pieces(path: Path) -> Generator[str, None, None]:
    """Of a plain file, without its byte order mark. Raises OSError."""
    with path.open("rb") as file:
        yield from _decoded(file)


def chat_pieces(path: Path) -> Generator[str, None, None]:
    """The same; of a zip, those of the one chat in it. Raises Malformed, OSError."""
    with path.open("rb") as file:
        start = file.read(4)
    if start not in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from pieces(path)
        return
    with contextlib.ExitStack() as stack:
        with _zip_errors():
            packed = stack.enter_context(zipfile.ZipFile(cast("BinaryIO", stack.enter_context(_Cautious(path)))))
            member = _chat_of(packed)
            unpacked = _Bounded(cast("BinaryIO", packed.open(member)), member.compress_size)
            stack.callback(unpacked.close)
        yield from _decoded(cast("BinaryIO", unpacked))


def _decoded(file: BinaryIO) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
    while data := file.read(PIECE):
        if text := decode(data):
            yield text
    if text := decode(b"", True):
        yield text


def _chat_of(packed: zipfile.ZipFile) -> zipfile.ZipInfo:
    texts = [member for member in packed.infolist() if member.filename.lower().endswith(".txt")]
    named = [member for member in texts if member.filename.rpartition("/")[2] == _CHAT]
    found = named or texts  # text files may be attachments too
    if not found:
        raise Malformed("there is no chat in the zip: no name in it ends in .txt", "export the chat again")
    if len(found) > 1:
        names = ", ".join(ascii(member.filename[:80]) for member in found[:5])
        if len(found) > 5:
            what = t(
                "the zip holds {count} texts: {names} and {rest} more",
                count=len(found),
                names=names,
                rest=len(found) - 5,
            )
        else:
            what = t("the zip holds {count} texts: {names}", count=len(found), names=names)
        raise Malformed(what, "unpack it, and import the chat alone")
    member = found[0]
    if member.flag_bits & 1:
        raise Malformed("the zip is encrypted", "unpack it, and import the chat in it")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Malformed("the zip is packed in a way that no chat program uses", "unpack it, and import the chat in it")
    return member


@contextlib.contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except _DAMAGED:
        raise _damaged() from None
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # EINVAL comes from seeking to before the file's beginning
            raise
        raise _damaged() from None


def _damaged() -> Malformed:
    return Malformed("the zip is damaged", "export the chat again")


class _Cautious(io.FileIO):
    """A zip's directory is read in one call, as long as the zip says."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise Malformed("the zip lists too many files", "unpack it, and import the chat in it")
        return super().read(size) or b""


class _Bounded(io.RawIOBase):
    """What is unpacked, up to what an honest zip of that size unpacks to."""

    def __init__(self, member: BinaryIO, packed_size: int) -> None:
        self._member = member
        self._left = max(_FREE, packed_size * _RATIO)

    def read(self, size: int = -1, /) -> bytes:
        with _zip_errors():
            data = self._member.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Malformed("the zip unpacks to far more than a chat of its size does", "see where it comes from")
        return data

    def close(self) -> None:
        self._member.close()
        super().close()
