"""An import in a new file: whole, of mode 0600, or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from medcrypt_hsm.errors import TokenRemoved, UsageError
from medcrypt_hsm.messages.chats import saving
from medcrypt_hsm.messages.chats.conversation import Origin, Read, Summary
from medcrypt_hsm.messages.decrypt import Opened

READ = Read(1, Opened(1, "v2", "EXP-1", "2026-11", "d", "1.1", "ñ\u2028\x1b"), Origin(1, None, None, "Luz", ""))


def test_one_line_of_ascii_for_each(tmp_path: Path) -> None:
    target = tmp_path / "chat.jsonl"
    saving.save(target, [[READ], [READ._replace(number=2)]], Summary())
    one, two = target.read_text("ascii").splitlines()
    assert json.loads(one) == READ.document()
    assert json.loads(two)["number"] == 2
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.HTML"])
def test_nothing_stays_of_one_that_broke_off(tmp_path: Path, name: str) -> None:
    def pulled() -> Iterator[list[Read]]:
        yield [READ]
        raise TokenRemoved("the token was removed")

    with pytest.raises(TokenRemoved):
        saving.save(tmp_path / name, pulled(), Summary())
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_no_target_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    def never() -> Iterator[list[Read]]:
        raise AssertionError("a batch was asked for")
        yield

    with pytest.raises(UsageError, match=r"'chat.txt' does not say its format") as refused:
        saving.save(tmp_path / "chat.txt", never(), Summary())
    assert refused.value.hint == "let it end in .jsonl or .html"
    there = tmp_path / "chat.html"
    there.write_text("somebody's")
    with pytest.raises(UsageError, match="exists already"):
        saving.save(there, never(), Summary())
    assert there.read_text() == "somebody's"
