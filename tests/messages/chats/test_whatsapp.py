"""WhatsApp's _chat.txt: each quirk is a file in vectors/chats, with what is read from it; dates; and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.errors import Malformed, UsageError
from medcrypt_hsm.messages.chats import written
from medcrypt_hsm.messages.chats.whatsapp import WhatsAppExport
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS = VECTOR_DIRECTORY / "chats"


EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED["whatsapp"])
def test_whatsapp(name: str, piece: int) -> None:
    expected = EXPECTED["whatsapp"][name]
    export = WhatsAppExport(VECTORS / name)
    assert [[written(m.when), m.sender, m.text] for m in export.messages()] == expected["messages"]
    assert (export.date_order, export.ambiguous) == (expected["order"], expected["ambiguous"])


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


def test_no_whatsapp_chat(tmp_path: Path) -> None:
    file = tmp_path / "_chat.txt"
    file.write_text("hola\n99/99/26, 10:15 - Ana: x\n22/11/26 Ana: x\n")
    with pytest.raises(Malformed, match="no line in it begins like a message"):
        list(WhatsAppExport(file).messages())
