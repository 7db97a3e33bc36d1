"""A file that a person named is read at once and within bounds, whatever it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from medcrypt_hsm.given import read_given


@pytest.mark.parametrize(("size", "read"), [(0, 0), (9, 9), (10, 10), (11, 11), (5000, 11)])
def test_one_byte_more_tells_that_there_is_more(tmp_path: Path, size: int, read: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert read_given(tmp_path / "file", 10) == b"x" * read


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "directory"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    with socket.socket(socket.AF_UNIX) as listening:
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "socket":
                listening.bind(str(path))
            case "device":
                path = Path("/dev/zero")
            case "directory":
                path.mkdir()
        with pytest.raises(OSError, match=r"not a regular file|No such device|Is a directory"):
            read_given(path, 10)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_given(tmp_path / "x", 10)
