"""The rows of on_breakglass.py: found as all others are, and the custodians' tokens are left as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversary.attacks import on_breakglass
from tests.adversary.attacks.attack import Attack
from tests.adversary.attacks.hand import Hand
from tests.adversary.attacks.on_breakglass import BREAKGLASS
from tests.adversary.attacks.scene import Scene
from tests.adversary.attacks.test_attacks import found_at_unlock
from tests.support.softhsm import SoftHsm


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, softhsm: SoftHsm) -> Scene:
    return on_breakglass.make(tmp_path_factory.mktemp("custodians"), softhsm)


@pytest.mark.parametrize("attack", BREAKGLASS, ids=str)
def test_found_at_unlock(scene: Scene, hand: Hand, attack: Attack, tmp_path: Path) -> None:
    before = {who: scene.objects(who) for who in ("ana", "carla")}
    found_at_unlock(scene, hand, attack, tmp_path)
    assert {who: scene.objects(who) for who in before} == before


def test_names_are_told_apart() -> None:
    names = [attack.name for attack in BREAKGLASS]
    assert len(names) == len(set(names))
