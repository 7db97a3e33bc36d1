"""A vault with two tokens, as several files here begin with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.lifecycle.enroll import TokenOptions
from tests.support.practice import Practice
from tests.support.softhsm import SoftHsm


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    """Tokens for this module's vaults."""
    return {name: softhsm.make_token() for name in ("doctor", "spare", "third")}


@pytest.fixture
def two(tmp_path: Path, uris: dict[str, str]) -> Practice:
    """A vault with doctor (aes-kw) and spare (p256-hpke), and a patient."""
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    with made.create() as vault:
        made.pair(vault, "EXP-1")
    made.add("spare", uris["spare"], using="doctor", options=TokenOptions("p256-hpke"))
    return made
