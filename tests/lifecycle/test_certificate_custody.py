"""The certificate is true about break-glass too: which copies a ceremony's key opens, and which old shares are gone.

A thief who has custodians' tokens and their PINs, and any copy, asks for no approval: shares are put together, and the
copy's escrow opened with them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from medcrypt_hsm import Vault
from medcrypt_hsm.crypto import shamir
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.errors import MedcryptError, NotAuthentic, PinNeeded, TokenUnfit, VaultDamaged
from medcrypt_hsm.lifecycle import escrow
from medcrypt_hsm.lifecycle import shares as sharing
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.messages import wire
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.keyset import MESSAGE, VaultKeyset
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.checkout import FULL
from tests.support.practice import Practice, pin
from tests.support.softhsm import USER_PIN, SoftHsm
from tests.support.store import open_at

Shares = dict[bytes, dict[int, bytes]]  # by ceremony and number
ALONE = OtherTokens(pin)
AWAY = (("carla",), ("berta", "carla"), ("ana", "berta", "carla"))


@dataclass
class Autumn:
    """Three months, and a backup by name at each step. ``texts``: by month."""

    circle: Circle
    directory: Path
    texts: dict[str, str] = field(default_factory=dict)
    made: list[Certificate] = field(default_factory=list)

    @property
    def practice(self) -> Practice:
        return self.circle.practice

    def then(self, do: Callable[[Vault], Certificate | None], backup: str) -> Certificate:
        """One step, then a backup."""
        self.practice.clock.forward(minutes=10)
        with self.practice.open() as vault:
            if (certificate := do(vault)) is not None:
                self.made.append(certificate)
            vault.backup(self.directory / f"{backup}.db")
        return self.made[-1] if self.made else None  # type: ignore[return-value]

    # The thief

    def shares(self, *custodians: str) -> Shares:
        """Everything that opens on these tokens now, of whatever ceremony."""
        found: Shares = {}
        for who in custodians:
            with open_token(self.circle.uris[who], pin) as token:
                for record in sharing.records_on(token):
                    with suppress(TokenUnfit, NotAuthentic), sharing.open_share(token, record) as y:
                        found.setdefault(record.ceremony, {})[record.x] = bytes(bytearray(y.value))  # y itself is wiped
        return found

    def read(self, copy: Path, shares: Shares) -> set[str] | None:
        """The months that can be read by that copy and these shares; None if its escrow does not open."""
        with closing(open_at(copy, in_use=False)) as file:
            state = peek(file)
            if (present := state.breakglass) is None or not (some := shares.get(present.ceremony)):
                return None
            with shamir.combine(some) as seed:
                try:
                    sealed = present.escrow.sealed, state.vault_id, state.generation, present.ceremony
                    secrets = escrow.open_keyset(seed, *sealed)
                except VaultDamaged:
                    return None
            keyset = VaultKeyset(HostKeys().handles(secrets), state.vault_id)
            found = set()
            for month, text in self.texts.items():
                (message,) = wire.find(text)
                assert not isinstance(message, wire.Bad)
                for row in file.records(MESSAGE):
                    with suppress(NotAuthentic, InvalidTag):
                        keyset.aead_key(row).open(message.nonce, message.sealed, message.aad)
                        found.add(month)
            return found

    def opening(self, shares: Shares) -> set[str]:
        return {path.name for path in self.directory.glob("*.db") if self.read(path, shares) is not None}

    def is_true(self, certificate: Certificate, shares: Shares) -> None:
        """Of each backup that it tells of: it opens with a ceremony's key if the certificate says so, and only then."""
        told = {backup["name"]: backup["ceremony"] for backup in certificate.value["backups"]}
        there = {name for name in told if (self.directory / name).exists()}
        assert there, told
        assert {name for name in there if told[name]} == there & self.opening(shares), told
        for name in there:
            line = next(line for line in certificate.text.splitlines() if line.startswith(f"- {name} of "))
            assert ("break-glass key of ceremony" in line) == bool(told[name])


@pytest.fixture
def autumn(tmp_path: Path, softhsm: SoftHsm) -> Autumn:
    uris = {name: softhsm.make_token() for name in ("doctor", *CUSTODIANS, "dora", "nueva")}
    practice = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    practice.clock.set("2026-09-20")
    practice.create().close()
    made = Autumn(Circle(practice, uris, tmp_path / "homes"), tmp_path)
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
    for month in ("2026-09", "2026-10", "2026-11"):
        practice.clock.set(f"{month}-20")
        with practice.open() as vault:
            vault.months.open()
            (made.texts[month],) = vault.encrypt("EXP-1", month)
    made.then(lambda vault: None, "before")
    return made


def hold(autumn: Autumn) -> Callable[[Vault], Certificate]:
    shares = {name: autumn.circle.uris[name] for name in CUSTODIANS}
    return lambda vault: vault.custodians.ceremony(shares, 2, lambda name: pin, ALONE)


def rotate(vault: Vault) -> Certificate:
    return vault.custodians.rotate(lambda name: pin, ALONE)


