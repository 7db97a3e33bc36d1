"""JSON from front to back: what is asked for is read, all else is passed, and what is broken is said."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages.chats.jsonstream import DEEPEST, CutOff, JsonStream, TooLarge, Unreadable

CHAT = '{"about": {"deep": [1, "]}"]}, "name": "Ana", "messages": [ {"id": 1}, 2, "tres" ]}'


def stream(text: str, piece: int = 3) -> JsonStream:
    return JsonStream(iter([text[at : at + piece] for at in range(0, len(text), piece)]))


def read(text: str, piece: int) -> tuple[str, list[object]]:
    """The name and the messages of a chat, whatever else is in it."""
    json, name, messages = stream(text, piece), "", []
    for key in json.members():
        if key == "name":
            name = json.value(100)
        elif key == "messages":
            messages = [json.value(100) for _ in json.elements()]
        else:
            json.skip()
    assert json.peek() == "", "all of it was passed"
    return name, messages


@pytest.mark.parametrize("piece", [1, 2, 7, len(CHAT)])
def test_what_is_asked_for_is_read_and_the_rest_is_passed(piece: int) -> None:
    assert read(CHAT, piece) == ("Ana", [{"id": 1}, 2, "tres"])


def test_a_file_that_ends_anywhere_is_cut_off() -> None:
    for end in range(len(CHAT)):
        with pytest.raises(CutOff, match=r"the file ends in the middle: it was cut off"):
            read(CHAT[:end], 7)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ('"' + "x" * 50 + '"', TooLarge),
        ("[" + "1," * 50 + "1]", TooLarge),
        ('{"a" 1}', Unreadable),
        ("nul", Unreadable),
        ('"\\q"', Unreadable),
    ],
)
def test_a_value_that_is_not_to_be_had_is_passed(value: str, error: type[Malformed]) -> None:
    json = stream(f"[{value}, 2]")
    found: list[object] = []
    for _ in json.elements():
        try:
            found.append(json.value(20))
        except error:
            found.append(error)
    assert found == [error, 2]


@pytest.mark.parametrize("text", ["[1 2]", "{1: 2}", '{"a", 1}', "[1}", "[,]"])
def test_a_broken_structure_ends_it(text: str) -> None:
    with pytest.raises(Malformed, match="the file is not JSON, or was damaged"):
        read(f'{{"messages": {text}, "name": "Ana"}}', 3)


def test_nesting_is_bounded() -> None:
    stream("[" * DEEPEST + "]" * DEEPEST).skip()
    with pytest.raises(Malformed, match="the file nests more than 64 levels deep"):
        stream("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1)).skip()
