"""Old root KEKs: destroyed when the new keyset is known to open, and not before."""

from __future__ import annotations

import pytest

from medcrypt_hsm.month import Month
from tests.support.practice import Practice, unlocked

BOTH_PROFILES = True
OCTOBER = Month.parse("2026-10")


def test_the_old_key_is_not_destroyed_before_the_new_keyset_opens(
    autumn: tuple[Practice, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    practice, _ = autumn
    with practice.open() as vault:
        token = unlocked(vault).token
        seen: list[str] = []
        unwrap, destroy = token.unwrap_keyset, token.destroy
        monkeypatch.setattr(token, "unwrap_keyset", lambda *a: (seen.append("unwrap"), unwrap(*a))[1])
        monkeypatch.setattr(token, "destroy", lambda name: (seen.append(f"destroy {name[-1]}"), destroy(name))[1])
        vault.months.shred([OCTOBER])
    assert seen[-2:] == ["unwrap", "destroy 1"]
