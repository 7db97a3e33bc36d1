from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversary.attacks import scene as scenes
from tests.adversary.attacks.hand import Hand
from tests.adversary.attacks.scene import Scene
from tests.support.command_line import PIN_VARIABLE
from tests.support.softhsm import USER_PIN, SoftHsm
from tests.support.store import whole


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, softhsm: SoftHsm, profile: str) -> Scene:
    return scenes.make(tmp_path_factory.mktemp("scene"), softhsm, profile)


@pytest.fixture
def hand(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hand:
    """A copy of the present file, in a directory of its own with something precious in it."""
    monkeypatch.setenv("MEDCRYPT_PIN_SOURCE", f"env:{PIN_VARIABLE}")
    monkeypatch.setenv(PIN_VARIABLE, USER_PIN)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    directory = tmp_path / "practice"
    directory.mkdir(mode=0o700)
    (directory / "precious").write_bytes(b"of somebody else\0")
    return Hand(scene, whole(scene.practice.path, directory / "vault.db"))
