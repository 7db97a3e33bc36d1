"""A text becomes wire texts: what one key may encrypt, and what is refused before anything is."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import Refused
from medcrypt_hsm.messages.encrypt import KEY_USES
from tests.support.practice import Practice

BOTH_PROFILES = True


class TestUseOfAKey:
    def test_it_encrypts_no_more_at_its_limit(self, practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("medcrypt_hsm.messages.encrypt.KEY_USES", 3)
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            vault.encrypt("EXP-1", "uno")
            vault.decrypt(" ".join([*phone.write("dos"), *phone.write("tres")]))  # the patient's count as well
            with pytest.raises(Refused, match="encrypted enough"):
                vault.encrypt("EXP-1", "cuatro")
            practice.clock.set("2026-12-01")
            vault.encrypt("EXP-1", "another month, another key")

    def test_the_limit_is_far_below_what_gcm_allows(self) -> None:
        assert KEY_USES <= 2**32 // 2**10
