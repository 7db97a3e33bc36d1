"""Shares that are not what they should be, ceremonies that come to nothing, and an escrow that stays current."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.crypto import shamir, xwing
from medcrypt_hsm.errors import (
    Malformed,
    MedcryptError,
    NotAuthentic,
    PinNeeded,
    TokenUnfit,
    VaultDamaged,
    VaultRolledBack,
)
from medcrypt_hsm.lifecycle import escrow
from medcrypt_hsm.lifecycle import shares as sharing
from medcrypt_hsm.lifecycle.custody_upkeep import destroy_old
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import approval_name, share_kek_name, share_name
from medcrypt_hsm.vault.audit.statements import Approval, read
from medcrypt_hsm.vault.choosing import peek
from tests.support.breakglass import CUSTODIANS, Circle, pin_of
from tests.support.checkout import FULL
from tests.support.practice import Practice, pin
from tests.support.softhsm import USER_PIN, SoftHsm
from tests.support.store import open_at, whole

Objects = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    return {name: softhsm.make_token() for name in ("doctor", "spare", *CUSTODIANS, "dora", "nueva")}


def made(directory: Path, uris: dict[str, str]) -> Circle:
    practice = Practice(directory / "practice" / "vault.db", uris["doctor"])
    practice.clock.set("2026-09-20")
    practice.create().close()
    return Circle(practice, uris, directory / "homes")


@pytest.fixture
def circle(tmp_path: Path, uris: dict[str, str]) -> Circle:
    return made(tmp_path, uris)


def vault_id(circle: Circle) -> bytes:
    with closing(open_at(circle.practice.path)) as file:
        return peek(file).vault_id


def ceremony(circle: Circle) -> bytes:
    with closing(open_at(circle.practice.path)) as file:
        present = peek(file).breakglass
    assert present is not None
    return present.ceremony


def objects(circle: Circle, who: str) -> Objects:
    """What a custodian's token holds of this vault."""
    with open_token(circle.uris[who], pin) as token:
        mine = [name for name in token.names() if vault_id(circle).hex() in name]
        return {name: [*token.read_objects(name)] for name in sorted(mine)}


# A share that was altered. In: the present ceremony's record, as JSON. Out: what the token shows instead.


@dataclass
class Scene:
    circle: Circle
    copies: dict[str, bytes]  # each custodian's record
    older: dict[str, bytes]  # those of the ceremony before

    @contextmanager
    def showing(self, who: str, *values: bytes) -> Iterator[None]:
        name = share_name(vault_id(self.circle), ceremony(self.circle))

        def put(*wanted: bytes) -> None:
            with open_token(self.circle.uris[who], pin) as token:
                token.destroy(name)
                for value in wanted:
                    token.put_object(name, value)

        put(*values)
        try:
            yield
        finally:
            put(self.copies[who])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, uris: dict[str, str]) -> Scene:
    circle = made(tmp_path_factory.mktemp("scene"), uris)

    def records() -> dict[str, bytes]:
        name = share_name(vault_id(circle), ceremony(circle))
        return {who: objects(circle, who)[name][0] for who in CUSTODIANS}

    circle.ceremony()
    older = records()
    circle.practice.clock.forward(hours=1)
    circle.rotate()
    return Scene(circle, records(), older)


Alter = Callable[[Scene, dict[str, Any]], object]


def with_(**members: Any) -> Alter:
    return lambda scene, record: record | members


def flipped(text: str, at: int) -> str:
    data = bytearray(bytes.fromhex(text))
    data[at] ^= 1
    return data.hex()


