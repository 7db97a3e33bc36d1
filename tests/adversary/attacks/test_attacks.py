"""Each row of the table against everything that a practice does: found, named, and nothing is done or let out."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken, VaultRolledBack
from medcrypt_hsm.vault.unlock import unlock
from tests.adversary.attacks.attack import Attack
from tests.adversary.attacks.commands import command, commands
from tests.adversary.attacks.hand import Hand
from tests.adversary.attacks.on_trust import KEYS
from tests.adversary.attacks.scene import Scene
from tests.adversary.attacks.table import AT_UNLOCK
from tests.support.store import open_at
from tests.support.watched_token import WatchedToken

BOTH_PROFILES = True
OURS = ("-notes", "-shm", "-wal")  # what may come to lie beside the file: notes of what failed, and SQLite's own


def lying_there(directory: Path) -> dict[str, bytes]:
    found = sorted(path for path in directory.iterdir() if not path.name.endswith(OURS) or path.is_symlink())
    return {path.name: str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() for path in found}


def asks_nothing_of_its_keys(scene: Scene, hand: Hand, attack: Attack) -> None:
    """The token signs a challenge and shows its anchor: nothing is unwrapped, made or destroyed."""
    file = open_at(hand.path)
    with closing(file), WatchedToken.open(scene.uris[attack.token]) as token, pytest.raises(attack.error):
        unlock(file, token, attack.token, actor="mara", clock=scene.practice.clock)
    assert {"sign", "read_objects"} >= set(token.calls), token.calls


@pytest.mark.parametrize("attack", AT_UNLOCK, ids=str)
def test_found_at_unlock(scene: Scene, hand: Hand, attack: Attack, tmp_path: Path) -> None:
    found_at_unlock(scene, hand, attack, tmp_path)


def found_at_unlock(scene: Scene, hand: Hand, attack: Attack, tmp_path: Path) -> None:
    with scene.anchors_put_back():
        attack.do(hand)
        before, held = lying_there(hand.path.parent), scene.objects(attack.token)
        with pytest.raises(attack.error, match=attack.words) as caught:
            scene.practice.open(hand.path, token=attack.token)
        assert (type(caught.value), caught.value.exit_code) == (attack.error, 7)
        if attack.error in (AuditBroken, VaultRolledBack) and attack not in KEYS:
            asks_nothing_of_its_keys(scene, hand, attack)
        for name, arguments in commands(scene, tmp_path).items():
            if attack.everywhere or name in ("encrypt", "shred"):
                command(hand.path, attack.token, *arguments).is_refused(7, attack.words)
        assert lying_there(hand.path.parent) == before
        assert scene.objects(attack.token) == held
    assert not (tmp_path / "new.db").exists()


def test_names_are_told_apart() -> None:
    names = [attack.name for attack in AT_UNLOCK]
    assert len(names) == len(set(names))
