"""scripts/bench: one table that can be read by a program. How fast anything is, is no test's business."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

from scripts.bench.ratio import at_least, at_most
from scripts.bench.vault import month_after
from tests.support.checkout import ROOT


def test_a_run_is_one_table() -> None:
    command = [sys.executable, "-m", "scripts.bench", "--only", "log", "--entries", "200", "--rounds", "1"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout
    heads, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines())
    assert heads == ["what", "ours", "bare", "ratio", "aim", "met?", "peak memory"]
    assert set("".join(rule)) == {"-", ":"}
    (what, ours, bare, ratio, aim, met, peak), less = rows
    assert what.startswith("verify 200 entries")
    assert ours.endswith(" ms")
    assert bare.endswith(" ms")
    assert (aim, met) == ("≥ 0.5", "yes" if float(ratio) >= 0.5 else "NO") or ratio == "0.50"
    assert 5 < float(peak.removesuffix(" MiB")) < 500
    assert less[1:-1] == ["-"] * 5


def test_an_aim_says_which_way_is_better() -> None:
    times, part = at_most(2), at_least(0.5)
    assert (times.ratio(3.0, 1.0), times.met(3.0), times.met(2.0)) == (3.0, False, True)
    assert (part.ratio(4.0, 1.0), part.met(0.25), part.met(0.5)) == (0.25, False, True)


def test_the_next_month_is_opened_whatever_day_a_run_begins_on() -> None:
    for day in range(366):
        moment = datetime(2027, 9, 1, 23, 59, tzinfo=UTC) + timedelta(days=day)  # a leap year's days
        after = month_after(moment)
        assert after > moment
        assert (after.year * 12 + after.month) - (moment.year * 12 + moment.month) == 1
