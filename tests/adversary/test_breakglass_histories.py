"""Break-glass against other histories: a whole forged vault, files put back, a session that goes on meanwhile.

And against the clock: what began in time and ends behind the request's end.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from medcrypt_hsm.breakglass import emergency
from medcrypt_hsm.errors import AuditBroken, MedcryptError, NotAuthentic, VaultError
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.messages import wire
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.statements import Approval, Request, read
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.inspection import verify_file
from medcrypt_hsm.vault.keyset import PATIENT
from medcrypt_hsm.vault.store.rows import Location
from tests.support.added_token import on_token
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.checkout import FULL
from tests.support.eventful_vault import insert
from tests.support.forged_vault import forge
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.rogue import Rogue
from tests.support.softhsm import SoftHsm
from tests.support.store import by_hand, open_at, whole


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    return {name: softhsm.make_token() for name in ("doctor", "spare", *CUSTODIANS, "nueva")}


@pytest.fixture
def circle(tmp_path: Path, uris: dict[str, str]) -> Circle:
    """Two tokens, two patients, a ceremony."""
    practice = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    practice.clock.set("2026-11-20")
    practice.create().close()
    practice.add("spare", uris["spare"], using="doctor")
    made = Circle(practice, uris, tmp_path / "homes")
    with practice.open(token="doctor") as vault:
        for patient in ("EXP-1", "EXP-2"):
            practice.pair(vault, patient)
        practice.copy("unheld.db")
    shares = {name: uris[name] for name in CUSTODIANS}
    with practice.open(token="doctor") as vault:
        vault.custodians.ceremony(shares, 2, lambda name: pin, OtherTokens(pin))
    return made


# Another vault under the same ids


def forged(circle: Circle, path: Path, commitments: str) -> Practice:
    """By somebody with a copy of the file and no token: vault, ceremony and break-glass key have the true ids, the
    custodians their true approval keys, and the escrow holds the forger's keyset. What the forger cannot do is sign."""
    with closing(open_at(circle.practice.path)) as file:
        keys = [token.audit_key for token in peek(file).tokens.values()]
    evil, entries = forge(circle.practice.path, path, commitments=commitments == "true")
    assert verify_file(path, [evil.spki]).entries == entries  # in itself it is all right
    with pytest.raises(AuditBroken, match="never introduced the given key"):
        verify_file(path, keys)
    return Practice(path, circle.practice.uri, circle.practice.clock)


def used(circle: Circle, request: bytes, approvals: list[bytes], patient: str) -> object:
    return circle.decrypt(request, approvals) if patient else circle.recover(request, approvals)


@pytest.mark.parametrize("commitments", ["true", "the forger's"])
@pytest.mark.parametrize("patient", ["EXP-1", ""])
def test_a_whole_forged_vault(circle: Circle, tmp_path: Path, patient: str, commitments: str) -> None:
    """Everybody is honest, and the requester was given the wrong file: the approvals say whose log it must be."""
    elsewhere = Circle(forged(circle, tmp_path / "forged" / "vault.db", commitments), circle.uris, circle.home)
    circle.approve(circle.request(patient), "ana")  # of the true file, which stands higher
    request = elsewhere.request(patient)
    approvals = [elsewhere.approve(request, who) for who in ("ana", "berta")]
    told = elsewhere.told[0]
    assert told.seen_before > told.request.told.sequence, "nobody could have told Ana"
    before = elsewhere.practice.path.read_bytes()
    with pytest.raises(NotAuthentic, match="held in another log"):
        used(elsewhere, request, approvals, patient)
    assert elsewhere.practice.path.read_bytes() == before
    with pytest.raises(MedcryptError, match=r"another history|from before the ceremony"):
        used(circle, request, approvals, patient)


def test_a_request_made_with_a_copy_from_before_the_ceremony(circle: Circle) -> None:
    aside = Circle(
        Practice(circle.practice.path.with_name("unheld.db"), "", circle.practice.clock), circle.uris, circle.home
    )
    request = circle.request()
    approvals = [circle.approve(request, who) for who in ("ana", "berta")]
    with pytest.raises(BreakGlassRefused, match="from before the ceremony"):
        aside.recover(request, approvals)


# A session that goes on


def test_a_session_goes_on_beside_a_guest(circle: Circle) -> None:
    practice = circle.practice
    with practice.open(token="doctor") as vault:
        (wire_text,) = vault.encrypt("EXP-1", "antes")
        request = circle.request("EXP-1")
        approvals = [circle.approve(request, who) for who in ("ana", "carla")]
        assert statuses(circle.decrypt(request, approvals, wire_text)) == ["ok"]
        assert [use.entry for use in unlocked(vault).uses] == []  # not looked yet
        assert all(not p.compromised for p in vault.patients.list())
        assert vault.encrypt("EXP-1", "después")
        (use,) = unlocked(vault).state.uses
        assert (use.scope, use.phase, use.answered) == ("patient", "done", "")
        assert all(p.compromised for p in vault.patients.list())
        assert statuses(vault.decrypt(wire_text)) == ["seen"]
        vault.log.verify()
        vault.log.anchor()
    with practice.open(token="spare") as vault:
        assert vault.encrypt("EXP-2", "del otro")
        vault.log.verify()


