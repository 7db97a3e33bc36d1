"""Re-keying with a YubiKey: pulled at any APDU of it, beside a token of another kind, and often.

Before firmware 5.7 a key can only be destroyed by making another in its slot: such a spent slot is used again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import VaultError
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.provision import initialize
from tests.kills.test_yubikey_pulled import RETIRED, Desk, pulled_everywhere
from tests.kills.test_yubikey_pulled import blank as blank
from tests.support.checkout import FULL
from tests.support.practice import MovedClock, statuses
from tests.support.softhsm import USER_PIN, SoftHsm
from tests.support.yubikey import FIRMWARES, SOME, VirtualYubiKey, YubiKeys

PIN, PUK = "481516", "23423108"
SEPTEMBER, OCTOBER = Month.parse("2026-09"), Month.parse("2026-10")


def pin(info: Any) -> str:
    return PIN if info.uri.startswith("yubikey:") else USER_PIN


EVERYBODY = OtherTokens(pin)


def opened(path: Path, clock: MovedClock, **more: Any) -> Vault:
    return Vault.open(path, pin=pin, clock=clock, **more)


def slots_in_use(key: VirtualYubiKey) -> int:
    return len(set(key.state.keys) & set(RETIRED))


@pytest.fixture(scope="module")
def autumn(blank: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Three months with a patient, a text of September."""
    desk = blank.copy(tmp_path_factory.mktemp("autumn") / "desk")
    desk.clock.set("2026-09-20")
    with desk.create() as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        (desk.wire,) = vault.encrypt("EXP-1", "septiembre")
    for day in ("2026-10-20", "2026-11-20"):
        desk.clock.set(day)
        with desk.open() as vault:
            vault.months.open()
    desk.key.stop()
    return desk


def shred(desk: Desk) -> None:
    """As a person does: if an interrupted run had come so far, opening the vault finished it."""
    with desk.open() as vault:
        if not vault._unlocked.state.is_shredded(SEPTEMBER):
            assert statuses(vault.decrypt(desk.wire, archive=True))[0] in ("ok", "seen")
            vault.months.shred([SEPTEMBER])
        assert statuses(vault.decrypt(desk.wire, archive=True)) == ["shredded"]
        assert vault.encrypt("EXP-1", "noviembre")


def test_pulled_while_a_month_is_shredded(autumn: Desk, tmp_path: Path) -> None:
    pulled_everywhere(autumn, shred, 4, tmp_path, slots=(2, 3))


@pytest.mark.parametrize("firmware", SOME)
def test_beside_another_token(tmp_path: Path, yubikey: YubiKeys, softhsm: SoftHsm, firmware: str) -> None:
    """The YubiKey in use, there, away and synced, and at last removed: each time the old root key is gone."""
    key, clock, path = yubikey(firmware), MovedClock(), tmp_path / "practice" / "vault.db"
    initialize(key.uri, None, PUK, PIN)
    clock.set("2026-08-20")
    with Vault.create(path, token="doctor", uri=key.uri, pin=pin, clock=clock) as vault:
        for patient in ("EXP-1", "EXP-2"):
            vault.patients.add(patient, unconfirmed=True)
        (text,) = vault.encrypt("EXP-1", "agosto")
        vault.tokens.add("spare", softhsm.make_token(), pin=pin)
    for day in ("2026-09-20", "2026-10-20", "2026-11-20"):
        clock.set(day)
        with opened(path, clock, token="spare") as vault:
            vault.months.open()
    with opened(path, clock, token="doctor") as vault:  # in use
        vault.backup(tmp_path / "before.db")
        made = vault.months.shred([Month.parse("2026-08")], EVERYBODY)
        assert [token["destroyed"] for token in made.value["tokens"]] == [True, True]
        assert statuses(vault.decrypt(text, archive=True)) == ["shredded"]
    with pytest.raises(VaultError, match="re-key"):
        Vault.restore(path, tmp_path / "before.db", token="doctor", pin=pin, agree=lambda _: None, clock=clock)
    with opened(path, clock, token="spare") as vault:  # there
        vault.patients.erase("EXP-2", EVERYBODY)
        vault.log.verify()
    with opened(path, clock, token="spare") as vault:  # away
        made = vault.months.shred([SEPTEMBER], OtherTokens(pin, without=("doctor",)))
        assert {token["name"]: token["destroyed"] for token in made.value["tokens"]} == {"doctor": False, "spare": True}
    with opened(path, clock, token="doctor") as vault:  # it opens the vault all the same, and syncs itself
        synced = vault.tokens.sync(OtherTokens(pin, without=("spare",)))
        assert (synced.renewed, synced.destroyed, synced.left) == (("doctor",), ("3:doctor",), ())
        assert vault.encrypt("EXP-1", "noviembre")
        assert vault.log.verify().keys == ("doctor", "spare")
    assert slots_in_use(key) <= 3
    with opened(path, clock, token="spare") as vault:  # removed
        vault.tokens.remove("doctor", EVERYBODY)
        vault.log.verify()
    with open_token(key.uri, pin) as token:
        assert token.names() == []


@pytest.mark.parametrize("firmware", FIRMWARES if FULL else ["4.3.5"])
def test_often_enough_to_use_every_slot(tmp_path: Path, yubikey: YubiKeys, firmware: str) -> None:
    """Twenty slots; each re-key takes one and gives one back."""
    key, clock, path = yubikey(firmware), MovedClock(), tmp_path / "practice" / "vault.db"
    initialize(key.uri, None, PUK, PIN)
    with Vault.create(path, token="doctor", uri=key.uri, pin=pin, clock=clock) as vault:
        for number in range(24 if FULL else 5):
            vault.patients.add("EXP-1", unconfirmed=True)
            vault.patients.erase("EXP-1")
            assert slots_in_use(key) <= 3, f"re-key {number + 1}"
        assert vault.log.verify().rows
        assert (vault.status().problems, vault.status().orphans) == ((), ())
