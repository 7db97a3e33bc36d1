"""An interrupt at the very commit of a re-key: it was written, and the process that wrote it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.store.store import Store
from tests.support.practice import Practice, pin, unlocked
from tests.support.softhsm import SoftHsm

BOTH_PROFILES = True
SEPTEMBER = Month.parse("2026-09")


class Interrupted:
    """A real file. Ctrl-C comes as the transaction returns in which ``when`` begins to hold."""

    def __init__(self, file: Store, when: str) -> None:
        self._file, self._when, self._was = file, when, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._file.transaction():
            yield
        before, self._was = self._was, any(re.search(self._when, str(row)) for row in self._file.trust_rows())
        if self._was and not before:
            raise KeyboardInterrupt


@pytest.fixture
def september(tmp_path: Path, token_uri: str, profile: str) -> Practice:
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    practice.clock.set("2026-09-20")
    with practice.create(options=TokenOptions(profile)) as vault:
        practice.pair(vault, "EXP-1")
    practice.clock.set("2026-10-20")
    with practice.open() as vault:
        vault.months.open()
    return practice


@pytest.mark.parametrize("when", ['"phase":"intended"', '"phase":"committed"'])
def test_a_shredding(september: Practice, when: str) -> None:
    with september.open() as vault:
        unlocked(vault).file = Interrupted(unlocked(vault).file, when)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            vault.months.shred([SEPTEMBER])
    with september.open() as vault:
        assert dict(vault.status().months)["2026-09"] == ("shredded" if "committed" in when else "archived")
        assert vault.encrypt("EXP-1", "x")
        vault.log.verify()


def test_a_sync(september: Practice, softhsm: SoftHsm, profile: str) -> None:
    spare = softhsm.make_token()
    september.add("spare", spare, options=TokenOptions(profile))
    with september.open(token="doctor") as vault:
        vault.months.shred([SEPTEMBER], OtherTokens(pin, without=("spare",)))
    with september.open(token="doctor") as vault:
        unlocked(vault).file = Interrupted(unlocked(vault).file, "2:spare', b'.*\"kek\":2")  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            vault.tokens.sync(OtherTokens(pin))
    with september.open(token="spare") as vault:
        assert vault.encrypt("EXP-1", "x")
        vault.log.verify()
