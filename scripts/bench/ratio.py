"""What every row of scripts/bench is made with: two pieces of work measured in turns, their ratio, the memory of ours.

The memory is the most that the process which did our work ever had (VmHWM, its libraries included). Not ru_maxrss: a
child begins that with what its parent had.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULE = "/usr/lib/softhsm/libsofthsm2.so"


def in_turns(rounds: int, *runs: Callable[[], float]) -> list[float]:
    """The median of each, having run them one after the other ``rounds`` times."""
    times = [[run() for run in runs] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass
class Peak:
    """The most memory that several measured pieces of work in this process had, in KiB."""

    kib: int = 0

    def timed(self, work: Callable[[], object]) -> float:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew, with what is in use now
        seconds = timed(work)
        self.kib = max(self.kib, peak_of("self"))
        return seconds


def peak_of(process: int | str) -> int:
    """In KiB."""
    found = re.search(r"VmHWM:\s*([0-9]+)", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1])


# Our program as ``python -m medcrypt_hsm`` runs it, which says its peak at its end, after everything else.
_OURS = """
import atexit, re, runpy, sys
from pathlib import Path
def tell():
    sys.stderr.write(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[0] + "\\n")
atexit.register(tell)
runpy.run_module("medcrypt_hsm", run_name="__main__", alter_sys=True)
"""


def peak_of_command(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Of ``medcrypt`` with these arguments, in a process of its own whose time is not measured."""
    command = [sys.executable, "-c", _OURS, *arguments]
    done = subprocess.run(command, env=dict(environment), check=True, capture_output=True, text=True, cwd=ROOT)
    return int(done.stderr.split()[-1])


# The table. Each row is printed as soon as it is measured.

_WIDTHS = (68, 12, 12, 7, 6, 4, 11)


@dataclass(frozen=True)
class Aim:
    """At most so many times the bare calls' time; or at least that part of their throughput."""

    text: str
    ratio: Callable[[float, float], float]
    met: Callable[[float], bool]


def at_most(limit: float) -> Aim:
    return Aim(f"≤ {limit}", lambda ours, bare: ours / bare, lambda ratio: ratio <= limit)


def at_least(limit: float) -> Aim:
    return Aim(f"≥ {limit}", lambda ours, bare: bare / ours, lambda ratio: ratio >= limit)


def heads() -> None:
    _line("what", "ours", "bare", "ratio", "aim", "met?", "peak memory")
    print(
        "|" + "|".join("-" * (width + 1) + ("-" if number == 0 else ":") for number, width in enumerate(_WIDTHS)) + "|"
    )


def report(what: str, ours: float, bare: float, aim: Aim | None, kib: int) -> None:
    """A row. Without an aim the ratio is one of throughputs."""
    ratio = (aim or at_least(0)).ratio(ours, bare)
    judged = (aim.text, "yes" if aim.met(ratio) else "NO") if aim else ("-", "-")
    _line(what, f"{ours * 1000:,.1f} ms", f"{bare * 1000:,.1f} ms", f"{ratio:.2f}", *judged, _mebibytes(kib))


def report_memory(what: str, kib: int) -> None:
    """A row for the memory alone: of the same work on less, or of another process that took part."""
    _line(what, "-", "-", "-", "-", "-", _mebibytes(kib))


def report_missing(what: str) -> None:
    _line(what, "-", "-", "-", "-", "-", "-")


def _mebibytes(kib: int) -> str:
    return f"{kib / 1024:.1f} MiB"


def _line(what: str, *columns: str) -> None:
    cells = [f"{what:<{_WIDTHS[0]}}", *(f"{text:>{width}}" for text, width in zip(columns, _WIDTHS[1:], strict=True))]
    print("| " + " | ".join(cells) + " |", flush=True)


def session_key(session: Any, **uses: bool) -> Any:
    """A session key with a value from here, for the bare loops."""
    from pkcs11 import Attribute, KeyType, ObjectClass

    kind = KeyType.GENERIC_SECRET if "SIGN" in uses else KeyType.AES
    return session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: kind,
            Attribute.VALUE: os.urandom(32),
            Attribute.TOKEN: False,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: True,
        }
        | {Attribute[name]: value for name, value in uses.items()}
    )
