"""The finger on the touch sensor: there, late, or absent."""

from __future__ import annotations

import math
import threading
import time

CACHE_SECONDS = 15.0  # of the touch policy "cached"


class Finger:
    """Waited for by the card, moved by the test. Times are seconds."""

    def __init__(self, timeout: float = 15.0) -> None:
        self.timeout = timeout
        self.delay = 0.0  # after which the finger touches; infinite: never
        self.asked = 0  # times the card has waited
        self.waiting = False
        self.shift = 0.0  # of the clock, to age the cache
        self._changed = threading.Condition()
        self._now = False
        self._away = False

    def clock(self) -> float:
        return time.monotonic() + self.shift

    def touches_after(self, seconds: float) -> None:
        """Each touch asked for from now on is given after so long; math.inf for never."""
        with self._changed:
            self.delay = seconds
            self._changed.notify_all()

    def touch(self) -> None:
        """Once, now: for the wait that is going on, else none."""
        with self._changed:
            self._now = self.waiting
            self._changed.notify_all()

    def away(self, away: bool) -> None:
        """The card has been pulled out, which ends a wait without a touch, or is in a reader again."""
        with self._changed:
            self._away = away
            self.waiting = self.waiting and not away
            self._changed.notify_all()

    def wait(self) -> bool:
        """True when touched in time. The light blinks meanwhile."""
        with self._changed:
            self.asked += 1
            self.waiting, self._now = not self._away, False
            self._changed.notify_all()
            start = time.monotonic()
            while self.waiting and not self._now:
                spent = time.monotonic() - start
                left = min(self.delay, self.timeout) - spent
                if left <= 0:
                    break
                self._changed.wait(left)
            touched = self._now or (self.waiting and self.delay <= self.timeout)
            self.waiting = False
            return touched

    def until_waiting(self, patience: float) -> bool:
        """Block until the card waits for the finger."""
        with self._changed:
            return self._changed.wait_for(lambda: self.waiting, patience)


NEVER = math.inf
