"""A file in pieces, also out of a zip: the chat in it is found, and a hostile one is refused."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport

LINE = "22/11/26, 10:15 - Ana: hola\n"


def zipped(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "members",
    [
        {"_chat.txt": LINE.encode()},
        {"PHOTO-1.jpg": b"\xff\xd8", "_chat.txt": LINE.encode(), "receta.txt": b"an attachment"},
        {"Chat de WhatsApp con Ana.txt": LINE.encode(), "IMG-1.jpg": b"x"},
        {"export/_chat.txt": LINE.encode()},
    ],
)
def test_the_chat_is_found_in_the_zip(tmp_path: Path, members: dict[str, bytes]) -> None:
    read = list(WhatsAppExport(zipped(tmp_path / "chat.zip", members)).messages())
    assert [(m.sender, m.text) for m in read] == [("Ana", "hola")]


def bomb(path: Path) -> None:
    zipped(path, {"_chat.txt": LINE.encode() + bytes(80 << 20)})


def crowded(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(25_000):
            file.writestr(zipfile.ZipInfo(f"{number:0160}.txt"), b"")


def encrypted(path: Path) -> None:
    zipped(path, {"_chat.txt": LINE.encode()}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    zipped(path, {"_chat.txt": LINE.encode() * 100})
    path.write_bytes(path.read_bytes()[:-40])


ZIPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "several": (lambda path: zipped(path, {"a.txt": b"x", "b.txt": b"y"}), "2 texts: 'a.txt', 'b.txt'"),
    "none": (lambda path: zipped(path, {"a.jpg": b"x"}), "no chat in the zip"),
    "empty": (lambda path: zipped(path, {}), "no chat in the zip"),
    "lzma": (lambda path: zipped(path, {"a.txt": b"x"}, zipfile.ZIP_LZMA), "no chat program uses"),
    "encrypted": (encrypted, "encrypted"),
    "truncated": (truncated, "damaged"),
    "crowded": (crowded, "too many files"),
}


@pytest.mark.parametrize("what", ZIPS)
def test_zips_that_are_refused(tmp_path: Path, what: str) -> None:
    make, message = ZIPS[what]
    make(tmp_path / "chat.zip")
    with pytest.raises(Malformed, match=message):
        list(WhatsAppExport(tmp_path / "chat.zip").messages())


def test_a_zip_bomb_ends_with_an_error_behind_what_was_there(tmp_path: Path) -> None:
    bomb(tmp_path / "chat.zip")
    *_, last = WhatsAppExport(tmp_path / "chat.zip").messages()
    assert last.error is not None
    assert "unpacks to far more" in last.error.message


def test_a_damaged_member_ends_with_an_error_too(tmp_path: Path) -> None:
    path = zipped(tmp_path / "chat.zip", {"_chat.txt": LINE.encode() * 20_000}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"hola", b"HOLA", 1))  # the checksum is of the whole member
    read = list(WhatsAppExport(path).messages())
    assert [m.error.message for m in read if m.error] == ["the zip is damaged"]


def test_a_hole_in_the_utf_8_harms_its_own_message_alone(tmp_path: Path) -> None:
    file = tmp_path / "_chat.txt"
    file.write_bytes(b"22/11/26, 10:15 - Ana: a\xffb\n" + LINE.encode())
    assert [m.text for m in WhatsAppExport(file).messages()] == ["a\ufffdb", "hola"]


def test_the_unpacked_chat_is_closed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "chat.zip", {"_chat.txt": LINE.encode() * 3})
    messages = iter(WhatsAppExport(path).messages())
    assert next(messages).text == "hola"
    del messages  # an open file would be a ResourceWarning, which is an error here