def test_a_session_goes_on_inside_of_a_guests_run(circle: Circle) -> None:
    """The doctor's entry ends the run. Another token of the vault unlocks in the middle of one."""
    practice = circle.practice
    with practice.open(token="doctor") as vault:
        rogue = Rogue.asks(circle, practice.path).approved_by("ana", "berta").opens()
        with practice.open(token="spare") as other:
            other.log.verify()
            (use,) = unlocked(other).uses
        rogue.append(rogue.sealed("message.decrypt", {"messages": []}, outcome="intended"))
        vault.encrypt("EXP-1", "en medio")
        assert [known.request for known in unlocked(vault).state.uses] == [use.request] == [rogue.request.id]
        again = Rogue.asks(circle, practice.path).approved_by("berta", "carla").opens()  # a second one, not closed
        vault.log.anchor()
        assert len(unlocked(vault).state.uses) == 2
        vault.log.verify()
        again.append(again.close())
        with pytest.raises(AuditBroken, match=r"that there is not|unknown key"):
            vault.encrypt("EXP-1", "y otra vez")


def test_no_row_that_a_guest_forged_hides_that_a_pairing_is_compromised(circle: Circle) -> None:
    """With the keyset a row can be sealed again, under the entry that it is of: no reader sees that."""
    practice = circle.practice
    rogue = Rogue.asks(circle, practice.path).approved_by("ana", "berta").opens()
    keyset = rogue.keyset()
    with closing(open_at(practice.path)) as file:
        for row in file.all_sealed(PATIENT):
            value = keyset.open(row) | {"added": "2099-01-01T00:00:00Z", "entry": 1_000_000}
            forged = keyset.seal(PATIENT, row.pairing, row.sequence, value, lookup=row.lookup)
            with by_hand(practice.path) as db:
                insert(db, "sealed", tuple(forged))
    rogue.append(rogue.close())
    practice.clock.forward(hours=1)
    with practice.open(token="doctor") as vault:
        vault.custodians.rotate(lambda name: pin, OtherTokens(pin))
        assert [(p.added, p.compromised) for p in vault.patients.list()] == [("2099-01-01T00:00:00Z", True)] * 2
        vault.patients.repair("EXP-1")
        vault.log.verify()


# Files put back


def test_a_use_is_not_forgotten_by_a_restore(circle: Circle) -> None:
    practice, directory = circle.practice, circle.practice.path.parent
    with practice.open(token="doctor") as vault:
        vault.backup(directory / "before.db")
    rogue = Rogue.asks(circle, practice.path).approved_by("ana", "berta").opens()
    inside = whole(practice.path, directory / "inside.db")  # as somebody copies the file
    rogue.append(rogue.close())
    for noted in (False, True):
        with pytest.raises(VaultError, match="break-glass was used since"):
            practice.restore(directory / "before.db", token="doctor")
        with practice.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "noted" if noted else "seen")
    with practice.restore(inside, token="doctor") as vault:
        (use,) = unlocked(vault).state.uses
        assert use.request == rogue.request.id
        assert all(p.compromised for p in vault.patients.list())
        vault.log.verify()
    with practice.open(token="spare") as vault:  # whose anchor is older than either
        vault.log.verify()
    practice.path.unlink()  # what cannot be read is what restoring is for
    with practice.restore(directory / "before.db", token="doctor") as vault:
        assert unlocked(vault).state.uses == ()
        vault.log.verify()


# The clock


@dataclass
class Running:
    """A clock that goes on by so much each time that it is looked at."""

    at: datetime
    step: timedelta

    def __call__(self) -> datetime:
        self.at += self.step
        return self.at


@pytest.mark.parametrize("minutes", range(20, 65, 5) if FULL else (25, 50, 60))
def test_a_reading_ends_with_its_request(circle: Circle, minutes: int) -> None:
    """Wherever in the run the request ends: nothing is left in the log that the doctor's token would not vouch for."""
    practice = circle.practice
    with practice.open(token="doctor") as vault:
        (text,) = vault.encrypt("EXP-1", "antes")
    request = circle.request("EXP-1", hours=1)
    approvals = [read(circle.approve(request, who), Approval) for who in ("ana", "berta")]
    clock = Running(practice.clock(), timedelta(minutes=minutes / 3))
    hand = replace(circle.hand("nueva"), clock=clock)
    with suppress(BreakGlassRefused):
        emergency.decrypt(Location.parse(practice.path), hand, read(request, Request), approvals, wire.find(text))
    practice.clock.forward(hours=1, minutes=1)
    with practice.open(token="doctor") as vault:
        vault.log.verify()
        assert vault.encrypt("EXP-1", "después")
        assert len(unlocked(vault).state.uses) == 1
        vault.log.verify()
    assert on_token(practice, circle.uris["nueva"]) == []


def test_what_has_ended_is_taken_off_the_token(circle: Circle) -> None:
    request = circle.request("EXP-1", hours=1)
    approvals = [circle.approve(request, who) for who in ("ana", "berta")]
    assert on_token(circle.practice, circle.uris["nueva"]) == ["request", "request-kek", "request-sign"]
    circle.practice.clock.forward(hours=2)
    with pytest.raises(BreakGlassRefused, match="BG-4"):
        circle.decrypt(request, approvals)
    assert on_token(circle.practice, circle.uris["nueva"]) == []
