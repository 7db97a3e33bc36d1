"""Another time for another process."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.support.checkout import installed


def faketime_library() -> Path:
    return installed("faketime", "*/faketime/libfaketime.so.1", "faketime/libfaketime.so.1")


def clock_at(moment: datetime | str) -> dict[str, str]:
    """Environment of a process whose clock starts at ``moment`` (UTC) and runs on.

    "@" is start-at: time keeps moving, so that SQLite's busy waits and ``time.sleep`` end. A wait of ``threading`` with
    a timeout does not (libfaketime 0.9.10 misses sem_clockwait). The library is loaded directly and not by the
    ``faketime`` program: the process keeps its id and signals reach it.
    """
    if isinstance(moment, datetime):
        moment = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return {"LD_PRELOAD": str(faketime_library()), "FAKETIME": f"@{moment}", "TZ": "UTC"}
