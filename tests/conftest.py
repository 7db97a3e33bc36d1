"""Fixtures for every test, and the rule that nothing is skipped: what cannot run is red."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from medcrypt_hsm.lifecycle.enroll import PROFILES, TokenOptions
from tests.support.checkout import FULL
from tests.support.clinic import Clinic
from tests.support.command_line import CommandLine
from tests.support.pcscd import Pcscd
from tests.support.practice import Practice
from tests.support.softhsm import SoftHsm
from tests.support.yubikey import VirtualYubiKey, YubiKeys

_worker_pcscd = pytest.StashKey[tuple[tempfile.TemporaryDirectory[str], Pcscd]]()
_worker_directory = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
    settings.load_profile("untimed")
    # Each xdist worker has a SoftHSM2 directory of its own. It is named before anything can load the module, which
    # reads the variable when it is first used and never again.
    directory = tempfile.TemporaryDirectory(prefix="medcrypt-softhsm-")
    config.stash[_worker_directory] = directory
    os.environ |= SoftHsm(Path(directory.name)).env
    # The same with pcscd. Also the tests that want none get this one's socket, where nobody answers then.
    short = tempfile.TemporaryDirectory(prefix="medcrypt-pcscd-")
    own_pcscd = Pcscd(Path(short.name))
    config.stash[_worker_pcscd] = short, own_pcscd
    os.environ |= own_pcscd.env


def _forget_dead_clocks() -> None:
    """libfaketime's shared memory outlives a process that is killed, or ends at once, and bears its number."""
    for memory in Path("/dev/shm").glob("faketime_shm_*"):
        number = memory.name.rpartition("_")[2]
        if not Path("/proc", number).exists():
            memory.unlink(missing_ok=True)
            memory.with_name(f"sem.faketime_sem_{number}").unlink(missing_ok=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    _forget_dead_clocks()
    config.stash[_worker_directory].cleanup()
    short, own_pcscd = config.stash[_worker_pcscd]
    own_pcscd.close()
    short.cleanup()


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Modules that say ``BOTH_PROFILES = True`` run under both; under ``scripts/test --full`` every module does."""
    chosen = any("profile" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    both = FULL or getattr(metafunc.module, "BOTH_PROFILES", False)
    if "profile" in metafunc.fixturenames and both and not chosen:
        metafunc.parametrize("profile", PROFILES, scope="session")


@pytest.fixture(scope="session")
def profile() -> str:
    """How the root key of ``practice`` and ``clinic`` works."""
    return PROFILES[0]


@pytest.fixture(scope="module")
def token_uri(softhsm: SoftHsm) -> str:
    """One token for a module's vaults: they tell theirs apart by the vault's id."""
    return softhsm.make_token()


@pytest.fixture
def practice(tmp_path: Path, token_uri: str, profile: str) -> Practice:
    """A vault of its own and a clock that stands still until it is moved: Sunday, 22 November 2026, noon."""
    made = Practice(tmp_path / "practice" / "vault.db", token_uri)
    made.create(options=TokenOptions(profile)).close()
    return made


@pytest.fixture(scope="module")
def shared_practice(tmp_path_factory: pytest.TempPathFactory, token_uri: str) -> Practice:
    """One vault for a module's tests that leave it as it was, or look at nothing but what they did themselves."""
    made = Practice(tmp_path_factory.mktemp("shared") / "practice" / "vault.db", token_uri)
    made.create().close()
    return made


@pytest.fixture(scope="session")
def finished_clinic(tmp_path_factory: pytest.TempPathFactory, profile: str) -> Clinic:
    """Made once; ``clinic`` copies it."""
    return Clinic.at(tmp_path_factory.mktemp("clinic")).make(profile)


@pytest.fixture
def clinic(finished_clinic: Clinic, tmp_path: Path) -> Clinic:
    """For tests of the command line: tokens, vault and three patients, in a copy of its own."""
    return finished_clinic.copy(tmp_path / "clinic")


@pytest.fixture(scope="session")
def worker_pcscd(pytestconfig: pytest.Config) -> Pcscd:
    """This worker's smart-card service, as it happens to be: for fixtures that keep a card for a class."""
    return pytestconfig.stash[_worker_pcscd][1]


@pytest.fixture
def pcscd(worker_pcscd: Pcscd) -> Iterator[Pcscd]:
    """This worker's smart-card service, running, with one empty reader. ``stop()``, ``start(readers=2)`` at will."""
    worker_pcscd.start(readers=1)
    yield worker_pcscd
    worker_pcscd.stop()


@pytest.fixture
def yubikey(pcscd: Pcscd, tmp_path: Path) -> Iterator[YubiKeys]:
    """``yubikey("5.7.4", serial=…)``: a virtual YubiKey from the factory, inserted; each in another reader.

    ``like=other``: a copy of another's state. For two at once, before the first: ``pcscd.stop()`` and
    ``pcscd.start(readers=2)``.
    """
    made: list[VirtualYubiKey] = []

    def insert(
        firmware: str = "5.4.3", *, serial: int | None = None, like: VirtualYubiKey | None = None, **options: Any
    ) -> VirtualYubiKey:
        number = len(made)
        directory = tmp_path / f"yubikey{number}"
        if like is not None:
            shutil.copytree(like.directory, directory)
            key = VirtualYubiKey(pcscd, directory, reader=number, **options)
        else:
            serial = 12345678 + number if serial is None else serial
            key = VirtualYubiKey.make(pcscd, directory, serial=serial, firmware=firmware, reader=number, **options)
        made.append(key)
        return key.start()

    yield insert
    for key in made:
        key.stop()
