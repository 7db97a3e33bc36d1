"""One process at a time finds a token or logs in: the lock on a module's file, which can only ever be waited for."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medcrypt_hsm.tokens.pkcs11 import modules
from medcrypt_hsm.tokens.pkcs11.modules import one_at_a_time


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.so"
    path.write_bytes(b"")
    return path


@contextmanager
def held(path: Path) -> Iterator[None]:
    """As another process holds it: flock(2) locks are of whoever opened the file."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def test_nobody_else_has_it_meanwhile(module: Path) -> None:
    with one_at_a_time([str(module)]), pytest.raises(BlockingIOError), held(module):
        pass
    with held(module):
        pass


def test_it_is_let_go_behind_an_error_too(module: Path) -> None:
    with pytest.raises(LookupError), one_at_a_time([str(module)]):
        raise LookupError
    with held(module):
        pass


def test_a_lock_that_somebody_keeps_is_passed_by(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "PATIENCE", 0.05)
    with held(module):
        begun = time.monotonic()
        with one_at_a_time([str(module)]):
            assert time.monotonic() - begun >= 0.05


def by_a_link(module: Path) -> Path:
    link = module.with_name("link.so")
    link.symlink_to(module)
    return link


@pytest.mark.parametrize("again", [lambda module: module, by_a_link], ids=["same name", "link"])
def test_whoever_has_it_does_not_wait_for_themselves(module: Path, again: Callable[[Path], Path]) -> None:
    begun = time.monotonic()
    with one_at_a_time([str(module)]), one_at_a_time([str(module), str(again(module))]):
        assert time.monotonic() - begun < modules.PATIENCE


def test_a_module_that_is_not_there_is_no_failure(tmp_path: Path) -> None:
    with one_at_a_time([str(tmp_path / "absent.so")]):
        pass
