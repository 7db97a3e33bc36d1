"""Practices and tokens that more than one file here begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.lifecycle.enroll import TokenOptions
from tests.support.practice import Practice
from tests.support.softhsm import SoftHsm


@pytest.fixture
def saved(practice: Practice) -> Path:
    """A backup from before one more message was written and anchored. The practice goes on with ``practice.path``."""
    target = practice.path.with_name("backup.db")
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        vault.encrypt("EXP-1", "antes")
        vault.backup(target)
        vault.encrypt("EXP-1", "después")
        vault.log.anchor()
    return target


@pytest.fixture
def autumn(tmp_path: Path, token_uri: str, profile: str) -> tuple[Practice, str]:
    """Two months, a patient, and a text of October."""
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    practice.clock.set("2026-10-20")
    with practice.create(options=TokenOptions(profile)) as vault:
        practice.pair(vault, "EXP-1")
        (text,) = vault.encrypt("EXP-1", "octubre")
    practice.clock.set("2026-11-20")
    with practice.open() as vault:
        vault.months.open()
    return practice, text


@pytest.fixture(scope="module")
def spare_uri(softhsm: SoftHsm, token_uri: str) -> str:
    return softhsm.make_token()


@pytest.fixture(scope="module")
def third_uri(softhsm: SoftHsm, spare_uri: str) -> str:
    return softhsm.make_token()


@pytest.fixture
def year(tmp_path: Path, token_uri: str, profile: str) -> tuple[Practice, dict[str, str]]:
    """Five months with two patients; a text of each, and backups of the end of each month."""
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    practice.clock.set("2026-07-20")
    practice.create(options=TokenOptions(profile)).close()
    texts: dict[str, str] = {}
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        practice.pair(vault, "EXP-2")
    for month in ("2026-07", "2026-08", "2026-09", "2026-10", "2026-11"):
        practice.clock.set(f"{month}-20")
        with practice.open() as vault:
            for patient in ("EXP-1", "EXP-2"):
                (texts[f"{patient} {month}"],) = vault.encrypt(patient, f"{patient} in {month}")
            vault.backup(tmp_path / f"{month}.db")
    return practice, texts
