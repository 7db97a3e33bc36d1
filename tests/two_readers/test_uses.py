"""Break-glass that was used (docs/spec/breakglass.md): each log is accepted or refused by both readers.

One fault each, and for each what package and script say: a log that is refused for another reason proves nothing.
Requests and approvals: tests/two_readers/test_requests.py. The rows and the custody: test_custody.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.walk import extend_to_newest
from tests.support.breakglass_builder import later
from tests.support.store import open_at
from tests.support.two_readers import SEPTEMBER, judge, with_key
from tests.support.two_readers_breakglass import Emergency
from tests.support.vault_builder import SoftToken

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
}  # fmt: skip

# name: fault, what the package says of it, what the script says
REFUSED: dict[str, tuple[Callable[[Emergency], object], str, str]] = {
    # Who opens
    "by a doctor": (
        lambda log: log.open(log.doctor, token="doctor"), "opens with a key or a name", "key was introduced before"
    ),
    "by a doctor, as a guest": (
        lambda log: log.open(log.doctor), "opens with a key or a name", "key was introduced before"
    ),
    "signed by a doctor, of another's request": (
        lambda log: log.open(log.who, by=log.doctor, token="doctor"), "it is signed by another", "key than the request"
    ),
    "by a token that was retired": (
        lambda log: (log.retired(), log.open(log.reserve)), "opens with a key or a name", "key was introduced before"
    ),
    "under another name": (
        lambda log: log.open(log.who, token="who"), "names token 'who', but", "it names token 'who' but"
    ),
    "under the first 7 digits": (
        lambda log: (r := log.request(log.who), log.open(log.who, request=r, token=f"bg-{r.id[:7]}")),
        "names token", "it names token",
    ),
    "intended": (lambda log: log.open(log.who, outcome="intended"), "cannot be read: an entry", "has not in the clear"),
    "before the entry before": (
        lambda log: log.open(log.who, time="2026-11-05T08:00:00Z"),
        "the request or an approval", "before an earlier entry's",
    ),
    "used twice": (
        lambda log: (log.used(), log.close(log.who), log.used_again(log.who)),
        "this request was used", "was used before, by",
    ),
    "used twice, and noted between": (
        lambda log: (log.noted(), log.used_again(log.who)), "this request was used", "was used before, by"
    ),
    "another's request used again": (
        lambda log: (log.used(), log.close(log.who), log.used_again(log.other)),
        "this request was used", "was used before, by",
    ),
    "the same key again": (
        lambda log: (log.used(), log.close(log.who), log.open(log.who)),
        "opens with a key or a name", "key was introduced before",
    ),
    "the same key for the practice": (
        lambda log: (log.used(), log.close(log.who), log.practice()),
        "opens with a key or a name", "key was introduced before",
    ),
    "the practice's request's key for a patient": (
        lambda log: (log.practice(), log.open(log.who)), "opens with a key or a name", "key was introduced before"
    ),
    "a guest's key introduced": (
        lambda log: (log.used(), log.newcomer(log.who)), "introduces a key or a name", "key was introduced before"
    ),
    "a guest's name introduced": (
        lambda log: (log.used(), log.newcomer(SoftToken(f"bg-{log.of()[:8]}"))),
        "introduces no usable token", "key was introduced before",
    ),
    "a name like a guest's": (
        lambda log: log.newcomer(SoftToken("bg-")), "introduces no usable token", "that no token may have"
    ),
    "a custodian's token introduced": (
        lambda log: (
            log.add_token_row(third := SoftToken("third"), serial="C2"),
            log.introduce(third, log.doctor, row=False, serial="C2"),
            log.add_keyset(third), log.sealed(log.doctor),
        ), "introduces no usable token", "model of custodian 'ben",
    ),
    "with rows that it wrote": (
        lambda log: log.told_as(lambda *_: {"writes": ["a"]}), "other members than the", "members than the spec's"
    ),
    "with a token, of one patient": (
        lambda log: log.told_as(lambda request, _: {"token": log.opened(log.new, request)}),
        "other members than the", "members than the spec's",
    ),
    "the practice, without its token": (
        lambda log: log.asking(scope="practice"), "other members than the", "members than the spec's"
    ),
    "a trust state of its own": (
        lambda log: (log.open_month("2026-12"), log.open(log.who)),
        "it changes the trust state", "changed the trust state",
    ),
    # Guests
    "a trust state of the guest's": (
        lambda log: (log.open(log.who), log.open_month("2026-12"), log.sealed(log.who)),
        "is of a guest, who may not", "changed the trust state",
    ),
    "closed with another trust state": (
        lambda log: (log.open(log.who), log.open_month("2026-12"), log.close(log.who)),
        "is of a guest, who may not", "changed the trust state",
    ),
    "behind its end": (
        lambda log: (log.used(), log.close(log.who), log.sealed(log.who)),
        "is signed by an unknown", "before, nor is a guest now",
    ),
    "behind a doctor's entry": (
        lambda log: (log.noted(), log.sealed(log.who)), "is signed by an unknown", "before, nor is a guest now"
    ),
    "closed behind a doctor's entry": (
        lambda log: (log.noted(), log.close(log.who)), "is signed by an unknown", "else, and nobody else does"
    ),
    "closed twice": (
        lambda log: (log.used(), log.close(log.who), log.close(log.who)),
        "is signed by an unknown", "else, and nobody else does",
    ),
    "the first guest goes on": (
        lambda log: log.two_guests(log.who), "is signed by an unknown", "before, nor is a guest now"
    ),
    "closed by another guest": (
        lambda log: (log.open(log.who), log.open(log.other), log.close(log.who)),
        "ends a use of break-glass", "else, and nobody else does",
    ),
    "closed by a doctor": (
        lambda log: (log.used(), log.clear("breakglass.close", {"request": log.of()}, log.doctor)),
        "ends a use of break-glass", "else, and nobody else does",
    ),
    "closed for another request": (
        lambda log: (log.used(), log.close(log.who, detail={"request": "00" * 32})),
        "is of a guest, who may not", "else, and nobody else does",
    ),
    "closed, with more": (
        lambda log: (log.used(), log.close(log.who, detail={"writes": ["a"]})),
        "is of a guest, who may not", "else, and nobody else does",
    ),
    "closed under another name": (
        lambda log: (log.used(), log.close(log.who, token="who")), "names token 'who', but", "it names token 'who' but"
    ),
    "closed behind the request's end": (
        lambda log: (log.used(), log.close(log.who, time=later(log.rows[6].time, days=3, seconds=1))),
        "is of a guest, who may not", "than the request's end",
    ),
    "a guest's clock goes back": (
        lambda log: (log.used(), log.close(log.who, time=log.rows[4].time)),
        "is older than the one", "before an earlier entry's",
    ),
    "a guest restores": (
        lambda log: (log.used(), log.restore(log.who, token=f"bg-{log.of()[:8]}")),
        "is of a guest, who may not", "else, and nobody else does",
    ),
    "a guest introduces": (
        lambda log: (log.used(), log.introduce(SoftToken("third"), log.who, row=False)),
        "is of a guest, who may not", "else, and nobody else does",
    ),
    "a guest re-keys": (
        lambda log: (log.used(), log.intend(log.who)), "is of a guest, who may not", "else, and nobody else does"
    ),
    "a guest opens again": (
        lambda log: (log.used(), log.open(log.who)), "opens with a key or a name", "key was introduced before"
    ),
    "a close without a use": (
        lambda log: log.clear("breakglass.close", {"request": "00" * 32}, log.doctor),
        "ends a use of break-glass", "else, and nobody else does",
    ),
    # The practice
    "its token of another id": (
        lambda log: log.token_told(id="00" * 32), "introduces no usable token", "audit key's fingerprint"
    ),
    "its token of no grade": (
        lambda log: log.token_told(attestation="good"), "introduces no usable token", "profile or attestation"
    ),
    "its token with a KEK that it has not": (
        lambda log: log.token_told(kek=log.other.spki.hex()), "introduces no usable token", "a KEK that can have none"
    ),
    "its token, told more": (
        lambda log: log.token_told(writes=["a"]), "it introduces no token as", "members than the spec's"
    ),
    "its token on record as another": (
        lambda log: log.token_told(serial="2"), "token emergency is on", "than the log introduced"
    ),
    "its token is a custodian's": (
        lambda log: log.token_told(row=True, serial="C1"), "introduces no usable token", "model of custodian 'anna"
    ),
    "its token has a doctor's name": (
        lambda log: log.open(log.who, new=SoftToken("reserve")),
        "introduces a key or a name", "key was introduced before",
    ),
    "its token has a doctor's key": (
        lambda log: log.token_told(audit_key=log.reserve.spki.hex(), id=log.reserve.id.hex()),
        "introduces a key or a name", "key was introduced before",
    ),
    "its token has the request's key": (
        lambda log: (setattr(log.new, "key", log.who.key), setattr(log.new, "spki", log.who.spki),
                     setattr(log.new, "id", log.who.id), log.practice()), "it introduces the", "which signs no more"
    ),
    "its token has the name that the entry has": (
        lambda log: (
            r := log.request(log.who, scope="practice"), log.open(log.who, request=r, new=SoftToken(f"bg-{r.id[:8]}"))
        ), "introduces no usable token", "that no token may have",
    ),
    "the practice under the new token's name": (
        lambda log: log.practice(token="emergency"), "names token 'emergency'", "token 'emergency' but"
    ),
    "signed by the new token": (
        lambda log: log.practice(by=log.new), "it is signed by another", "key than the request"
    ),
    "a practice by a patient's request": (
        lambda log: log.practice(request=log.request(log.who)), "other members than the", "members than the spec's"
    ),
    "its request's key signs more": (
        lambda log: log.practice().sealed(log.who), "is signed by an unknown", "before, nor is a guest now"
    ),
    "its request's key closes": (
        lambda log: log.practice().close(log.who), "is signed by an unknown", "else, and nobody else does"
    ),
    "recovery without a use": (
        lambda log: log.recover(log.doctor, log.reserve), "a recovery without", "not opened by break-glass"
    ),
    "recovery intended without a use": (
        lambda log: log.intend(log.doctor, reason="recover"), "a recovery without", "not opened by break-glass"
    ),
    "recovery behind one patient": (
        lambda log: (log.noted(), log.recover(log.doctor, log.reserve)),
        "a recovery without", "not opened by break-glass",
    ),
    "recovery behind recovery": (
        lambda log: log.recovered().recover(log.new), "a recovery without", "not opened by break-glass"
    ),
    "recovery by a doctor": (
        lambda log: log.practice().recover(log.doctor, log.reserve, log.new),
        "a recovery by another", "or leaves another",
    ),
    "a doctor is left": (lambda log: log.recovered(log.reserve), "a recovery that does not", "or leaves another"),
    "it retires itself": (
        lambda log: log.recovered(log.doctor, log.reserve, log.new),
        "the vault's trust state", "token that is registered",
    ),
    "a doctor signs behind recovery": (
        lambda log: log.recovered().sealed(log.doctor), "is signed by an unknown", "by token 'doctor', which"
    ),
    "its key introduced again": (
        lambda log: (log.practice(), log.newcomer(with_key(log.new.spki))),
        "introduces a key or a name", "key was introduced before",
    ),
    "its request's key introduced": (
        lambda log: (log.practice(), log.newcomer(with_key(log.who.spki))),
        "introduces a key or a name", "key was introduced before",
    ),
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


# The package alone: a walk that begins at what a token remembers. name: where, what was written after it, is it right?
FOLLOWED: dict[str, tuple[int, Callable[[Emergency], object], bool]] = {
    "a use behind the ceremony": (3, lambda log: log.noted(), True),
    "a use of an entry of a guest's": (
        3, lambda log: (row := log.open(log.other), log.sealed(log.doctor),
                        log.asking(sequence=row.sequence, hash=row.hash.hex())), False,
    ),
    "a use of an entry of one who was removed": (
        3, lambda log: (row := log.sealed(log.reserve), log.retired(),
                        log.asking(sequence=row.sequence, hash=row.hash.hex())), True,
    ),
    "a use, the ceremony further back": (6, lambda log: log.used(), True),
    "a recovery, the use further back": (
        7, lambda log: (log.practice(), log.ceremony(log.doctor, log.reserve, log.new, reason="rotate"),
                        log.recover(log.new, log.doctor, log.reserve)), True,
    ),
    "a recovery by another, all of it seen": (
        6, lambda log: (log.practice(), log.recover(log.doctor, log.reserve, log.new)), False
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FOLLOWED)
def test_followed_from_an_anchor(what: str, tmp_path: Path) -> None:
    log = Emergency().ready()
    start, step, right = FOLLOWED[what]
    step(log)
    path = log.write(tmp_path / "log.db")
    path.chmod(0o600)
    keys = {token.id: token.spki for token in (log.doctor, log.reserve, *([log.new] if start == 7 else []))}
    chain = Chain(log.vault, start, log.rows[start - 1].hash, keys)
    with closing(open_at(path, in_use=False)) as file:
        if right:
            assert extend_to_newest(file, chain).sequence == len(log.rows)
        else:
            with pytest.raises(AuditBroken):
                extend_to_newest(file, chain)
