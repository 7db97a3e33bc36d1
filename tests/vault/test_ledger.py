"""``Ledger``: what entries make come and go, and that memory does not grow with the log."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.ledger import Ledger
from medcrypt_hsm.vault.store.sqlite import SqliteStore
from tests.support.checkout import ROOT
from tests.support.practice import Practice, unlocked

ONE = "11" * 8


def entry(action: str, detail: dict[str, object], time: str = "2026-11-22T12:00:00Z") -> Entry:
    return Entry(time, "mara", "doctor", action, "", "done", detail)


def group(*rows: object) -> dict[str, object]:
    return {"messages": [{"pairing": ONE, "month": "2026-11", "messages": [["p", "1.1", row] for row in rows]}]}


@pytest.mark.parametrize(
    "entry",
    [
        entry("message.decrypt", {}),
        entry("message.decrypt", {"messages": 7}),
        entry("message.decrypt", {"messages": [7]}),
        entry("message.decrypt", {"messages": [{"month": "2026-11", "messages": []}]}),
        entry("message.decrypt", {"messages": [{"pairing": 7, "month": "2026-11", "messages": []}]}),
        entry("message.decrypt", group("00" * 31)),
        entry("message.decrypt", group("00" * 31 + "  ")),
        entry("message.decrypt", group("AB" * 32)),
        entry("message.failed", group(None)),
        entry("patient.add", {"writes": 7}),
        entry("patient.add", {"writes": [7]}),
        entry("patient.add", {"deletes": [["row"]]}),
    ],
)
def test_what_tells_of_rows_in_no_known_way(entry: Entry) -> None:
    with Ledger() as ledger, pytest.raises(AuditBroken, match="entry 7 tells of its rows in no known way") as raised:
        ledger.take(7, entry)
    assert raised.value.at == 7


def test_times_never_decrease() -> None:
    with Ledger() as ledger:
        ledger.take(1, entry("patient.list", {}))
        with pytest.raises(AuditBroken, match="older than the one before"):
            ledger.take(2, entry("patient.list", {}, "2026-11-22T11:59:59Z"))


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (lambda rows: [*rows, rows[-1]], "in the file out of its order"),
        (lambda rows: [rows[0], *rows], "is missing"),
        (lambda rows: rows[::-1], "is missing"),
        (lambda rows: rows[1:], "is missing"),
        (lambda rows: rows[:-1], "is missing"),
    ],
    ids=["the last twice", "the first twice", "backwards", "without the first", "without the last"],
)
def test_rows_are_compared_in_their_order(
    practice: Practice, monkeypatch: pytest.MonkeyPatch, order: Callable[[list[Any]], list[Any]], said: str
) -> None:
    """What a tree that was made by hand may yield."""
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        rows = list(unlocked(vault).file.written())
        assert len(rows) > 3
        monkeypatch.setattr(SqliteStore, "written", lambda file: iter(order(rows)))
        with pytest.raises(AuditBroken, match=said):
            vault.log.verify()


@pytest.mark.parametrize("dropped", ["pairing", "month"])
def test_texts_of_a_pairing_or_a_month_that_are_gone(practice: Practice, dropped: str) -> None:
    """What a rule for shredded months or erased patients calls for."""
    with practice.open() as vault:
        one, two = practice.pair(vault, "EXP-1"), practice.pair(vault, "EXP-2")
        vault.decrypt(one.write("uno")[0])
        practice.clock.set("2026-12-02")
        vault.decrypt(two.write("dos")[0])
        opened = unlocked(vault)
        pairing = one.state.pairing
        with opened.file.transaction():
            opened.file._db.execute("DELETE FROM seen WHERE pairing = ?", (pairing,))
        with pytest.raises(AuditBroken, match="1 seen messages that the log knows are missing"):
            vault.log.verify()
        with Ledger() as ledger:
            for row in opened.file.entries():
                ledger.take(row.sequence, opened.log.read_entry(row))
            if dropped == "pairing":
                ledger.drop_pairing(pairing)
            else:
                ledger.drop_month("2026-11")
            assert ledger.compare(opened) > 4


# Peaks in KiB, from a process of its own for each size. VmHWM and not ru_maxrss, which begins with the parent's.
_PEAK = """
import re, sys
from pathlib import Path
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.ledger import Ledger
with Ledger() as ledger:
    for n in range(int(sys.argv[1]) // 100):
        rows = [["p", "1.1", f"{n * 100 + i:064x}"] for i in range(100)]
        groups = [{"pairing": f"{n % 9:016x}", "month": "2026-11", "messages": rows}]
        writes = [f"record:message:{n * 100 + i:016x}:2026-11" for i in range(100)]
        detail = {"messages": groups, "writes": writes}
        ledger.take(n + 1, Entry("2026-11-22T12:00:00Z", "mara", "doctor", "message.decrypt", "", "intended", detail))
print(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


def peak(program: str, *arguments: object) -> int:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_what_is_expected() -> None:
    """400,000 of each kind fill its cache. In dictionaries as many again would be more than 100 MiB."""
    full, overflowing = peak(_PEAK, 400_000), peak(_PEAK, 800_000)
    assert overflowing - full < 4 << 10