ALTERED: dict[str, tuple[Alter, type[MedcryptError], str]] = {
    "its wrapped share, first byte": (
        lambda s, r: r | {"wrapped": flipped(r["wrapped"], 0)}, NotAuthentic, "share of ana was altered"),
    "its wrapped share, last byte": (
        lambda s, r: r | {"wrapped": flipped(r["wrapped"], -1)}, NotAuthentic, "share of ana was altered"),
    "no wrapped share": (with_(wrapped=""), NotAuthentic, "share of ana was altered"),
    "its commitment": (
        lambda s, r: r | {"commitment": flipped(r["commitment"], 0)}, NotAuthentic, "share of ana was altered"),
    "whose log it is of": (with_(audit_key="00" * 32), NotAuthentic, "share of ana was altered"),
    "its number": (with_(x=2), NotAuthentic, "share of ana was altered"),
    "its threshold": (with_(threshold=3), NotAuthentic, "share of ana was altered"),
    "number nought": (with_(x=0), Malformed, "cannot be read"),
    "a number beyond all": (with_(x=4), Malformed, "cannot be read"),
    "a threshold of one": (with_(threshold=1), Malformed, "cannot be read"),
    "a number that is true": (with_(x=True), Malformed, "cannot be read"),
    "another version": (with_(version=2), Malformed, "cannot be read"),
    "a member more": (with_(more=""), Malformed, "cannot be read"),
    "JSON as deep as it goes": (lambda s, r: b"[" * 1500, Malformed, "cannot be read"),
    "not JSON": (lambda s, r: os.urandom(300), Malformed, "cannot be read"),
    "another custodian's record": (lambda s, r: s.copies["berta"], NotAuthentic, "share of berta was altered"),
    "the same in this one's name": (
        lambda s, r: json.loads(s.copies["berta"]) | {"name": "ana", "x": 1}, NotAuthentic, "share of ana was altered"),
    "that of the ceremony before": (lambda s, r: s.older["ana"], Malformed, "is another's"),
    "the same under this one's number": (
        lambda s, r: json.loads(s.older["ana"]) | {"ceremony": r["ceremony"]}, NotAuthentic, "share of ana was"),
    "another vault's": (with_(vault="00" * 16), Malformed, "is another's"),
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERED)
def test_a_share_that_was_altered(scene: Scene, what: str) -> None:
    """Nothing is approved with it, no drill succeeds, and the practice's own drill names whose it is."""
    circle = scene.circle
    alter, error, words = ALTERED[what]
    value = alter(scene, json.loads(scene.copies["ana"]))
    request = circle.request("EXP-1")
    with scene.showing("ana", value if isinstance(value, bytes) else canonical(value)):
        with pytest.raises(error, match=words):
            circle.approve(request, "ana")
        if what not in ("that of the ceremony before", "another vault's"):  # of which a drill knows nothing
            with pytest.raises((error, TokenUnfit)):
                circle.drill("ana")
        # The practice knows the commitment from its own log.
        expected = nullcontext() if what == "its commitment" else pytest.raises((error, NotAuthentic))
        with circle.practice.open() as vault, expected:
            vault.custodians.reconstruct({n: circle.uris[n] for n in ("ana", "berta")}, pin_of, OtherTokens(pin))
    circle.approve(request, "ana")
    with circle.practice.open() as vault:
        vault.log.verify()


def test_a_record_put_beside_the_true_one(scene: Scene) -> None:
    """Whoever can add objects to a token can be in the way; they bring no share in."""
    circle = scene.circle
    other = canonical(json.loads(scene.copies["ana"]) | {"commitment": "00" * 32})
    true = bytes.fromhex(json.loads(scene.copies["ana"])["commitment"])
    request = circle.request("EXP-1")
    for values in ((scene.copies["ana"], other), (other, scene.copies["ana"]), (scene.copies["ana"],) * 2):
        with scene.showing("ana", *values), suppress(NotAuthentic):
            assert read(circle.approve(request, "ana"), Approval).told.commitment == true


def test_a_share_without_its_key(scene: Scene, tmp_path: Path, uris: dict[str, str]) -> None:
    circle = made(tmp_path, uris)
    circle.ceremony()
    request = circle.request("EXP-1")
    with open_token(uris["ana"], pin) as token:
        token.destroy(share_kek_name(vault_id(circle), ceremony(circle)))
    with pytest.raises(TokenUnfit, match="no KEK for the share of ana"):
        circle.approve(request, "ana")
    with open_token(uris["berta"], pin) as token:
        token.destroy(approval_name(vault_id(circle), ceremony(circle)))
    with pytest.raises(TokenUnfit, match="no approval key"):
        circle.approve(request, "berta")
    with pytest.raises(TokenUnfit, match="no KEK for the share of ana"), circle.practice.open() as vault:
        vault.custodians.reconstruct({n: uris[n] for n in CUSTODIANS}, pin_of, OtherTokens(pin))


