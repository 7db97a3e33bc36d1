"""The garbage collector is the program's own: whatever it was set to, it is that again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from medcrypt_hsm.collector import no_collections


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


def test_a_program_that_works_without_one_goes_on_without() -> None:
    gc.disable()
    with no_collections():
        pass
    assert not gc.isenabled()
