"""A line that asks for a finger on a token and counts the seconds that are left."""

from __future__ import annotations

import os
import select
import threading
import time
from types import TracebackType
from typing import TextIO

from medcrypt_hsm.sentences import t

AT_ONCE = 0.3  # seconds: a token that was touched a moment ago answers sooner, and nobody is asked


class Countdown:
    """While the block runs, ``line`` is shown on ``stream``; at a terminal with a countdown, cleared at the end."""

    def __init__(self, line: str, stream: TextIO, seconds: int) -> None:
        self._line = line
        self._stream = stream
        self._seconds = seconds
        self._left, self._leave = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Countdown:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._leave)
        self._thread.join()
        os.close(self._left)

    def _run(self) -> None:
        end = time.monotonic() + self._seconds
        if self._answered(AT_ONCE):
            return
        if not self._stream.isatty():
            self._write(t("{line} (within {seconds} seconds)\n", line=self._line, seconds=self._seconds))
            return
        try:
            while (left := end - time.monotonic()) > 0:
                self._write(f"\r\x1b[K{self._line}: {left:.0f} s ")
                if self._answered(min(left, 1.0)):
                    return
        finally:
            self._write("\r\x1b[K")

    def _answered(self, within: float) -> bool:
        """Waits on a pipe: a ``threading`` wait with a time-out does not end where a test moves the clock."""
        return bool(select.select([self._left], [], [], within)[0])

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
