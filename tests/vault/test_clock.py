"""The clock that a vault believes: bounds on both sides, and what a person or custodians vouch for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from medcrypt_hsm.errors import ClockBehind, MonthsBehind
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault import clock as clocks
from medcrypt_hsm.vault.clock import SKEW, VaultClock, system_clock

NEWEST = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOVEMBER = Month.parse("2026-11")


def clock_at(moment: datetime) -> VaultClock:
    clock = VaultClock(lambda: moment)
    clock.newest_entry = "2026-11-20T12:00:00Z"
    return clock


def test_time_never_runs_back_behind_the_newest_entry() -> None:
    assert clock_at(NEWEST - SKEW).now() == NEWEST
    assert clock_at(NEWEST + timedelta(hours=1)).now() == NEWEST + timedelta(hours=1)
    with pytest.raises(ClockBehind, match=r"says 2026-11-19T11:59:59Z, the newest audit entry is of 2026-11-20T12"):
        clock_at(NEWEST - SKEW - timedelta(seconds=1)).now()


def test_an_entry_is_dated_at_most_one_month_ahead() -> None:
    in_time, too_late = datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    assert clock_at(in_time).entry_time(NOVEMBER) == in_time
    with pytest.raises(MonthsBehind, match="newest month is 2026-11, the clock says 2027-01"):
        clock_at(too_late).entry_time(NOVEMBER)
    vouched = clock_at(too_late)
    vouched.vouched = True
    assert vouched.entry_time(NOVEMBER) == too_late
    assert clock_at(too_late).month() == Month.parse("2027-01"), "what is only read by it is not refused"


def test_a_clock_that_is_behind_dates_nothing_though_it_is_vouched_for() -> None:
    clock = clock_at(NEWEST - timedelta(days=2))
    clock.vouched = True
    with pytest.raises(ClockBehind):
        clock.entry_time(NOVEMBER)


@pytest.mark.parametrize("year", [2019, 2100])
def test_a_year_in_which_no_vault_is_used(year: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        @staticmethod
        def now(_: object) -> datetime:
            return datetime(year, 6, 1, tzinfo=UTC)

    monkeypatch.setattr(clocks, "datetime", Machine)
    with pytest.raises(ClockBehind, match=f"says {year}"):
        system_clock()
