"""Fixtures for every test, and the rule that nothing is skipped: what cannot run is red."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support import CommandLine, SoftHsm
from tests.support_cli import Clinic
from tests.support_practice import Practice

_worker_directory = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    # Each xdist worker has a SoftHSM2 directory of its own. It is named before anything can load the module, which
    # reads the variable when it is first used and never again.
    directory = tempfile.TemporaryDirectory(prefix="medcrypt-softhsm-")
    config.stash[_worker_directory] = directory
    os.environ |= SoftHsm(Path(directory.name)).env


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_worker_directory].cleanup()


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: no test of this project may be skipped ({reason})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def softhsm(pytestconfig: pytest.Config) -> SoftHsm:
    """This worker's SoftHSM2 directory, which this process sees too. ``softhsm.make_token() -> uri``."""
    return SoftHsm(Path(pytestconfig.stash[_worker_directory].name), used_here=True).prepare()


@pytest.fixture
def own_softhsm(tmp_path: Path) -> SoftHsm:
    """A directory for one test, to damage, copy or remove. Only processes given its ``env`` see it."""
    return SoftHsm(tmp_path / "softhsm").prepare()


@pytest.fixture
def medcrypt(tmp_path: Path, softhsm: SoftHsm) -> CommandLine:
    """The command line, with a home of its own and the worker's tokens."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return CommandLine(home, softhsm)


@pytest.fixture(scope="module")
def token_uri(softhsm: SoftHsm) -> str:
    """One token for a module's vaults: they tell theirs apart by the vault's id."""
    return softhsm.make_token()


@pytest.fixture
def practice(tmp_path: Path, token_uri: str) -> Practice:
    """A vault of its own and a clock that stands still until it is moved: Sunday, 22 November 2026, noon."""
    made = Practice(tmp_path / "practice" / "vault.db", token_uri)
    made.create().close()
    return made


@pytest.fixture(scope="session")
def finished_clinic(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    """Made once; ``clinic`` copies it."""
    return Clinic.at(tmp_path_factory.mktemp("clinic")).make()


@pytest.fixture
def clinic(finished_clinic: Clinic, tmp_path: Path) -> Clinic:
    """For tests of the command line: tokens, vault and three patients, in a copy of its own."""
    return finished_clinic.copy(tmp_path / "clinic")