def test_too_few_shares_or_those_of_two_ceremonies_open_nothing(circle: Circle) -> None:
    """The arithmetic gives some seed of any shares. The key on record and the escrow tell that it is another."""

    def shares() -> dict[int, bytes]:
        found = {}
        for who in CUSTODIANS:
            with open_token(circle.uris[who], pin) as token:
                record = sharing.read_record(token, vault_id(circle), ceremony(circle))
                found[record.x] = sharing.open_share(token, record).value
        return found

    def opens(some: dict[int, bytes]) -> bool:
        with closing(open_at(circle.practice.path)) as file:
            state = peek(file)
        assert state.breakglass is not None
        seed = shamir.combine(some)
        same = xwing.public_key(seed.value) == state.breakglass.key
        sealed = state.breakglass.escrow.sealed, state.vault_id, state.generation, state.breakglass.ceremony
        try:
            escrow.open_keyset(seed, *sealed)
        except VaultDamaged:
            assert not same
            return False
        assert same
        return True

    circle.ceremony(threshold=3)
    old = shares()
    assert not any(opens({x: old[x], y: old[y]}) for x, y in ((1, 2), (1, 3), (2, 3)))
    assert not opens({1: old[1]})
    assert opens(old)
    assert not opens({1: old[1], 2: old[2], 3: old[1]})
    with pytest.raises(ValueError, match="x is 1 to 255"):  # it would be the seed itself
        opens({0: old[1], 2: old[2], 3: old[3]})
    circle.practice.clock.forward(hours=1)
    circle.rotate()
    new = shares()
    assert opens(new)
    assert not opens(old)
    for x in old:
        assert not opens(new | {x: old[x]})
        assert not opens(old | {x: new[x]})


# A ceremony that comes to nothing


def test_a_file_that_was_rolled_back_destroys_no_share(circle: Circle, uris: dict[str, str]) -> None:
    """The doctor's token would not open it; a spare one that was away since opens it, and the shares tell better."""
    practice = circle.practice
    practice.add("spare", uris["spare"], using="doctor")
    older = whole(practice.path, practice.path.with_name("older.db"))
    shares = {name: uris[name] for name in CUSTODIANS}
    with practice.open(token="doctor") as vault:
        vault.custodians.ceremony(shares, 2, pin_of, OtherTokens(pin, without=("spare",)))
    before = {who: objects(circle, who) for who in CUSTODIANS}
    assert all(len(held) == 3 for held in before.values())
    with practice.open(older, token="spare") as vault, pytest.raises(VaultRolledBack, match="holds a share of") as said:
        vault.custodians.ceremony(shares, 2, pin_of, OtherTokens(pin, without=("doctor",)))
    assert said.value.exit_code == 7
    with practice.open(older, token="spare") as vault:
        assert vault.custodians.present is None
        vault.log.verify()
    assert {who: objects(circle, who) for who in CUSTODIANS} == before
    request = circle.request()
    circle.recover(request, [circle.approve(request, who) for who in ("ana", "berta")])


def test_what_an_interrupted_ceremony_left_is_destroyed(circle: Circle, uris: dict[str, str]) -> None:
    """Whole shares and halves of them; not another vault's, and not what only looks like one."""
    circle.ceremony()
    id_, present = vault_id(circle), ceremony(circle)
    other, ghost, half = os.urandom(16), os.urandom(6), os.urandom(6)
    with circle.practice.open() as vault, open_token(uris["ana"], pin) as token:
        unlocked = vault._unlocked
        history = unlocked.log.sequence, unlocked.log.head
        for whose, which in ((id_, ghost), (other, ghost)):
            token.make_kek(share_kek_name(whose, which), "aes-kw")
            token.make_signing_key(approval_name(whose, which))
            record = sharing.ShareRecord(whose, which, unlocked.registered.id, 1, 2, 3, "ana", *history)
            sharing.place(token, record, os.urandom(32))
        token.make_kek(share_kek_name(id_, half), "aes-kw")
    circle.practice.clock.forward(hours=1)
    circle.rotate()
    with open_token(uris["ana"], pin) as token:
        assert sharing.ceremonies_on(token, id_) == [ceremony(circle)] != [present]
        assert len([name for name in token.names() if other.hex() in name]) == 3
        for name in token.names():
            if other.hex() in name:
                token.destroy(name)


