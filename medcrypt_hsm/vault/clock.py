"""What time it is, as far as a vault believes the machine that it is used on.

In: the machine's clock, and when the newest audit entry was written. Out: the time that months are told by and entries
are dated with; or ClockBehind and MonthsBehind, for a clock that cannot be right. Not here: which months are due
(messages/months.py), and when a month counts as archived (policy.py).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from medcrypt_hsm.errors import ClockBehind, MonthsBehind
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import parse_time, timestamp
from medcrypt_hsm.sentences import t

Clock = Callable[[], datetime]
"""A machine's clock."""
SKEW = timedelta(days=1)  # by which two machines' clocks may differ


def system_clock() -> datetime:
    """Of this machine, in UTC. Raises ClockBehind for a year in which no vault is used."""
    now = datetime.now(UTC)
    if not 2020 <= now.year <= 2099:
        raise ClockBehind(t("this machine's clock says {year}", year=now.year), "set this machine's clock")
    return now


class VaultClock:
    """A machine's clock, held against the newest entry of one vault's log."""

    def __init__(self, machine: Clock) -> None:
        self.machine = machine
        self.newest_entry = ""  # when the newest entry was written; empty until somebody looked
        self.vouched = False  # True in a use of break-glass: the custodians dated their approvals by their own clocks

    def now(self) -> datetime:
        """The clock, believed: never before the newest entry. Raises ClockBehind past a day."""
        now, newest = self.machine(), self.newest_moment()
        if now < newest - SKEW:
            raise ClockBehind(
                t(
                    "this machine's clock says {clock}, the newest audit entry is of {newest_entry}",
                    clock=timestamp(now),
                    newest_entry=self.newest_entry,
                )
            )
        return max(now, newest)

    def entry_time(self, newest_month: Month) -> datetime:
        """The clock, believed enough to date an entry by it. Raises ClockBehind, MonthsBehind.

        ``newest_month`` is the newest one that the vault has opened.
        """
        now = self.now()
        if Month.of(now) > newest_month + 1 and not self.vouched:
            # One entry dated by a clock that runs years ahead would make every later, true time look stale.
            raise MonthsBehind(
                t(
                    "this vault's newest month is {newest_month}, the clock says {clock}",
                    newest_month=newest_month,
                    clock=Month.of(now),
                ),
                t("if the clock is right, run 'medcrypt rotate --to {month}'; otherwise set it", month=Month.of(now)),
            )
        return now

    def month(self) -> Month:
        """The current month. Raises ClockBehind."""
        return Month.of(self.now())

    def newest_moment(self) -> datetime:
        """When the newest entry was written."""
        return parse_time(self.newest_entry)
