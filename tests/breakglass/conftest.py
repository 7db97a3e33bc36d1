"""A practice and its custodians' tokens, for the procedure as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import Practice
from tests.support.softhsm import SoftHsm


@pytest.fixture(scope="session")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    """Made once: each test has a vault of its own, and a token tells vaults apart by their ids."""
    return {name: softhsm.make_token() for name in ("doctor", *CUSTODIANS, "dora", "nueva", "spare")}


@pytest.fixture
def circle(tmp_path: Path, uris: dict[str, str]) -> Circle:
    """A practice of September 2026, whose custodians' tokens hold nothing of it yet."""
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    made.clock.set("2026-09-20")
    made.create().close()
    return Circle(made, uris, tmp_path / "homes")
