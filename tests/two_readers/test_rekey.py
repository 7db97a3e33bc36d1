"""What ``vault.rekey`` and ``vault.sync`` tell (docs/spec/rekey.md): each log is accepted or refused by both readers.

One fault each, and for each what the two say: a log that is refused for another reason proves nothing. The rows that
disagree with a right log: tests/two_readers/test_rows.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.two_readers import KEK, OCTOBER, PAIRING, SEPTEMBER, Rekeyed, judge, with_key
from tests.support.vault_builder import SoftToken

ACCEPTED: dict[str, Callable[[Rekeyed], object]] = {
    "no re-key": lambda log: log.sealed(log.reserve),
    "of both tokens": lambda log: log.both(),
    "twice": lambda log: log.both(shred=(SEPTEMBER,)).both(shred=(OCTOBER,)),
    "of two months": lambda log: log.both(shred=(OCTOBER, SEPTEMBER)),
    "of a patient": lambda log: log.both(erase=("cd" * 8, PAIRING)),
    "with the rows that it wrote": lambda log: log.both(writes=["record:log::00000002"], deletes=["b", "a", "a"]),
    "signed by the other": lambda log: log.rekey(log.reserve, log.doctor),
    "only begun": lambda log: log.intend(log.doctor),
    "begun, and an entry behind it": lambda log: log.begun(),
    "committed": lambda log: log.committed(log.reserve),
    "undone": lambda log: (log.intend(log.doctor), log.undo(log.doctor)),
    "undone by the other": lambda log: (log.intend(log.doctor), log.undo(log.reserve)),
    "undone, then done": lambda log: (log.intend(log.doctor), log.undo(log.doctor), log.both()),
    "a restore in the middle": lambda log: (log.intend(log.doctor), log.restore(log.doctor), log.commit(log.doctor)),
    "a newcomer in the middle": lambda log: (
        log.intend(log.doctor),
        log.newcomer(SoftToken("x")),
        log.undo(log.doctor),
    ),
    "a newcomer behind it": lambda log: (log.both(), log.newcomer(SoftToken("third")), log.both()),
    "the old log key's entries": lambda log: (log.both(), log.sealed(log.reserve, log_key=1)),
    "without the token that was away": lambda log: log.committed(),
    "with the old KEK of one that was away": lambda log: log.away(),
    "and then synced": lambda log: log.away().sync(keks={"reserve": log.kek(kek=KEK)}),
    "a sync that was undone": lambda log: (
        log.away(),
        log.intend(log.doctor, reason="sync"),
        log.undo(log.doctor, sync=True),
    ),
    "another KEK and grade": lambda log: log.reserve_kek(),
    "a token retired": lambda log: log.retired(),
    "retired, and the first is the other": lambda log: log.rekey(log.reserve, retire=(log.doctor,)),
    "retired, and its KEK not destroyed": lambda log: log.retired().doom(log.reserve),
    "retired, and signed before": lambda log: (
        log.sealed(log.reserve),
        log.retired(),
        log.sealed(log.doctor, log_key=2),
    ),
    "retired, and another came": lambda log: (log.retired(), log.newcomer(SoftToken("third")), log.rekey(log.doctor)),
    "a hold": lambda log: log.hold(),
    "a row rekey of nothing": lambda log: log.both().signed(
        "rekey", "", {"begun": log.now(), "entry": 1, "generation": 9, "phase": "committed", "reason": "sync"}
    ),
    "an old record of a month that stays": lambda log: (
        log.both(shred=(OCTOBER,)),
        log.records.append(("message", bytes.fromhex(PAIRING), SEPTEMBER, 2)),
        log.seen.append((bytes.fromhex(PAIRING), SEPTEMBER)),
    ),
}

# name: fault, what the package says of it, what the script says
REFUSED: dict[str, tuple[Callable[[Rekeyed], object], str, str]] = {
    # Intents and their ends
    "without intent": (lambda log: log.commit(log.doctor), "not intended", "ends that was not intended"),
    "undone without intent": (lambda log: log.undo(log.doctor), "not intended", "ends that was not intended"),
    "two intents": (lambda log: (log.intend(log.doctor), log.intend(log.doctor)), "has not ended", "has not ended"),
    "a sync within a re-key": (
        lambda log: (log.intend(log.doctor), log.intend(log.doctor, reason="sync")), "has not ended", "has not ended"
    ),
    "a re-key within a sync": (
        lambda log: (log.intend(log.doctor, reason="sync"), log.intend(log.doctor)), "has not ended", "has not ended"
    ),
    "a sync's end of a re-key": (
        lambda log: (log.intend(log.doctor), log.synced(log.doctor, log.reserve)), "not intended", "not intended"
    ),
    "undone, then done without intent": (
        lambda log: (log.intend(log.doctor), log.undo(log.doctor), log.commit(log.doctor)),
        "not intended", "not intended",
    ),
    "done twice": (
        lambda log: (log.both(), log.commit(log.doctor, log.reserve)), "not intended", "not intended"
    ),
    "done, then undone": (
        lambda log: (log.both(), log.undo(log.doctor)), "not intended", "not intended"
    ),
    "a reason that is none": (
        lambda log: log.intend(log.doctor, reason="tidiness"), "no known reason", "which is none of its"
    ),
    "a sync's reason of a re-key": (
        lambda log: log.tell("vault.rekey", "intended", {"generation": 2, "reason": "sync"}),
        "no known reason", "which is none of its",
    ),
    "a re-key's reason of a sync": (
        lambda log: log.tell("vault.sync", "intended", {"generation": 1, "reason": "shred"}),
        "no known reason", "which is none of its",
    ),
    "a reason that is a list": (
        lambda log: log.tell("vault.rekey", "intended", {"generation": 2, "reason": ["shred"]}),
        "no known reason", "is not text",
    ),
    "no reason": (
        lambda log: log.tell("vault.rekey", "intended", {"generation": 2}), "'reason'", "other members"
    ),
    "an intent that tells more": (
        lambda log: log.tell("vault.rekey", "intended", {"generation": 2, "reason": "shred", "writes": ["a"]}),
        "other members", "other members",
    ),
    "undone, and why": (
        lambda log: (log.intend(log.doctor), log.undo(log.doctor, reason="shred")), "other members", "other members"
    ),
    "another outcome": (lambda log: log.tell("vault.rekey", "failed", {"generation": 2}), "in the clear", "has not"),
    # Generations
    "a generation left out": (lambda log: log.intend(log.doctor, generation=3), "does not follow", "present one is 1"),
    "the present generation": (lambda log: log.intend(log.doctor, generation=1), "does not follow", "present one is 1"),
    "done of another": (
        lambda log: log.committed(log.reserve, generation=3), "does not follow", "present one is 1"
    ),
    "undone of another": (
        lambda log: (log.intend(log.doctor), log.undo(log.doctor, generation=1)), "does not follow", "present one is 1"
    ),
    "a sync of the next": (
        lambda log: log.intend(log.doctor, reason="sync", generation=2), "does not follow", "present one is 1"
    ),
    "a sync of the one before": (
        lambda log: (log.both(), log.intend(log.doctor, reason="sync", generation=1)),
        "does not follow", "present one is 2",
    ),
    "a generation that is a truth": (
        lambda log: (log.intend(log.doctor, reason="sync", generation=True)), "not a number", "not a number"
    ),
    "a generation in text": (lambda log: log.intend(log.doctor, generation="2"), "not a number", "not a number"),
    "no generation": (
        lambda log: (log.intend(log.doctor), log.tell("vault.rekey", "undone", {})), "'generation'", "not a number"
    ),
    "the log key stays": (lambda log: log.committed(log.reserve, log_key=1), "log key does not", "names log key 1"),
    "a log key left out": (lambda log: log.committed(log.reserve, log_key=3), "log key does not", "names log key 3"),
    "a log key in text": (lambda log: log.committed(log.reserve, log_key="2"), "not a number", "not a number"),
    # What the end of a re-key tells
    "a member too many": (lambda log: log.committed(more=1), "other members", "other members"),
    **{
        f"{member} left out": (
            lambda log, member=member: log.committed(log.reserve, drop=(member,)),
            "no re-key that can be", "not a number" if member == "generation" else "other members",
        )
        for member in ("erased", "generation", "keks", "log_key", "retired", "shredded")
    },
    "rows written, none": (lambda log: log.committed(writes=[]), "not a list of rows", "not a list of texts"),
    "rows written, null": (lambda log: log.committed(writes=None), "not a list of rows", "not a list of texts"),
    "rows deleted, in one text": (lambda log: log.committed(deletes="a"), "not a list of rows", "not a list of texts"),
    "rows deleted, numbers": (lambda log: log.committed(deletes=[1]), "not a list of rows", "not a list of texts"),
    # Months and pairings
    "a month shredded twice": (
        lambda log: log.both(shred=(OCTOBER,)).both(shred=(OCTOBER,)), "shredded twice", "was shredded before"
    ),
    "a month twice in the list": (
        lambda log: log.committed(shred=(OCTOBER,), shredded=[OCTOBER] * 2), "not a sorted list", "something twice"
    ),
    "months unsorted": (
        lambda log: log.committed(shredded=[OCTOBER, SEPTEMBER]), "not a sorted list", "not sorted"
    ),
    "a month that is none": (lambda log: log.committed(shredded=["2026-13"]), "not a sorted list", "not a list of"),
    "a month that is a number": (lambda log: log.committed(shredded=[202610]), "not a sorted list", "not a list of"),
    "months in an object": (lambda log: log.committed(shredded={OCTOBER: ""}), "not a sorted list", "not a list of"),
    "pairings unsorted": (
        lambda log: log.committed(erased=["cd" * 8, PAIRING]), "not a sorted list", "not sorted"
    ),
    "a pairing too short": (lambda log: log.committed(erased=["ab" * 7]), "not a pairing", "not a list of"),
    "a pairing in upper case": (lambda log: log.committed(erased=["AB" * 8]), "not a sorted list", "not a list of"),
    # Retiring
    "a token that retires itself": (
        lambda log: log.committed(log.reserve, retired=[log.doctor.id.hex()]), "retires itself", "no other token"
    ),
    "an unknown token retired": (
        lambda log: log.committed(retired=["00" * 32]), "no re-key that can be", "no other token"
    ),
    "retired twice": (
        lambda log: (log.retired(), log.committed(retired=[log.reserve.id.hex()])),
        "no re-key that can be", "no other token",
    ),
    "an id in upper case": (
        lambda log: log.committed(retired=[log.reserve.id.hex().upper()]), "not a sorted list", "not a list of"
    ),
    "a name for an id": (lambda log: log.committed(retired=["reserve"]), "not a sorted list", "not a list of"),
    "an id twice": (
        lambda log: log.committed(retired=[log.reserve.id.hex()] * 2), "not a sorted list", "something twice"
    ),
    "it signs the next head": (
        lambda log: (log.retired(), log.sealed(log.reserve)), "unknown key", "which entry 5 retired"
    ),
    "it signs once more, and another behind it": (
        lambda log: (log.retired(), log.sealed(log.reserve), log.sealed(log.doctor)), "unknown key", "entry 5 retired"
    ),
    "it undoes what comes": (
        lambda log: (log.retired(), log.intend(log.doctor), log.undo(log.reserve)), "unknown key", "entry 5 retired"
    ),
    "it introduces another": (
        lambda log: (log.retired(), log.introduce(SoftToken("third"), log.reserve)), "unknown key", "entry 5 retired"
    ),
    "its name again": (
        lambda log: (log.retired(), log.newcomer(SoftToken("reserve"))), "name twice", "was introduced before"
    ),
    "its key again": (
        lambda log: (log.retired(), log.newcomer(with_key(log.reserve.spki))), "name twice", "was introduced before"
    ),
    # New KEKs
    "of an unknown token": (
        lambda log: log.committed(log.reserve, keks={"third": log.two_kek()}), "not registered", "no token that is"
    ),
    "of a retired token": (
        lambda log: (
            log.retired(),
            log.intend(log.doctor),
            log.commit(log.doctor, keks={"reserve": log.kek(generation=3)}),
        ),
        "not registered", "no token that is",
    ),
    "of another generation": (lambda log: log.with_kek(generation=1), "another generation", "another generation"),
    "of a generation in text": (lambda log: log.with_kek(generation="2"), "not a number", "not a number"),
    "of no grade": (lambda log: log.with_kek(attestation="excellent"), "no known grade", "unknown profile or"),
    "of a grade that is none": (lambda log: log.with_kek(attestation=None), "no known grade", "unknown profile or"),
    "P-256 for aes-kw": (lambda log: log.with_kek(kek=KEK), "KEK that has none", "can have none"),
    "null for aes-kw": (
        lambda log: log.with_kek(kek=None).both(), "KEK that has none", "is not text"
    ),
    "none for p256-hpke": (
        lambda log: log.hpke().with_kek(kek=""), "not a public key", "lower-case hex"
    ),
    "in upper case": (lambda log: log.hpke().with_kek(kek=KEK.upper()), "lower-case hex", "lower-case hex"),
    "of more": (lambda log: log.with_kek(more=1), "other members", "other members"),
    "of less": (
        lambda log: log.committed(log.reserve, keks={"doctor": {"generation": 2, "kek": ""}}),
        "other members", "other members",
    ),
    "in a list": (lambda log: log.committed(keks=[]), "no re-key that can be", "not an object"),
    # Syncs
    "a sync without intent": (lambda log: log.away().synced(log.doctor, log.reserve), "not intended", "not intended"),
    "a sync of two generations": (
        lambda log: log.away().sync(generation=1, keks={}), "does not follow", "present one is 2"
    ),
    "a sync's KEK of the generation before": (
        lambda log: log.away().sync(keks={"reserve": log.kek(kek=KEK, generation=1)}),
        "another generation", "another generation",
    ),
    "a sync that raises the log key": (
        lambda log: log.away().sync(keks={}, log_key=3), "other members", "other members"
    ),
    "a sync that tells of rows": (
        lambda log: log.away().sync(keks={}, writes=["a"]), "other members", "other members"
    ),
    "a sync of an unknown token": (
        lambda log: log.away().sync(keks={"third": log.kek()}), "not registered", "no token that is"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ACCEPTED)
def test_accepted_by_both(what: str, tmp_path: Path) -> None:
    log = Rekeyed().begin()
    ACCEPTED[what](log)
    assert judge(log, tmp_path) == ("", "")


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_both(what: str, tmp_path: Path) -> None:
    log = Rekeyed().begin()
    fault, package_says, script_says = REFUSED[what]
    fault(log)
    package, script = judge(log, tmp_path)
    assert package_says in package
    assert script_says in script