def test_shares_that_were_destroyed_and_not_recorded(circle: Circle, uris: dict[str, str]) -> None:
    """Whatever came between: the next sync knows the token, proves it once more, and records it."""
    circle.ceremony()
    practice, old = circle.practice, ceremony(circle)
    practice.clock.forward(hours=1)

    def of_the_new_ones(name: str) -> PinPrompt:
        def prompt(info: TokenInfo) -> str:
            if any(f"token={info.label}?" in uris[who] for who in CUSTODIANS):
                raise PinNeeded("Ana is on holiday, and so are the others", "")
            return USER_PIN

        return prompt

    with practice.open() as vault:
        instead = dict(zip(CUSTODIANS, (uris["dora"], uris["spare"], uris["nueva"]), strict=True))
        made = vault.custodians.rotate(of_the_new_ones, OtherTokens(pin), instead=instead)
        assert [share["destroyed"] for share in made.value["old_shares"]] == [False] * 3
        with open_token(uris["ana"], pin) as token:
            assert [share.name for share in destroy_old(vault._unlocked, [token])] == ["ana"]
        assert [name.split()[1] for name in objects(circle, "ana")] == ["approval"]
        synced = vault.tokens.sync(OtherTokens(pin), {who: uris[who] for who in ("ana", "berta")}, pin_of)
        assert synced.shares_destroyed == (f"{old.hex()}:ana", f"{old.hex()}:berta")
        assert synced.shares_left == (f"{old.hex()}:carla",)
        vault.log.verify()
    assert objects(circle, "ana") == objects(circle, "berta") == {}
    assert len(objects(circle, "carla")) == 3


# The escrow stays current. In: a vault with a ceremony in its second month. Each row is one more step.


def shred(vault: Vault, company: OtherTokens) -> None:
    vault.months.shred([Month.parse("2026-09")], company)


def erase(vault: Vault, company: OtherTokens) -> None:
    vault.patients.erase("EXP-2", company)


def add(vault: Vault, uris: dict[str, str]) -> None:
    vault.tokens.add("spare", uris["spare"], pin=pin)


def test_recovery_works_whatever_was_done_since(tmp_path: Path, uris: dict[str, str]) -> None:
    """From a copy of each state: everything that is kept opens, and nothing that was destroyed."""
    circle = made(tmp_path, uris)
    practice, texts = circle.practice, {}
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        practice.pair(vault, "EXP-2")
    for month in ("2026-09", "2026-10", "2026-11"):
        practice.clock.set(f"{month}-20")
        with practice.open() as vault:
            vault.months.open()
            for patient in ("EXP-1", "EXP-2"):
                (texts[patient, month],) = vault.encrypt(patient, f"{patient} {month}")
        if month == "2026-10":
            circle.ceremony()
    alone, both = OtherTokens(pin), OtherTokens(pin)
    away = OtherTokens(pin, without=("spare",))
    gone: set[tuple[str, str]] = set()
    steps: tuple[tuple[str, Callable[[Vault], object], set[tuple[str, str]]], ...] = (
        ("nothing", lambda vault: None, set()),
        ("shred", lambda vault: shred(vault, alone), {(p, "2026-09") for p in ("EXP-1", "EXP-2")}),
        ("add-token", lambda vault: add(vault, uris), set()),
        ("erase", lambda vault: erase(vault, away), {("EXP-2", month) for month in ("2026-09", "2026-10", "2026-11")}),
        ("sync", lambda vault: vault.tokens.sync(both), set()),
        ("remove-token", lambda vault: vault.tokens.remove("spare", both), set()),
        ("rotate", lambda vault: vault.custodians.rotate(pin_of, both), set()),
    )
    for name, do, lost in steps:
        practice.clock.forward(minutes=10)
        with practice.open(token="doctor") as vault:
            do(vault)
            vault.log.verify()
        gone |= lost
        if name not in ("shred", "sync", "remove-token") and not FULL:
            continue
        (tmp_path / name).mkdir(mode=0o700)
        path = whole(practice.path, tmp_path / name / "vault.db")
        aside = Circle(replace(practice, path=path), uris, tmp_path / name / "homes")
        request = aside.request()
        aside.recover(request, [aside.approve(request, who) for who in ("ana", "carla")])
        with aside.practice.open() as vault:
            assert vault.token_name == "nueva"
            opened = vault.decrypt("\n".join(texts.values()), archive=True)
            assert {key for key, one in zip(texts, opened, strict=True) if one.text} == set(texts) - gone, name
            assert {one.text for one in opened} - {None} == {" ".join(key) for key in set(texts) - gone}
            vault.log.verify()
        assert phone.read(texts["EXP-1", "2026-11"]) == ["EXP-1 2026-11"]
        with open_token(uris["nueva"], pin) as token:  # for the next step
            for held in token.names():
                token.destroy(held)
