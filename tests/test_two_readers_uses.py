"""Break-glass in the log (docs/spec/breakglass.md): each log is accepted or refused by both readers.

One fault each, and for each what package and script say: a log that is refused for another reason proves nothing. The
rows and the custody: tests/test_two_readers_custody.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support_breakglass_builder import later
from tests.support_two_readers import SEPTEMBER, compressed, judge, with_key
from tests.support_two_readers_breakglass import Emergency
from tests.support_vault_builder import SoftToken

ACCEPTED: dict[str, Callable[[Emergency], object]] = {
    # One patient
    "opened": lambda log: log.open(log.who),
    "and something done": lambda log: log.used(),
    "closed": lambda log: (log.used(), log.close(log.who)),
    "closed, and noted": lambda log: (log.used(), log.close(log.who), log.sealed(log.doctor)),
    "not closed, and noted": lambda log: log.noted(),
    "noted by a re-key's intent": lambda log: (log.used(), log.both()),
    "noted by a restore": lambda log: (log.used(), log.restore(log.reserve)),
    "noted, and a newcomer": lambda log: (log.used(), log.newcomer(SoftToken("third"))),
    "in the middle of a re-key": lambda log: (log.intend(log.doctor), log.used(), log.commit(log.doctor, log.reserve)),
    "by all custodians": lambda log: log.by_name("anna", "ben", "carla"),
    "by others": lambda log: log.by_name("carla", "ben"),
    "again, by another request": lambda log: (log.used(), log.close(log.who), log.open(log.other)),
    "the second guest at work": lambda log: log.two_guests(log.other),
    "two at once, and both noted": lambda log: (log.two_guests(log.other), log.sealed(log.doctor)),
    "answered by a rotation": lambda log: log.noted().rotated(),
    "noted and answered at once": lambda log: (
        log.prepared("dora", "emil"), log.intend(log.doctor, reason="rotate"), log.used(),
        log.commit(log.doctor, log.reserve),
    ),
    "answered once": lambda log: (log.noted().rotated(), log.sealed(log.doctor), log.rotated()),
    "behind a rotation": lambda log: log.rotated().used(),
    "behind a re-key": lambda log: (log.both(shred=(SEPTEMBER,)), log.used()),
    # The practice
    "the practice": lambda log: log.practice(),
    "the practice, and it signs": lambda log: log.practice().sealed(log.new),
    "the practice, and a doctor signs": lambda log: log.practice().sealed(log.doctor),
    "behind one patient": lambda log: (log.open(log.other), log.practice()),
    "a re-key of another reason before": lambda log: (log.practice(), log.rekey(log.doctor, log.reserve, log.new)),
    "the new token does its work": lambda log: (log.practice(), log.newcomer(SoftToken("third")), log.restore(log.new)),
    "recovered": lambda log: log.recovered(),
    "recovered, not ended": lambda log: log.recovered(end=False),
    "the recovery undone": lambda log: (log.practice().intend(log.new, reason="recover"), log.undo(log.new)),
    "the recovery undone by a doctor": lambda log: (
        log.practice().intend(log.new, reason="recover"), log.undo(log.doctor)
    ),
    "recovered, the reserve was removed before": lambda log: log.retired().recovered(log.doctor),
    "recovered and rotated": lambda log: log.recovered().ceremony(log.new, reason="rotate"),
    "rotated and recovered": lambda log: (
        log.practice().ceremony(log.new, reason="rotate"), log.recover(log.new, log.doctor, log.reserve)
    ),
    "recovered twice": lambda log: (
        log.recovered(),
        log.open(log.other, new=(new := SoftToken("third"))),
        log.recover(new, log.new),
    ),
    "opened twice, recovered by the first": lambda log: (
        log.practice(),
        log.open(log.other, new=(new := SoftToken("third"))),
        log.recover(log.new, log.doctor, log.reserve, new),
    ),
    # Times
    "a request of one second": lambda log: log.asking(expires=later(log.now(), seconds=1)),
    "in its last second": lambda log: log.asking(created=later(log.now(), days=-3), expires=log.now()),
    "by a clock that is a day behind": lambda log: log.asking(
        created=later(log.now(), days=1), expires=later(log.now(), days=4)
    ),
    "approved by a clock that is a day ahead": lambda log: log.approving(time=later(log.now(), days=1)),
    "approved by a clock that is a day behind": lambda log: log.approving(time=later(log.now(), days=-1)),
    "closed in the last second": lambda log: (
        log.used(), log.close(log.who, time=later(log.rows[6].time, days=3))
    ),
    "asked with the ceremony's own entry": lambda log: log.asking(sequence=5, hash=log.rows[4].hash.hex()),
    "asked with an entry of one who was removed": lambda log: (
        row := log.sealed(log.reserve), log.retired(), log.asking(sequence=row.sequence, hash=row.hash.hex())
    ),
}  # fmt: skip

# name: fault, what the package says of it, what the script says
REFUSED: dict[str, tuple[Callable[[Emergency], object], str, str]] = {
    # The request
    "of another vault": (lambda log: log.asking(vault="00" * 16), "", ""),
    "of another ceremony": (lambda log: log.asking(ceremony="00" * 6), "", ""),
    "of the ceremony before": (
        lambda log: (r := log.request(log.who), log.rotated(), log.open(log.who, request=r)), "", ""
    ),
    "signed by another": (lambda log: log.asking(by=log.other), "", ""),
    "of another signer": (lambda log: log.asking(signer=log.other.spki.hex(), by=log.other), "", ""),
    "a signature too short": (
        lambda log: log.told_as(lambda request, _: {"request": request.value | {"signature": "ab" * 63}}), "", ""
    ),
    "a signature in upper case": (
        lambda log: log.told_as(
            lambda request, _: {"request": request.value | {"signature": request.value["signature"].upper()}}
        ), "", "",
    ),
    "a request that tells more": (
        lambda log: log.told_as(lambda request, _: {"request": request.value | {"enclosure": ""}}), "", ""
    ),
    "a request that is text": (
        lambda log: log.told_as(lambda request, _: {"request": request.value["statement"]}), "", ""
    ),
    "a statement that is an object": (
        lambda log: log.told_as(lambda request, _: {"request": request.value | {"statement": {}}}), "", ""
    ),
    "spaces in it": (lambda log: log.asking_in(lambda text: text.replace(b",", b", ", 1)), "", ""),
    "a line end behind it": (lambda log: log.asking_in(lambda text: text + b"\n"), "", ""),
    "a member twice": (lambda log: log.asking_in(lambda text: text[:-1] + b',"version":1}'), "", ""),
    "a number with a point": (lambda log: log.asking_in(lambda text: text.replace(b":1}", b":1.0}")), "", ""),
    "half of a character": (
        lambda log: log.asking_in(lambda text: text.replace(b'"scope":"patient"', b'"scope":"\\ud800"')), "", ""
    ),
    "an array": (lambda log: log.asking_in(lambda text: b"[" + text + b"]"), "", ""),
    "nested without end": (lambda log: log.asking_in(lambda text: b"[" * 60000), "", ""),
    "of the first year": (
        lambda log: log.asking(created="0001-01-01T00:00:00Z", expires="0001-01-02T00:00:00Z"), "", ""
    ),
    "of the last year": (
        lambda log: log.asking(created="9999-12-30T00:00:00Z", expires="9999-12-31T23:59:59Z"), "", ""
    ),
    "nothing": (lambda log: log.asking_in(lambda text: b""), "", ""),
    "signed as another type": (lambda log: log.asking_in(lambda text: text, as_="approval"), "", ""),
    "a member more": (lambda log: log.asking(reason="an emergency"), "", ""),
    **{
        f"no {member}": (lambda log, member=member: log.asking(drop=(member,)), "", "")
        for member in (
            "ceremony", "created", "enclosed", "expires", "hash", "key", "scope", "sequence", "signer", "type",
            "vault", "version",
        )
    },
    "of another type": (lambda log: log.asking(type="medcrypt/breakglass/drill"), "", ""),
    "of version 2": (lambda log: log.asking(version=2), "", ""),
    "of version true": (lambda log: log.asking(version=True), "", ""),
    "an enclosure in upper case": (lambda log: log.asking(enclosed="AB" * 32), "", ""),
    "an enclosure too short": (lambda log: log.asking(enclosed="ab" * 31), "", ""),
    "a key too long": (lambda log: log.asking(key="ab" * 1217), "", ""),
    "a key that is none": (lambda log: log.asking(key=""), "", ""),
    "no scope that there is": (lambda log: log.asking(scope="everything"), "", ""),
    "a name in the clear": (lambda log: log.asking(name="emergency"), "", ""),
    "another history": (lambda log: log.asking(hash="ab" * 32), "", ""),
    "another entry of this history": (lambda log: log.asking(sequence=5), "", ""),
    "an entry from before the ceremony": (lambda log: log.asking(sequence=4, hash=log.rows[3].hash.hex()), "", ""),
    "an entry from before the rotation": (
        lambda log: (log.rotated(), log.asking(sequence=6, hash=log.rows[5].hash.hex())), "", ""
    ),
    "an entry that is to come": (lambda log: log.asking(sequence=7, hash="ab" * 32), "", ""),
    "an entry of a guest": (
        lambda log: (row := log.open(log.other), log.asking(sequence=row.sequence, hash=row.hash.hex())), "", ""
    ),
    "an entry of a guest whose run has ended": (
        lambda log: (
            row := log.open(log.other), log.sealed(log.doctor),
            log.asking(sequence=row.sequence, hash=row.hash.hex()),
        ), "", "",
    ),
    "an entry that opened the practice, and a doctor's behind it": (
        lambda log: (
            row := log.open(log.other, new=log.new), log.sealed(log.doctor),
            log.asking(sequence=row.sequence, hash=row.hash.hex()),
        ), "", "",
    ),
    "an entry that opened the practice": (
        lambda log: (
            row := log.open(log.other, new=SoftToken("third")), log.asking(sequence=row.sequence, hash=row.hash.hex())
        ), "", "",
    ),
    "an entry in text": (lambda log: log.asking(sequence="6"), "", ""),
    "entry 0": (lambda log: log.asking(sequence=0), "", ""),
    "a hash that is none": (lambda log: log.asking(hash=None), "", ""),
    "a signer in another encoding": (lambda log: log.asking(signer=compressed(log.who).spki.hex()), "", ""),
    "of more than 72 hours": (lambda log: log.asking(expires=later(log.now(), days=3, seconds=1)), "", ""),
    "of no time at all": (lambda log: log.asking(expires=log.now()), "", ""),
    "a time that is none": (lambda log: log.asking(expires="2026-11-31T00:00:00Z"), "", ""),
    "a second after its end": (
        lambda log: (
            r := log.request(log.who, created=later(log.now(), days=-1), expires=later(log.now(), seconds=-1)),
            log.open(
                log.who, request=r, approvals=[log.approve(r, x, time=log.rows[-1].time) for x in ("anna", "ben")]
            ),
        ), "", "",
    ),
    "more than a day before it": (
        lambda log: (
            r := log.request(log.who, created=later(log.now(), days=1, seconds=1), expires=later(log.now(), days=2)),
            log.open(
                log.who, request=r,
                approvals=[log.approve(r, x, time=later(log.now(), days=1)) for x in ("anna", "ben")],
            ),
        ), "", "",
    ),
    # The approvals
    "one of two": (lambda log: log.by_name("anna"), "", ""),
    "the same twice": (lambda log: log.by_name("anna", "anna"), "", ""),
    "one of them twice": (lambda log: log.by_name("anna", "ben", "anna"), "", ""),
    "four of three": (lambda log: log.by_name("anna", "ben", "carla", "anna"), "", ""),
    "none": (lambda log: log.told_as(lambda *_: {"approvals": []}), "", ""),
    "in an object": (lambda log: log.told_as(lambda *_: {"approvals": {}}), "", ""),
    "of nothing": (lambda log: log.told_as(lambda _, two: {"approvals": [two[0].value, None]}), "", ""),
    "an approval that tells more": (
        lambda log: log.told_as(lambda _, two: {"approvals": [two[0].value, two[1].value | {"more": 1}]}), "", ""
    ),
    "an approval of another vault": (lambda log: log.approving(vault="00" * 16), "", ""),
    "an approval of another ceremony": (lambda log: log.approving(ceremony="00" * 6), "", ""),
    "an approval of another request": (lambda log: log.approving(log.request(log.other)), "", ""),
    "by no custodian": (lambda log: log.approving(custodian="dora"), "", ""),
    "in another's name": (lambda log: log.approving(name="carla", by=log.custodians["ben"]), "", ""),
    "with another's share": (lambda log: log.approving(x=3), "", ""),
    "with share true": (lambda log: log.approving(by=log.custodians["ben"], x=True), "", ""),
    "with a share in text": (lambda log: log.approving(x="2"), "", ""),
    "signed by another custodian": (lambda log: log.approving(by=log.custodians["carla"]), "", ""),
    "signed by a doctor": (lambda log: log.approving(by=log.doctor), "", ""),
    "approved behind its end": (
        lambda log: (
            r := log.request(log.who, created=later(log.now(), days=-2), expires=log.now()),
            log.open(log.who, request=r, approvals=[
                log.approve(r, "anna"), log.approve(r, "ben", time=later(log.now(), seconds=1))
            ]),
        ), "", "",
    ),
    "approved more than a day before it": (
        lambda log: log.approving(time=later(log.now(), days=-1, seconds=-1)), "", ""
    ),
    "approved more than a day behind the use": (
        lambda log: log.approving(time=later(log.now(), days=1, seconds=1)), "", ""
    ),
    "of another commitment": (lambda log: log.approving(commitment="ab" * 32), "", ""),
    "with another's commitment": (
        lambda log: log.approving(commitment=log.custody["custodians"][0]["commitment"]), "", ""
    ),
    "of another token's ceremony": (lambda log: log.approving(audit_key=log.reserve.id.hex()), "", ""),
    "an approver in the clear": (lambda log: log.approving(approver="ben"), "", ""),
    "approved in the first year": (lambda log: log.approving(time="0001-01-01T00:00:00Z"), "", ""),
    "approved at no time": (lambda log: log.approving(time="today"), "", ""),
    "a request for an approval": (lambda log: log.approving(type="medcrypt/breakglass/request"), "", ""),
    "an approval of version 2": (lambda log: log.approving(version=2), "", ""),
    **{
        f"an approval without {member}": (lambda log, member=member: log.approving(drop=(member,)), "", "")
        for member in (
            "audit_key", "ceremony", "commitment", "custodian", "enclosed", "request", "time", "vault", "version", "x"
        )
    },
    "by a custodian of before": (
        lambda log: (ben := log.custodians["ben"], log.rotated(), log.approving(by=ben)), "", ""
    ),
    # Who opens
    "by a doctor": (lambda log: log.open(log.doctor, token="doctor"), "", ""),
    "by a doctor, as a guest": (lambda log: log.open(log.doctor), "", ""),
    "signed by a doctor, of another's request": (lambda log: log.open(log.who, by=log.doctor, token="doctor"), "", ""),
    "by a token that was retired": (
        lambda log: (log.retired(), log.open(log.reserve)), "", ""
    ),
    "under another name": (lambda log: log.open(log.who, token="who"), "", ""),
    "under the first 7 digits": (
        lambda log: (r := log.request(log.who), log.open(log.who, request=r, token=f"bg-{r.id[:7]}")), "", ""
    ),
    "intended": (lambda log: log.open(log.who, outcome="intended"), "", ""),
    "before the entry before": (lambda log: log.open(log.who, time="2026-11-05T08:00:00Z"), "", ""),
    "used twice": (lambda log: (log.used(), log.close(log.who), log.used_again(log.who)), "", ""),
    "used twice, and noted between": (lambda log: (log.noted(), log.used_again(log.who)), "", ""),
    "another's request used again": (lambda log: (log.used(), log.close(log.who), log.used_again(log.other)), "", ""),
    "the same key again": (lambda log: (log.used(), log.close(log.who), log.open(log.who)), "", ""),
    "the same key for the practice": (lambda log: (log.used(), log.close(log.who), log.practice()), "", ""),
    "the practice's request's key for a patient": (lambda log: (log.practice(), log.open(log.who)), "", ""),
    "a guest's key introduced": (lambda log: (log.used(), log.newcomer(log.who)), "", ""),
    "a guest's name introduced": (lambda log: (log.used(), log.newcomer(SoftToken(f"bg-{log.of()[:8]}"))), "", ""),
    "a name like a guest's": (lambda log: log.newcomer(SoftToken("bg-")), "", ""),
    "a custodian's token introduced": (
        lambda log: (
            log.add_token_row(third := SoftToken("third"), serial="C2"),
            log.introduce(third, log.doctor, row=False, serial="C2"),
            log.add_keyset(third), log.sealed(log.doctor),
        ), "", "",
    ),
    "with rows that it wrote": (lambda log: log.told_as(lambda *_: {"writes": ["a"]}), "", ""),
    "with a token, of one patient": (
        lambda log: log.told_as(lambda request, _: {"token": log.opened(log.new, request)}), "", ""
    ),
    "the practice, without its token": (lambda log: log.asking(scope="practice"), "", ""),
    "a trust state of its own": (lambda log: (log.open_month("2026-12"), log.open(log.who)), "", ""),
    # Guests
    "a trust state of the guest's": (
        lambda log: (log.open(log.who), log.open_month("2026-12"), log.sealed(log.who)), "", ""
    ),
    "closed with another trust state": (
        lambda log: (log.open(log.who), log.open_month("2026-12"), log.close(log.who)), "", ""
    ),
    "behind its end": (lambda log: (log.used(), log.close(log.who), log.sealed(log.who)), "", ""),
    "behind a doctor's entry": (lambda log: (log.noted(), log.sealed(log.who)), "", ""),
    "closed behind a doctor's entry": (lambda log: (log.noted(), log.close(log.who)), "", ""),
    "closed twice": (lambda log: (log.used(), log.close(log.who), log.close(log.who)), "", ""),
    "the first guest goes on": (lambda log: log.two_guests(log.who), "", ""),
    "closed by another guest": (
        lambda log: (log.open(log.who), log.open(log.other), log.close(log.who)), "", ""
    ),
    "closed by a doctor": (
        lambda log: (log.used(), log.clear("breakglass.close", {"request": log.of()}, log.doctor)), "", ""
    ),
    "closed for another request": (lambda log: (log.used(), log.close(log.who, detail={"request": "00" * 32})), "", ""),
    "closed, with more": (lambda log: (log.used(), log.close(log.who, detail={"writes": ["a"]})), "", ""),
    "closed under another name": (lambda log: (log.used(), log.close(log.who, token="who")), "", ""),
    "closed behind the request's end": (
        lambda log: (log.used(), log.close(log.who, time=later(log.rows[6].time, days=3, seconds=1))), "", ""
    ),
    "a guest's clock goes back": (lambda log: (log.used(), log.close(log.who, time=log.rows[4].time)), "", ""),
    "a guest restores": (lambda log: (log.used(), log.restore(log.who, token=f"bg-{log.of()[:8]}")), "", ""),
    "a guest introduces": (
        lambda log: (log.used(), log.introduce(SoftToken("third"), log.who, row=False)), "", ""
    ),
    "a guest re-keys": (lambda log: (log.used(), log.intend(log.who)), "", ""),
    "a guest opens again": (lambda log: (log.used(), log.open(log.who)), "", ""),
    "a close without a use": (lambda log: log.clear("breakglass.close", {"request": "00" * 32}, log.doctor), "", ""),
    # The practice
    "its token of another id": (lambda log: log.token_told(id="00" * 32), "", ""),
    "its token of no grade": (lambda log: log.token_told(attestation="good"), "", ""),
    "its token with a KEK that it has not": (lambda log: log.token_told(kek=log.other.spki.hex()), "", ""),
    "its token, told more": (lambda log: log.token_told(writes=["a"]), "", ""),
    "its token on record as another": (lambda log: log.token_told(serial="2"), "", ""),
    "its token is a custodian's": (lambda log: log.token_told(row=True, serial="C1"), "", ""),
    "its token has a doctor's name": (lambda log: log.open(log.who, new=SoftToken("reserve")), "", ""),
    "its token has a doctor's key": (
        lambda log: log.token_told(audit_key=log.reserve.spki.hex(), id=log.reserve.id.hex()), "", ""
    ),
    "its token has the request's key": (
        lambda log: (setattr(log.new, "key", log.who.key), setattr(log.new, "spki", log.who.spki),
                     setattr(log.new, "id", log.who.id), log.practice()), "", ""
    ),
    "its token has the name that the entry has": (
        lambda log: (
            r := log.request(log.who, scope="practice"), log.open(log.who, request=r, new=SoftToken(f"bg-{r.id[:8]}"))
        ), "", "",
    ),
    "the practice under the new token's name": (lambda log: log.practice(token="emergency"), "", ""),
    "signed by the new token": (lambda log: log.practice(by=log.new), "", ""),
    "a practice by a patient's request": (lambda log: log.practice(request=log.request(log.who)), "", ""),
    "its request's key signs more": (lambda log: log.practice().sealed(log.who), "", ""),
    "its request's key closes": (lambda log: log.practice().close(log.who), "", ""),
    "recovery without a use": (lambda log: log.recover(log.doctor, log.reserve), "", ""),
    "recovery intended without a use": (lambda log: log.intend(log.doctor, reason="recover"), "", ""),
    "recovery behind one patient": (lambda log: (log.noted(), log.recover(log.doctor, log.reserve)), "", ""),
    "recovery behind recovery": (lambda log: log.recovered().recover(log.new), "", ""),
    "recovery by a doctor": (lambda log: log.practice().recover(log.doctor, log.reserve, log.new), "", ""),
    "a doctor is left": (lambda log: log.recovered(log.reserve), "", ""),
    "it retires itself": (lambda log: log.recovered(log.doctor, log.reserve, log.new), "", ""),
    "a doctor signs behind recovery": (lambda log: log.recovered().sealed(log.doctor), "", ""),
    "its key introduced again": (lambda log: (log.practice(), log.newcomer(with_key(log.new.spki))), "", ""),
    "its request's key introduced": (lambda log: (log.practice(), log.newcomer(with_key(log.who.spki))), "", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", ACCEPTED)
def test_accepted_by_both(what: str, tmp_path: Path) -> None:
    log = Emergency().ready()
    ACCEPTED[what](log)
    assert judge(log, tmp_path) == ("", "")


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_both(what: str, tmp_path: Path) -> None:
    log = Emergency().ready()
    fault, package_says, script_says = REFUSED[what]
    fault(log)
    package, script = judge(log, tmp_path)
    assert package_says in package
    assert script_says in script


# name: who signs the newest entry, whose keys are given, and whether trust begins there
BEGINNINGS: dict[str, tuple[Callable[[Emergency], object], Callable[[Emergency], tuple[SoftToken, ...]], bool]] = {
    "the first": (lambda log: log.used(), lambda log: (log.doctor,), True),
    "the newest of a token": (lambda log: (log.sealed(log.reserve), log.used()), lambda log: (log.reserve,), True),
    "an older one": (lambda log: log.used(), lambda log: (log.reserve,), False),
    "the guest": (lambda log: log.used(), lambda log: (log.who,), False),
    "the first and the guest": (lambda log: log.used(), lambda log: (log.doctor, log.who), False),
    "the request's of the practice": (lambda log: log.practice(), lambda log: (log.who,), False),
    "the new token, which has not signed": (lambda log: log.practice(), lambda log: (log.new,), False),
    "the new token": (lambda log: log.practice().sealed(log.new), lambda log: (log.new,), True),
}


@pytest.mark.parametrize("what", BEGINNINGS)
def test_where_trust_begins(what: str, tmp_path: Path) -> None:
    log = Emergency().ready()
    step, keys, begins = BEGINNINGS[what]
    step(log)
    package, script = judge(log, tmp_path, keys=keys(log))
    assert (not package, not script) == (begins, begins)


def test_checkpoints_of_uses(tmp_path: Path) -> None:
    """A guest's entry can be in one, and a guest can sign none."""
    log = Emergency().ready()
    row = log.open(log.who)
    log.sealed(log.doctor)
    assert judge(log, tmp_path, log.checkpoint(log.doctor, row)) == ("", "")
    assert all(judge(log, tmp_path, log.checkpoint(log.who, row)))
    opened = log.open(log.other, new=log.new)
    assert judge(log, tmp_path, log.checkpoint(log.new, opened)) == ("", "")
    assert all(judge(log, tmp_path, log.checkpoint(log.other, opened)))
