"""A transcript, piece by piece: what a hostile text becomes, and what stands around it. As a page: tests/cli."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.messages.chats.conversation import Origin, Read, Summary
from medcrypt_hsm.messages.chats.html import shown, transcript
from medcrypt_hsm.messages.decrypt import Opened

WHEN = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
READ = Read(1, Opened(1, "v2", "EXP-1", "2026-11", "p", "1.1", "hola <3"), Origin(2, WHEN, None, "Luz", ""))
FORGED = Read(
    2,
    Opened(2, "v2", "", "2026-11", "p", "1.1", None, NotAuthentic("it was altered")),
    Origin(3, None, WHEN, "Luz & Ana", "Familia"),
)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("hola ñ 🩺\tuno\ndos", "hola ñ 🩺\tuno\ndos"),
        ('<b onclick="x">&\'', "&lt;b onclick=&quot;x&quot;&gt;&amp;&#x27;"),
        ("uno\r\ndos", "uno\ndos"),
        ("\u202efdp.exe", '<span class="code">U+202E</span>fdp.exe'),  # turns the reading direction
        ("\x1b[31m", '<span class="code">U+001B</span>[31m'),
        ("uno\u2028dos", 'uno<span class="code">U+2028</span>dos'),
        ("\U000e0041", '<span class="code">U+E0041</span>'),  # an invisible letter
        ("क्\u200dष", "क्\u200dष"),  # joins letters, and moves nothing
    ],
)
def test_no_character_of_a_text_acts(text: str, html: str) -> None:
    assert shown(text) == html


def test_a_message_and_one_that_was_not_read() -> None:
    _, articles, _ = transcript([[READ, FORGED]], Summary())
    assert articles.splitlines() == [
        '<article><p class="head">1 · <bdi>2026-11-22T10:15:00Z</bdi> · <bdi>Luz</bdi> · <bdi>EXP-1</bdi> · 2026-11 · '
        'from the patient</p><p class="text" dir="auto">hola &lt;3</p></article>',
        '<article class="bad"><p class="head">2 · <bdi>Luz &amp; Ana</bdi> · <bdi>Familia</bdi> · edited</p>'
        '<p class="text" dir="auto">NOT READ (not-authentic): it was altered</p></article>',
    ]


def test_the_sum_stands_at_the_end_and_is_counted_by_then() -> None:
    summary = Summary(without=1200, date_order="day-first", ambiguous=True)

    def batches() -> list[list[Read]]:
        for read in (READ, FORGED):
            summary.count(read.opened)
        return [[READ], [FORGED]]

    *_, end = transcript(batches(), summary)
    assert (
        "<footer><p>1 messages read; not read: 1 not-authentic. 1,200 other messages of the chat are not shown. "
        "Date, name and chat are what the export says; nobody has proven them. "
        "The dates fit both orders; they were read day-first.</p></footer>"
    ) in end
