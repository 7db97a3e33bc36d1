"""PIN counters on a token that has them: openCryptoki's software token, a fresh one for each test.

SoftHSM2 never locks, so what a person must be protected from can only be seen here (tests/support/locking_token).
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.checkout import ROOT
from tests.support.locking_scenarios import SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_token_that_locks(scenario: str) -> None:
    command = [
        str(ROOT / "tests" / "support" / "locking_token"),
        sys.executable,
        "-m",
        "tests.support.locking_scenarios",
        scenario,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
