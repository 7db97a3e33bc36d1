"""How long a session may still last: since its last use, and since its start.

Counted by a clock that goes on while the machine sleeps and that nobody sets (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from medcrypt_hsm.errors import UsageError

LONGEST_IDLE, LONGEST = 8 * 3600, 24 * 3600
IDLE, LASTING = 15 * 60, 8 * 3600  # as automatic log-off is usually set, and a working day


def check_times(idle: int, lasting: int) -> None:
    """Raises UsageError."""
    if not 1 <= idle <= LONGEST_IDLE:
        raise UsageError("a session may be unused for at most 8 hours", "for example --idle 15m")
    if not 1 <= lasting <= LONGEST:
        raise UsageError("a session lasts at most 24 hours", "for example --for 8h")


def ticks() -> float:
    """Seconds since the machine started, its sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Deadlines:
    """``idle`` and ``lasting`` in seconds. Times of day are for people alone: nothing ends by them."""

    def __init__(self, idle: int, lasting: int) -> None:
        self.idle = idle
        self.lasting = lasting
        self._start = self._used = ticks()
        self._since = datetime.now(UTC)

    def used(self) -> None:
        self._used = ticks()

    @property
    def over(self) -> str:
        """Why the session is over, or ""."""
        now = ticks()
        if now - self._start >= self.lasting:
            return "time"
        return "idle" if now - self._used >= self.idle else ""

    @property
    def left(self) -> float:
        """Seconds until it is over if it is not used."""
        now = ticks()
        return max(0.0, min(self._start + self.lasting, self._used + self.idle) - now)

    def document(self) -> dict[str, object]:
        now = ticks()
        left = max(0, int(self._start + self.lasting - now))
        return {
            "since": _text(self._since),
            "idle": self.idle,
            "idle_left": max(0, int(self._used + self.idle - now)),
            "for": self.lasting,
            "left": left,
            "ends": _text(datetime.now(UTC) + timedelta(seconds=left)),
        }


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
