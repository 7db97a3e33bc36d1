"""Attacks on rows that no unlock reads: no key is used but the right one, and nothing is destroyed or copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken, MedcryptError, VaultDamaged
from tests.adversary.attacks.commands import command, commands
from tests.adversary.attacks.hand import Hand
from tests.adversary.attacks.on_rows import ON_ROWS, RowAttack
from tests.adversary.attacks.scene import OCTOBER, WITHOUT_THE_SLEEPER, Scene

BOTH_PROFILES = True


@pytest.mark.parametrize("attack", ON_ROWS, ids=str)
def test_refused_when_used_and_found_by_verify(scene: Scene, hand: Hand, attack: RowAttack, tmp_path: Path) -> None:
    with scene.anchors_put_back():
        attack.do(hand)
        before, held, entries = hand.path.read_bytes(), scene.objects(), len(hand.rows("entries"))
        with scene.practice.open(hand.path, token="doctor") as vault:
            destroying: tuple[Callable[[], object], ...] = (
                vault.log.verify,
                lambda: vault.months.shred([OCTOBER], WITHOUT_THE_SLEEPER),
                lambda: vault.patients.erase("EXP-2", WITHOUT_THE_SLEEPER),
                lambda: vault.tokens.remove("spare", WITHOUT_THE_SLEEPER),
            )
            for act in destroying:
                with pytest.raises((AuditBroken, VaultDamaged), match=attack.words):
                    act()
        command(hand.path, "doctor", "audit", "verify").is_refused(7, attack.words)
        assert hand.path.read_bytes() == before
        assert len(hand.rows("entries")) == entries
        assert scene.objects() == held

        command(hand.path, "doctor", *commands(scene, tmp_path)["backup"]).is_refused(7, attack.words)
        assert not list(tmp_path.glob("new.db*"))
        with scene.practice.open(hand.path, token="doctor") as vault:
            for name in attack.unreadable:
                try:
                    opened = vault.decrypt(scene.texts[name], archive=True)
                except MedcryptError:
                    continue
                assert [(message.text, message.error is None) for message in opened] == [(None, False)]
            if attack.unwritable:
                with pytest.raises(MedcryptError):
                    vault.encrypt(attack.unwritable, "x")