def without(autumn: Autumn, *away: str) -> Callable[[str], PinPrompt]:
    """The PINs of all tokens but these."""

    def pin_of(name: str) -> PinPrompt:
        def prompt(info: TokenInfo) -> str:
            if any(f"token={info.label}?" in autumn.circle.uris[who] for who in away):
                raise PinNeeded("away", "")
            return USER_PIN

        return prompt

    return pin_of


def test_what_was_shredded_opens_by_old_copies_until_break_glass_is_made_anew(autumn: Autumn) -> None:
    everybody = CUSTODIANS
    autumn.is_true(autumn.then(hold(autumn), "held"), autumn.shares(*everybody))
    made = autumn.then(lambda vault: vault.months.shred([Month.parse("2026-09")], ALONE), "shredded")
    shares = autumn.shares(*everybody)
    autumn.is_true(made, shares)
    assert autumn.opening(shares) == {"held.db", "shredded.db"}
    assert autumn.read(autumn.directory / "held.db", shares) == set(autumn.texts)  # the very month: as it says
    assert autumn.read(autumn.directory / "shredded.db", shares) == {"2026-10", "2026-11"}
    assert "STILL OPENS with the break-glass key" in made.text
    assert autumn.opening(autumn.shares("ana")) == set()  # one alone opens nothing

    stolen = shares  # by somebody who kept what they opened: no certificate can tell of that
    made = autumn.then(rotate, "rotated")
    shares = autumn.shares(*everybody)
    autumn.is_true(made, shares)
    assert autumn.opening(shares) == {"rotated.db"}
    assert [share["destroyed"] for share in made.value["old_shares"]] == [True] * 3
    assert autumn.opening(stolen) == {"held.db", "shredded.db"}


@pytest.mark.parametrize("away", AWAY if FULL else AWAY[:2], ids="-".join)
def test_old_shares_that_were_away(autumn: Autumn, away: tuple[str, ...], softhsm: SoftHsm) -> None:
    """Fewer than the threshold open nothing; from it on the certificate says so, until they are destroyed."""
    autumn.then(hold(autumn), "held")
    uris = autumn.circle.uris
    assert isinstance(uris, dict)
    new = {f"new {who}": softhsm.make_token() for who in away}
    uris |= new
    instead = {who: new[f"new {who}"] for who in away}
    made = autumn.then(lambda v: v.custodians.rotate(without(autumn, *away), ALONE, instead=instead), "rotated")
    told = {share["name"]: share["destroyed"] for share in made.value["old_shares"]}
    assert told == {who: who not in away for who in CUSTODIANS}
    holders = (*CUSTODIANS, *new)
    shares = autumn.shares(*holders)
    autumn.is_true(made, shares)
    assert ("held.db" in autumn.opening(shares)) == (len(away) >= 2)
    assert made.text.count("NOT DESTROYED, the token was not used") == len(away)

    with autumn.practice.open() as vault:
        synced = vault.tokens.sync(ALONE, {who: uris[who] for who in away[:1]}, lambda name: pin)
        assert len(synced.shares_left) == len(away) - 1
    made = autumn.then(lambda vault: vault.months.shred([Month.parse("2026-09")], ALONE), "shredded")
    shares = autumn.shares(*holders)
    autumn.is_true(made, shares)
    assert ("held.db" in autumn.opening(shares)) == (len(away) >= 3)
    made = autumn.then(rotate, "again")
    autumn.is_true(made, autumn.shares(*holders))


def test_after_a_use_the_key_is_on_a_machine_that_nobody_can_ask(autumn: Autumn) -> None:
    """Shares that are destroyed do not take it back: the certificate names those copies for good."""
    autumn.then(hold(autumn), "held")
    circle = autumn.circle
    kept = autumn.shares(*CUSTODIANS)  # as that machine had them
    request = circle.request("EXP-1")
    circle.decrypt(request, [circle.approve(request, who) for who in ("ana", "berta")])
    made = autumn.then(rotate, "rotated")
    autumn.is_true(made, kept | autumn.shares(*CUSTODIANS))
    assert "held.db" not in autumn.opening(autumn.shares(*CUSTODIANS))
    made = autumn.then(rotate, "again")
    told: dict[str, Any] = {backup["name"]: backup["ceremony"] for backup in made.value["backups"]}
    assert bool(told["held.db"])
    assert not told["before.db"]
    assert not told["rotated.db"]


def test_a_recovery_names_what_opens(autumn: Autumn) -> None:
    autumn.then(hold(autumn), "held")
    circle = autumn.circle
    request = circle.request()
    made = circle.recover(request, [circle.approve(request, who) for who in ("ana", "berta")])
    kept = autumn.shares(*CUSTODIANS)
    autumn.is_true(made, kept)
    told = {backup["name"]: backup["opened_by"] for backup in made.value["backups"]}
    assert told["held.db"] == ["doctor"]  # the lost token, if it is found, with its PIN
    circle.practice.clock.forward(hours=1)
    autumn.is_true(autumn.then(rotate, "rotated"), kept | autumn.shares(*CUSTODIANS))
    with pytest.raises(MedcryptError):
        circle.practice.open(token="doctor")
