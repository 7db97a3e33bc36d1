"""The fixtures keep what they promise."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.command_line import CommandLine
from tests.support.softhsm import USER_PIN, SoftHsm, softhsm_module

pytest_plugins = ["pytester"]


def test_tokens_made_later_are_seen_and_usable_here(softhsm: SoftHsm) -> None:
    import pkcs11

    library = pkcs11.lib(str(softhsm_module()))
    for _ in range(2):
        label = softhsm.make_token().removeprefix("pkcs11:token=").partition("?")[0]
        with library.get_token(token_label=label).open(user_pin=USER_PIN):
            pass


def test_a_label_is_given_once(own_softhsm: SoftHsm) -> None:
    own_softhsm.make_token("doctor")
    own_softhsm.make_token("doc")
    with pytest.raises(AssertionError, match="there already"):
        own_softhsm.make_token("doctor")


def test_the_clock_starts_where_told_and_runs_on(medcrypt: CommandLine, tmp_path: Path) -> None:
    program = """
import sqlite3, sys, time
a = time.time()
time.sleep(0.05)
print(a, time.time())
first, second = (sqlite3.connect(sys.argv[1], timeout=0.2) for _ in range(2))
first.execute("BEGIN IMMEDIATE")
try:
    second.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as exc:
    print(exc)
"""
    start = datetime(2031, 2, 28, 23, 59, 59, tzinfo=UTC)
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "file.db"],
        env=medcrypt.environment(start),
        capture_output=True,
        text=True,
        timeout=30,
    )
    times, busy = done.stdout.splitlines()
    first, second = map(float, times.split())
    assert timedelta(0) <= datetime.fromtimestamp(first, UTC) - start < timedelta(seconds=30)
    assert 0.05 <= second - first < 30
    assert busy == "database is locked", "SQLite's busy wait ends"


def test_a_skipped_test_is_red(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile(
        test_in_it="import pytest\n@pytest.mark.skip(reason='no token')\ndef test_x(): pass",
        test_all_of_it="import pytest\npytest.importorskip('no_such_module')",
        test_known="import pytest\n@pytest.mark.xfail\ndef test_x(): assert False",
    )
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*run, "--continue-on-collection-errors"],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=pytester.path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "1 xfailed, 2 errors" in done.stdout
