"""How long a session lasts: words, bounds, and a clock that goes on while the machine sleeps."""

from __future__ import annotations

import pytest

from medcrypt_hsm.cli.commands.session import seconds
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.session.deadlines import Deadlines, check_times
from medcrypt_hsm.session.screen import _session_path


def test_times_are_words_with_bounds() -> None:
    assert [seconds(text, "--idle") for text in ("90s", "15m", "8h")] == [90, 900, 28800]
    for text in ("15", "m", "1.5h", "-3s", "1d", "15 m", "1234567s", "٣m"):
        with pytest.raises(UsageError):
            seconds(text, "--idle")
    check_times(8 * 3600, 24 * 3600)
    for idle, lasting in ((0, 60), (8 * 3600 + 1, 60), (60, 0), (60, 24 * 3600 + 1)):
        with pytest.raises(UsageError):
            check_times(idle, lasting)


def test_time_is_counted_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("medcrypt_hsm.session.deadlines.ticks", lambda: now[0])
    deadlines = Deadlines(idle=60, lasting=100)
    assert (deadlines.over, deadlines.left) == ("", 60)
    now[0] += 59
    deadlines.used()
    assert (deadlines.over, deadlines.left) == ("", 41)
    now[0] += 41
    assert deadlines.over == "time"
    deadlines = Deadlines(idle=60, lasting=100)
    now[0] += 60
    assert deadlines.over == "idle"


def test_logind_names_sessions_by_escaped_ids() -> None:
    base = "/org/freedesktop/login1/session/"
    assert _session_path("") == ""
    assert [_session_path(text) for text in ("2", "c1", "12", "a-b")] == [
        base + "_32", base + "c1", base + "_312", base + "a_2db",
    ]  # fmt: skip
