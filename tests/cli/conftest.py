"""Fixtures for tests of the command line: a practice with custodians."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.circle import Asking, ceremony, copied, with_custodians
from tests.support.clinic import Clinic


@pytest.fixture(scope="session")
def finished_circle(finished_clinic: Clinic, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clinic, Clinic]:
    """The clinic with tokens for custodians, before their ceremony and after it. Made once."""
    before = with_custodians(finished_clinic.copy(tmp_path_factory.mktemp("tokens") / "clinic"), "dora")
    after = copied(before, tmp_path_factory.mktemp("circle") / "clinic")
    ceremony(after)
    return before, after


@pytest.fixture
def bare(finished_circle: tuple[Clinic, Clinic], tmp_path: Path) -> Clinic:
    """For tests of the command line: tokens for custodians, and no ceremony yet; in a copy of its own."""
    return copied(finished_circle[0], tmp_path / "clinic")


@pytest.fixture
def circle(finished_circle: tuple[Clinic, Clinic], tmp_path: Path) -> Clinic:
    """The same, after the ceremony."""
    return copied(finished_circle[1], tmp_path / "clinic")


@pytest.fixture
def asking(circle: Clinic) -> Asking:
    """Requests and approvals to it."""
    return Asking(circle)
