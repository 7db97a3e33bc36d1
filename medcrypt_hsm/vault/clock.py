"""TODO."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from medcrypt_hsm.errors import (
    ClockBehind,
)

Clock = Callable[[], datetime]
SKEW = timedelta(days=1)


def system_clock() -> datetime:
    now = datetime.now(UTC)
    if not 2020 <= now.year <= 2099:
        raise ClockBehind(f"this machine's clock says {now.year}", "set this machine's clock")
    return now
