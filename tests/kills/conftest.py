"""Places that the tests here copy, damage, crowd and kill."""

from __future__ import annotations

import pytest

from tests.kills.established import Established, establish
from tests.kills.place import Place
from tests.kills.rekeyed import Past


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A token and no vault."""
    place = Place(tmp_path_factory.mktemp("blank"))
    place.softhsm.make_token("doctor")
    return place


@pytest.fixture(scope="session")
def established(blank: Place, tmp_path_factory: pytest.TempPathFactory) -> Established:
    return establish(blank, tmp_path_factory.mktemp("established"))


@pytest.fixture(scope="session")
def past(blank: Place, tmp_path_factory: pytest.TempPathFactory) -> Past:
    return Past(tmp_path_factory.mktemp("past"), blank)
