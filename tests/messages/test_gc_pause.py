"""The garbage collector is the program's own: whatever it was set to, it is that again."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from medcrypt_hsm.messages.gc_pause import no_collections


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_off_inside_and_on_again_also_behind_an_error() -> None:
    @no_collections()
    def fails() -> None:
        assert not gc.isenabled()
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert gc.isenabled()


def test_one_inside_another() -> None:
    with no_collections():
        with no_collections():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_in_threads_that_come_and_go() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def work() -> None:
            for _ in range(2000):
                with no_collections():
                    assert not gc.isenabled()

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(work) for _ in range(3)]:
                done.result()
    finally:
        sys.setswitchinterval(before)
    assert gc.isenabled()


def test_a_program_that_works_without_one_goes_on_without() -> None:
    gc.disable()
    with no_collections():
        pass
    assert not gc.isenabled()
