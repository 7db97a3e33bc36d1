"""Somebody sets the machine's clock: nothing is dated, opened, shredded as due, anchored or synced by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.errors import ClockBehind, MedcryptError, MonthsBehind
from medcrypt_hsm.lifecycle.others import OtherTokens
from tests.adversary.attacks.hand import Hand
from tests.adversary.attacks.scene import OCTOBER, Scene
from tests.support.command_line import CommandLine
from tests.support.practice import pin

BOTH_PROFILES = True
COMPANY = OtherTokens(pin, without=("spare", "sleeper"))

CLOCKS: dict[str, type[MedcryptError]] = {
    "2026-11-18": ClockBehind,
    "2020-01-01": ClockBehind,
    "2027-01-01": MonthsBehind,
    "2099-06-01": MonthsBehind,
}


@pytest.mark.parametrize(("now", "error"), CLOCKS.items())
def test_set_wrong(scene: Scene, hand: Hand, now: str, error: type[MedcryptError], tmp_path: Path) -> None:
    true, before, held = scene.practice.clock.now, hand.path.read_bytes(), scene.objects()
    scene.practice.clock.set(now)
    try:
        with scene.practice.open(hand.path, token="doctor") as vault:
            due = [] if error is ClockBehind else vault.months.past_retention()[0]
            assert bool(due) == (now == "2099-06-01")
            acts: tuple[Callable[[], object], ...] = (
                lambda: vault.encrypt("EXP-1", "x"),
                lambda: vault.decrypt("\n".join(scene.texts.values()), archive=True),
                lambda: vault.months.shred(due or [OCTOBER], COMPANY),
                lambda: vault.patients.erase("EXP-1", COMPANY),
                lambda: vault.tokens.remove("spare", COMPANY),
                lambda: vault.tokens.sync(COMPANY),
                lambda: vault.holds.add("x", patient="EXP-1"),
                lambda: vault.holds.remove("x", patient="EXP-4"),
                lambda: vault.set_policy(retain_months=1),
                lambda: vault.backup(tmp_path / "new.db"),
                lambda: vault.patients.add("EXP-9"),
                vault.months.open,
                vault.log.anchor,
                vault.patients.list,
            )
            for act in acts:
                with pytest.raises(error, match="clock says"):
                    act()
    finally:
        scene.practice.clock.now = true
    assert hand.path.read_bytes() == before
    assert scene.objects() == held
    assert not (tmp_path / "new.db").exists()


def test_shredding_what_is_due_in_2099(scene: Scene, hand: Hand, medcrypt: CommandLine) -> None:
    """Through a process whose clock is wrong."""
    before, held = hand.path.read_bytes(), scene.objects()
    shred = ("shred", "--due", "--without", "spare", "--without", "sleeper")
    said = medcrypt("--vault", hand.path, "--token", "doctor", "--yes", *shred, at="2099-06-01 12:00:00", code=6)
    first, second = said.stderr.splitlines()[-2:]
    assert first.startswith("error: this vault's newest month is 2026-11, the clock says 2099-06")
    assert second.startswith("hint: if the clock is right, run 'medcrypt rotate --to 2099-06'")
    assert said.stdout == ""
    assert hand.path.read_bytes() == before
    assert scene.objects() == held
