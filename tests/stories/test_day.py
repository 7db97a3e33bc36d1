"""docs/day.cast: what it is, what it must not hold, that the same day runs today, and that the guide shows it."""

from __future__ import annotations

import json
import re

from tests.project.test_readme import normal
from tests.support.checkout import ROOT
from tests.support.day import CAST, COLUMNS, GUIDE, PLACE, ROWS, TITLE, record, refill, screen, shortened, steps
from tests.support.softhsm import USER_PIN

COMMANDS = [
    "session start", "status", "decrypt", "chat EXP-00417", "decrypt-file received.mcf",
    "encrypt-file EXP-00417 dieta.pdf to-send.mcf", "import whatsapp _chat.txt --out conversation.html",
    "session status", "session status", "session start --idle 1h", "status --token doctor", "session lock",
]  # fmt: skip


def test_it_is_an_asciicast() -> None:
    header, *events = [json.loads(line) for line in CAST.read_text().splitlines()]
    assert {**header, "idle_time_limit": 0} == {
        "version": 2, "width": COLUMNS, "height": ROWS, "title": TITLE, "idle_time_limit": 0
    }  # fmt: skip
    assert all(len(event) == 3 and event[1] == "o" and isinstance(event[2], str) for event in events)
    times = [event[0] for event in events]
    assert times == sorted(times)
    assert times[0] >= 0
    assert 60 < times[-1] < 300, "a few minutes, as a person types and reads"


def test_it_shows_the_day_and_nothing_else() -> None:
    shown = screen(CAST.read_text())
    assert [command for command, _ in steps(shown)] == [f"medcrypt {command}" for command in COMMANDS]
    assert "error" not in shown
    written = CAST.read_text() + shown
    assert USER_PIN not in written
    assert "]52;" not in written, "whoever plays it keeps their clipboard"
    paths = re.findall(r"(?<![\w.~-])/[a-z][\w.-]*/[\w./-]+", shortened(shown))
    assert set(paths) == {f"{PLACE}/vault/vault.db"}
    assert str(ROOT) not in written


def test_the_day_runs_today_as_it_was_recorded() -> None:
    assert normal(screen(record())) == normal(screen(CAST.read_text())), "run scripts/record-day"


def test_the_guide_shows_what_was_recorded() -> None:
    guide = GUIDE.read_text()
    assert refill(guide, CAST.read_text()) == guide, "run scripts/record-day"
    assert [command for command, _ in steps(guide)] == [f"medcrypt {command}" for command in COMMANDS]
