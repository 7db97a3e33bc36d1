"""A practice and its custodians' tokens, for the procedure as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import Practice
from tests.support.softhsm import SoftHsm


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    return {name: softhsm.make_token() for name in ("doctor", *CUSTODIANS, "dora", "nueva", "spare")}


@pytest.fixture
def circle(tmp_path: Path, uris: dict[str, str]) -> Circle:
    """Three months of a practice, two patients, and a ceremony in the second month."""
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    made.clock.set("2026-09-20")
    made.create().close()
    return Circle(made, uris, tmp_path / "homes")
