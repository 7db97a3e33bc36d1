"""Each quirk of an export is a file in vectors/chats, with what is read from it; zips; and what is no export at all."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.messages.chats import LONGEST, ChatMessage, pieces, written
from medcrypt_hsm.messages.chats.telegram import TelegramExport
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = VECTOR_DIRECTORY / "chats"
EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text())
LINE = "22/11/26, 10:15 - Ana: hola\n"


@pytest.fixture(params=[1, 7, pieces.PIECE])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A file is read in pieces, and no quirk minds where one ends."""
    monkeypatch.setattr(pieces, "PIECE", request.param)
    return int(request.param)


@pytest.mark.parametrize("name", EXPECTED["telegram"])
def test_telegram(name: str, piece: int) -> None:
    read = list(TelegramExport(VECTORS / name).messages())
    assert [[written(m.when), m.sender, m.chat, m.text] for m in read] == EXPECTED["telegram"][name]
    assert [written(m.edited) for m in read if m.edited] == ["2026-12-01T12:00:00Z"] * (name == "telegram-one.json")
    assert not any(m.error for m in read)


@pytest.mark.parametrize("name", EXPECTED["whatsapp"])
def test_whatsapp(name: str, piece: int) -> None:
    expected = EXPECTED["whatsapp"][name]
    export = WhatsAppExport(VECTORS / name)
    assert [[written(m.when), m.sender, m.text] for m in export.messages()] == expected["messages"]
    assert (export.date_order, export.ambiguous) == (expected["order"], expected["ambiguous"])


def test_every_vector_is_expected() -> None:
    assert {path.name for path in VECTORS.iterdir()} == {"expected.json", *EXPECTED["telegram"], *EXPECTED["whatsapp"]}


def test_a_person_overrides_the_order() -> None:
    export = WhatsAppExport(VECTORS / "ambiguous.txt", "month-first")
    assert [written(m.when) for m in export.messages()] == ["2025-03-04T10:15:00", "2025-03-04T10:16:00"]
    assert not export.ambiguous
    wrong = WhatsAppExport(VECTORS / "us.txt", "day-first")
    assert [written(m.when) for m in wrong.messages()] == [None, "2027-02-01T09:29:00"]
    with pytest.raises(UsageError):
        WhatsAppExport(VECTORS / "us.txt", "year-first")


def test_dates_that_contradict_each_other_are_ambiguous(tmp_path: Path) -> None:
    file = tmp_path / "_chat.txt"
    file.write_text("22/11/26, 10:15 - A: x\n11/22/26, 10:15 - A: x\n23/11/26, 10:15 - A: x\n")
    export = WhatsAppExport(file)
    list(export.messages())
    assert (export.date_order, export.ambiguous) == ("day-first", True)


def test_a_date_that_begins_like_the_one_before_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "_chat.txt"
    file.write_text("2/1/20, 10:15 - A: x\n2/1/20, 10:16 - A: x\n2/1/2021, 10:15 - A: x\n1/2/2021, 10:15 - A: x\n")
    export = WhatsAppExport(file)
    assert [written(m.when) for m in export.messages()] == [
        "2020-01-02T10:15:00", "2020-01-02T10:16:00", "2021-01-02T10:15:00", "2021-02-01T10:15:00",
    ]  # fmt: skip
    assert (export.date_order, export.ambiguous) == ("day-first", False)


# Zips


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


# What is no export, and what breaks off


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "hola", "{}", '{"messages": 5}', '{"chats": {"list": 5}}', '{"a": "\x00"', "\ufeff{", '{"a" 1}'],
)
def test_no_telegram_export(tmp_path: Path, content: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(content)
    with pytest.raises(Malformed):
        list(TelegramExport(file).messages())


def test_no_whatsapp_chat(tmp_path: Path) -> None:
    file = tmp_path / "_chat.txt"
    file.write_text("hola\n99/99/26, 10:15 - Ana: x\n22/11/26 Ana: x\n")
    with pytest.raises(Malformed, match="no line in it begins like a message"):
        list(WhatsAppExport(file).messages())


def test_a_telegram_export_that_breaks_off_anywhere_says_so(tmp_path: Path) -> None:
    whole = (VECTORS / "telegram-full.json").read_bytes()
    file = tmp_path / "result.json"
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        try:
            *_, last = TelegramExport(file).messages()
        except Malformed:
            continue  # before the first chat
        assert last.error is not None, end


def telegram(path: Path, messages: str) -> list[ChatMessage]:
    path.write_text(f'{{"name": "A", "messages": [{messages}, {{"text": "fin"}}]}}')
    return list(TelegramExport(path).messages())


def test_one_bad_message_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    inside = ['{"text": nul}', '{"text": "\\q"}', '{"text" "x"}', '{"id": ' + "9" * 5000 + "}"]
    for damaged in inside:
        first, last = telegram(file, damaged)
        assert (first.error is not None, last.text) == (True, "fin"), damaged
    for harmless in ["5", "null", "[]", '{"text": 5, "from": 5, "date_unixtime": true}', '{"text": [5, {"text": {}}]}']:
        *_, last = telegram(file, harmless)
        assert last == ChatMessage("fin", chat="A")


def test_what_is_too_long_is_said_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    for many in (LONGEST + 1, 5 * LONGEST):
        first, last = telegram(file, json.dumps({"text": "x" * many}))
        assert first.error is not None
        assert "longer than" in first.error.message
        assert last.text == "fin"
    chat = tmp_path / "_chat.txt"
    for body in ("x" * (LONGEST + 1), "x\n" * LONGEST):
        chat.write_text(LINE + f"22/11/26, 10:15 - Ana: {body}\n" + LINE)
        before, long, after = WhatsAppExport(chat).messages()
        assert (before.text, after.text) == ("hola", "hola")
        assert long.error is not None
        assert (long.text, long.sender) == ("", "Ana")


@pytest.mark.parametrize("brackets", ["[", '{"a":'])
def test_deep_nesting_ends_with_an_error(tmp_path: Path, brackets: str) -> None:
    file = tmp_path / "result.json"
    *_, last = telegram(file, brackets * 1_000_000)
    assert last.error is not None
    assert "deep" in last.error.message
    file.write_text('{"x": ' + brackets * 1_000_000)
    with pytest.raises(Malformed, match="deep"):
        list(TelegramExport(file).messages())


def test_a_hole_in_the_utf_8_harms_its_own_message_alone(tmp_path: Path) -> None:
    file = tmp_path / "_chat.txt"
    file.write_bytes(b"22/11/26, 10:15 - Ana: a\xffb\n" + LINE.encode())
    assert [m.text for m in WhatsAppExport(file).messages()] == ["a\ufffdb", "hola"]


def test_the_unpacked_chat_is_closed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "chat.zip", {"_chat.txt": LINE.encode() * 3})
    messages = iter(WhatsAppExport(path).messages())
    assert next(messages).text == "hola"
    del messages  # an open file would be a ResourceWarning, which is an error here
