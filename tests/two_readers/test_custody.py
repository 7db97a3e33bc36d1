"""Custodians in the log, and the rows of break-glass (docs/spec/breakglass.md): accepted or refused by both readers.

One fault each, and for each what package and script say. Requests, approvals and guests: test_uses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.two_readers import KEK, OCTOBER, compressed, judge
from tests.support.two_readers_breakglass import Emergency
from tests.support.vault_builder import SoftToken

SIXTEEN = tuple(f"c{x}" for x in range(1, 17))
AUDIT_KEY = SoftToken("any").spki.hex()

ACCEPTED: dict[str, Callable[[Emergency], object]] = {
    "a ceremony": lambda log: None,
    "committed": lambda log: log.rotated(end=False),
    "a rotation": lambda log: log.rotated(),
    "a custodian replaced": lambda log: log.rotated("replace", names=("anna", "dora", "carla")),
    "every old share destroyed": lambda log: (log.rotated().destroy(), log.sealed(log.doctor)),
    "old shares of two ceremonies": lambda log: log.rotated().rotated(),
    "by the reserve": lambda log: log.ceremony(log.reserve, log.doctor, reason="rotate"),
    "with a token retired": lambda log: log.ceremony(log.doctor, reason="rotate", retire=(log.reserve,)),
    "with two retired": lambda log: (
        log.newcomer(third := SoftToken("third")),
        log.ceremony(log.doctor, reason="replace", retire=(log.reserve, third)),
    ),
    "with a month shredded": lambda log: (
        log.prepared("dora", "emil"), log.intend(log.doctor, reason="rotate"),
        log.commit(log.doctor, log.reserve, shred=(OCTOBER,)),
    ),
    "all of two": lambda log: log.rotated(names=("dora", "emil")),
    "sixteen of sixteen": lambda log: log.rotated(names=SIXTEEN, threshold=16),
    "names as long as can be": lambda log: log.rotated(names=("_", "bg-", "-" * 32)).rotated(),
    "an HPKE token, attested": lambda log: log.custodian_told(
        row=True, profile="p256-hpke", kek=KEK, attestation="device-attested"
    ),
    "two with one KEK": lambda log: log.custodian_told(row=True, profile="p256-hpke", kek=KEK),
    "two with one serial": lambda log: log.custodian_told(row=True, serial="C1"),
    "with a doctor's serial": lambda log: log.custodian_told(row=True, serial="1"),
    "a drill": lambda log: log.custodian_row(drilled=log.now()),
    "another label and address": lambda log: log.custodian_row(label="", uri="pkcs11:serial=9"),
    "a re-key between": lambda log: log.both(shred=(OCTOBER,)),
    "a token that lags": lambda log: log.rekey(log.doctor),
    "another escrow of the same": lambda log: (log.escrow(), log.sealed(log.doctor)),
    "a ceremony undone": lambda log: (log.intend(log.doctor, reason="rotate"), log.undo(log.reserve)),
    "undone, and then held": lambda log: (log.intend(log.doctor, reason="rotate"), log.undo(log.doctor), log.rotated()),
    "a custodian's token of before becomes a doctor's": lambda log: (
        log.rotated(names=("dora", "emil", "fay", "gus")).rotated(names=("dora", "emil", "fay")),
        log.add_token_row(third := SoftToken("third"), serial="C4"),
        log.introduce(third, log.doctor, row=False, serial="C4"),
    ),
    "uses noted and answered": lambda log: log.noted().rotated(),
    "noted once more": lambda log: (log.noted().rotated(), log.open(log.other), log.sealed(log.doctor)),
}  # fmt: skip

# name: fault, what the package says of it, what the script says
REFUSED: dict[str, tuple[Callable[[Emergency], object], str, str]] = {
    # Reasons
    "a second ceremony": (lambda log: log.rotated("ceremony"), "a first ceremony where", "or there are none"),
    "a second ceremony intended": (
        lambda log: log.intend(log.doctor, reason="ceremony"), "a first ceremony where", "or there are none"
    ),
    "no custody by a rotation": (
        lambda log: log.committing("rotate"), "custodians, or none", "members than the spec's"
    ),
    "no custody by a replacement": (
        lambda log: log.committing("replace"), "custodians, or none", "members than the spec's"
    ),
    "a custody by a shredding": (lambda log: log.told_by("shred"), "custodians, or none", "members than the spec's"),
    "a custody by a recovery": (
        lambda log: (
            log.practice(), log.intend(log.new, reason="recover"),
            log.commit(log.new, retire=(log.doctor, log.reserve), custody=log.custody),
        ), "custodians, or none", "members than the spec's",
    ),
    "no custody, null": (
        lambda log: log.committing("rotate", custody=None), "NoneType' object is not", "members than the spec's"
    ),
    # The custody
    "a ceremony held before": (
        lambda log: log.told(ceremony=log.custody["ceremony"]), "a ceremony id that was", "was held before"
    ),
    "a ceremony too short": (
        lambda log: log.told(ceremony="ab" * 5), "not lower-case hex of the", "hex of the right length"
    ),
    "a ceremony in upper case": (
        lambda log: log.told(ceremony="AB" * 6), "not lower-case hex of the", "hex of the right length"
    ),
    "a ceremony that is a number": (
        lambda log: log.told(ceremony=123456123456), "not lower-case hex of the", "'ceremony' is not text"
    ),
    "a key too short": (lambda log: log.told(key="ab" * 31), "not lower-case hex of the", "hex of the right length"),
    "a threshold of one": (lambda log: log.told(threshold=1), "a threshold that cannot be", "is not a number in range"),
    "a threshold of four of three": (
        lambda log: log.told(threshold=4), "a threshold that cannot be", "as the spec allows"
    ),
    "a threshold in text": (lambda log: log.told(threshold="2"), "not a custody", "is not a number in range"),
    "a threshold that is a truth": (lambda log: log.told(threshold=True), "not a custody", "is not a number in range"),
    "custodians, none": (lambda log: log.told(custodians=[]), "a threshold that cannot be", "as the spec allows"),
    "custodians in an object": (lambda log: log.told(custodians={}), "not a custody", "as the spec allows"),
    "one custodian": (
        lambda log: (log.prepared("dora", "emil"), log.told(custodians=log.coming["custodians"][:1])),
        "a threshold that cannot be", "as the spec allows",
    ),
    "seventeen": (
        lambda log: (log.rotated(names=(*SIXTEEN, "c17")), log.without("custodian", "c17")),
        "a threshold that cannot be", "as the spec allows",
    ),
    "a custodian who is text": (
        lambda log: log.told(custodians=["anna", "ben"]), "a custodian with other", "members than the spec's"
    ),
    "told more": (lambda log: log.told(created=log.now()), "a custody with other", "members than the spec's"),
    **{
        f"no {member}": (lambda log, member=member: log.told(drop=member), "other members", "other members")
        for member in ("ceremony", "custodians", "key", "threshold")
    },
    # Custodians
    "a custodian of whom more is told": (
        lambda log: log.custodian_told(more=1), "a custodian with other", "members than the spec's"
    ),
    **{
        f"a custodian without {member}": (
            lambda log, member=member: log.custodian_told(drop=member), "other members", "other members"
        )
        for member in ("approval_key", "attestation", "commitment", "kek", "model", "name", "profile", "serial", "x")
    },
    "the shares not from 1 on": (
        lambda log: log.custodian_told(1, x=0), "a custodian with other", "is not a number in range"
    ),
    "the shares not in order": (
        lambda log: log.custodian_told(3, x=4), "a custodian with other", "of their shares, from 1 on"
    ),
    "a share twice": (lambda log: log.custodian_told(x=1), "a custodian with other", "of their shares, from 1 on"),
    "a share that is a truth": (
        lambda log: log.custodian_told(1, x=True), "a custodian with other", "is not a number in range"
    ),
    "a share in text": (lambda log: log.custodian_told(x="2"), "a custodian with other", "is not a number in range"),
    "a name twice": (
        lambda log: log.custodian_told(name="anna"), "a custodian named twice", "or approval key of another"
    ),
    "a name that is none": (lambda log: log.custodian_told(name=None), "not text", "'name' is not text"),
    "an empty name": (lambda log: log.custodian_told(name=""), "a custodian of unknown", "the spec does not have"),
    "a name too long": (
        lambda log: log.custodian_told(name="b" * 33), "a custodian of unknown", "the spec does not have"
    ),
    "a name with a space": (
        lambda log: log.custodian_told(name="Dr. Ben"), "a custodian of unknown", "the spec does not have"
    ),
    "a name with more than ASCII": (
        lambda log: log.custodian_told(name="bén"), "a custodian of unknown", "the spec does not have"
    ),
    "a name with a line end": (
        lambda log: log.custodian_told(name="ben\n"), "a custodian of unknown", "the spec does not have"
    ),
    "an approval key twice": (
        lambda log: (
            log.prepared("anna", "ben"),
            first := log.coming["custodians"][0],
            log.told(custodians=[first, log.coming["custodians"][1] | {"approval_key": first["approval_key"]}]),
        ), "a custodian named twice", "or approval key of another",
    ),
    "an approval key in another encoding": (
        lambda log: log.custodian_told(approval_key=compressed(SoftToken("ben")).spki.hex()),
        "that P-256 key is not", "encoded as the spec says",
    ),
    "an approval key that is none": (
        lambda log: log.custodian_told(approval_key="00"), "that is not a public key", "is not a public key"
    ),
    "a commitment too long": (
        lambda log: log.custodian_told(commitment="ab" * 33), "not lower-case hex of the", "hex of the right length"
    ),
    "no grade that there is": (
        lambda log: log.custodian_told(attestation="good"), "a custodian of unknown", "profile or attestation"
    ),
    "no profile that there is": (
        lambda log: log.custodian_told(profile="rsa"), "a custodian of unknown", "profile or attestation"
    ),
    "a KEK that it has not": (
        lambda log: log.custodian_told(kek=KEK), "a public key for a KEK", "a KEK that can have none"
    ),
    "no KEK where there is one": (
        lambda log: log.custodian_told(profile="p256-hpke"), "a public key for a KEK", "hex of the right length"
    ),
    "a serial that is a number": (lambda log: log.custodian_told(serial=2), "not text", "'serial' is not text"),
    "a model that is none": (lambda log: log.custodian_told(model=None), "not text", "'model' is not text"),
    # Row breakglass
    "no row breakglass": (
        lambda log: log.without("breakglass", ""), "the vault's trust state", "log but has no trust row"
    ),
    "a second one": (
        lambda log: log.copied("breakglass", "2", log.trust["breakglass", ""]),
        "the vault's trust state", "'2' may not exist",
    ),
    "of another signer": (
        lambda log: log.changed("breakglass", "", audit_key=log.reserve.id.hex()),
        "the custodians on record", "than the log tells",
    ),
    "of another ceremony": (
        lambda log: log.changed("breakglass", "", ceremony="ab" * 6), "the custodians on record", "than the log tells"
    ),
    "of another entry": (
        lambda log: log.changed("breakglass", "", entry=4), "the custodians on record", "entry than the log tells"
    ),
    "of another time": (
        lambda log: log.changed("breakglass", "", since=log.now()),
        "the custodians on record", "since than the log tells",
    ),
    "of another threshold": (
        lambda log: log.changed("breakglass", "", threshold=3), "the custodians on record", "than the log tells"
    ),
    "of another key": (
        lambda log: log.changed("breakglass", "", key="ab" * 1216), "the custodians on record", "key than the log tells"
    ),
    "its fingerprint for a key": (
        lambda log: log.changed("breakglass", "", key=log.custody["key"]),
        "the custodians on record", "hex of the right length",
    ),
    "row breakglass tells more": (
        lambda log: log.changed("breakglass", "", more=""), "a row of the trust state", "members than the spec's"
    ),
    "the row of the ceremony before": (
        lambda log: log.back("breakglass", "", lambda: log.rotated()), "the custodians on record", "than the log tells"
    ),
    # Rows custodian
    "a custodian is not on record": (
        lambda log: log.without("custodian", "ben"), "the custodians on record", "log but has no trust row"
    ),
    "one more is": (
        lambda log: log.copied("custodian", "dora", log.trust["custodian", "ben"]),
        "the custodians on record", "or ceremony in the log",
    ),
    "one of before is": (
        lambda log: log.back("custodian", "ben", lambda: log.rotated(names=("dora", "emil"))),
        "the custodians on record", "or ceremony in the log",
    ),
    **{
        f"another {member} on record": (
            lambda log, told={member: value}: log.custodian_row(**told), "on record are not those", f"another {member}"
        )
        for member, value in {
            "approval_key": AUDIT_KEY, "attestation": "device-attested", "commitment": "ab" * 32, "kek": KEK,
            "model": "other", "profile": "p256-hpke", "serial": "C9", "x": 3,
        }.items()
    },
    "drilled at no time": (
        lambda log: log.custodian_row(drilled="yesterday"), "a row of the trust state", "is not a UTC time"
    ),
    "drilled, in truth": (
        lambda log: log.custodian_row(drilled=True), "a row of the trust state", "'drilled' is not text"
    ),
    "a label that is none": (
        lambda log: log.custodian_row(label=None), "a row of the trust state", "'ben': 'label' is not text"
    ),
    "a custodian's row tells more": (
        lambda log: log.custodian_row(more=""), "a row of the trust state", "members than the spec's"
    ),
    # Row escrow
    "no escrow": (lambda log: log.without("escrow", ""), "the vault's trust state", "log but has no trust row"),
    "a second escrow": (
        lambda log: log.copied("escrow", "2", log.trust["escrow", ""]),
        "the vault's trust state", "escrow '2' may not exist",
    ),
    "an escrow of the generation before": (
        lambda log: log.back("escrow", "", lambda: log.both()), "the escrow on record is", "than the log tells"
    ),
    "an escrow of the ceremony before": (
        lambda log: log.changed("escrow", "", ceremony="ab" * 6), "the escrow on record is", "than the log tells"
    ),
    "an escrow too short": (
        lambda log: log.changed("escrow", "", sealed="ab" * 1231),
        "the escrow on record holds", "hex of the right length",
    ),
    "an escrow that is empty": (
        lambda log: log.changed("escrow", "", sealed=""), "the escrow on record holds", "hex of the right length"
    ),
    "an escrow in upper case": (
        lambda log: log.changed("escrow", "", sealed="AB" * 1232), "a row of the trust state", "hex of the right length"
    ),
    "an escrow that tells more": (
        lambda log: log.changed("escrow", "", more=1), "a row of the trust state", "members than the spec's"
    ),
    # Rows oldshare
    "an old share of the present ceremony": (
        lambda log: (log.old_share("ben", 5, log.rows[4].time), log.sealed(log.doctor)),
        "ben is of no ceremony that", "no share that became old",
    ),
    "an old share of nobody": (
        lambda log: log.rotated().share_row("dora"), "dora is of no ceremony", "no share that became old"
    ),
    "an old share of another ceremony": (
        lambda log: log.rotated().share_row("ben", before="ab" * 6),
        "ben is of no ceremony that", "no share that became old",
    ),
    "an old share in upper case": (
        lambda log: log.rotated().upper("oldshare"), "a row of the trust state", "no share that became old"
    ),
    "an old share without a ceremony": (
        lambda log: log.rotated().share_row("", before="ben"), "the vault's trust state", "no share that became old"
    ),
    "an old share of an entry before": (
        lambda log: log.rotated().share_row(entry=5), "ben is of no ceremony that", "entry than the log tells"
    ),
    "an old share of another time": (
        lambda log: log.rotated().share_row(since=log.rows[4].time),
        "ben is of no ceremony that", "since than the log tells",
    ),
    "an old share with another approval key": (
        lambda log: log.rotated().share_row(approval_key=AUDIT_KEY), "ben is on record otherwise", "than the log tells"
    ),
    "an old share on another model": (
        lambda log: log.rotated().share_row(model="other"), "ben is on record otherwise", "model than the log tells"
    ),
    "an old share with another serial": (
        lambda log: log.rotated().share_row(serial="C1"), "ben is on record otherwise", "serial than the log tells"
    ),
    "an old share that tells more": (
        lambda log: log.rotated().share_row(x=2), "a row of the trust state", "members than the spec's"
    ),
    # Rows use
    "a use that was not noted": (
        lambda log: log.never_noted().noted(), "the uses of break-glass on", "log but has no trust row"
    ),
    "a use noted before a token signed": (
        lambda log: (log.used(), log.note(), log.close(log.who)),
        "is of a guest, who may not", "changed the trust state",
    ),
    "a use forgotten": (
        lambda log: (log.noted(), log.without("use", log.of())),
        "the uses of break-glass on", "log but has no trust row",
    ),
    "a use that there was not": (
        lambda log: (log.noted(), log.copied("use", "ab" * 32, log.trust["use", log.of()])),
        "the uses of break-glass on", "that the log had to note",
    ),
    "a use in upper case": (
        lambda log: log.noted().upper("use"), "a row of the trust state", "that the log had to note"
    ),
    "a use by another entry": (
        lambda log: log.noted().use_row(entry=8), "the uses of break-glass on", "entry than the log tells"
    ),
    "a use of another time": (
        lambda log: log.noted().use_row(since=log.rows[7].time),
        "the uses of break-glass on", "since than the log tells",
    ),
    "a use of another scope": (
        lambda log: log.noted().use_row(scope="practice"), "the uses of break-glass on", "scope than the log tells"
    ),
    "a use of no scope": (
        lambda log: log.noted().use_row(scope="all"), "the vault's trust state", "the spec does not have"
    ),
    "a use of no phase": (
        lambda log: log.noted().use_row(phase="begun"), "the vault's trust state", "the spec does not have"
    ),
    "a patient's use that is open": (
        lambda log: log.noted().use_row(phase="open"), "the uses of break-glass on", "phase than the log tells"
    ),
    "a use answered by nothing": (
        lambda log: log.noted().use_row(answered=log.now()), "the uses of break-glass on", "than the log tells"
    ),
    "a use answered, and not on record": (
        lambda log: log.noted().rotated().use_row(answered=""), "the uses of break-glass on", "than the log tells"
    ),
    "a use answered by a re-key": (
        lambda log: (log.noted().both(), log.use_row(answered=log.rows[10].time)),
        "the uses of break-glass on", "than the log tells",
    ),
    "a use answered again": (
        lambda log: (log.noted().rotated().rotated(), log.use_row(answered=log.rows[13].time)),
        "the uses of break-glass on", "than the log tells",
    ),
    "a use that tells more": (
        lambda log: log.noted().use_row(more=""), "a row of the trust state", "members than the spec's"
    ),
    "a practice's use that is done": (
        lambda log: log.practice().use_row(phase="done"), "the uses of break-glass on", "phase than the log tells"
    ),
    "a recovery's use that is open": (
        lambda log: (log.recovered(end=False), log.change_row("use", log.of(), phase="open"), log.end(log.new)),
        "the uses of break-glass on", "phase than the log tells",
    ),
    "a practice's use not on record": (
        lambda log: log.practice().without("use", log.of()), "the uses of break-glass on", "log but has no trust row"
    ),
    "not noted by the practice's entry": (
        lambda log: (log.never_noted().open(log.other), log.practice()),
        "the uses of break-glass on", "log but has no trust row",
    ),
}  # fmt: skip

# Of a vault that never had custodians
WITHOUT: dict[str, tuple[Callable[[Emergency], object], str, str]] = {
    "a use": (lambda log: log.used_before(), "there are no custodians", "there are no custodians"),
    "rotated": (lambda log: log.rotated(), "a first ceremony where", "or there are none"),
    "replaced": (lambda log: log.rotated("replace"), "a first ceremony where", "or there are none"),
    "a rotation intended": (
        lambda log: log.intend(log.doctor, reason="rotate"), "a first ceremony where", "or there are none"
    ),
    **{
        f"a row {kind}": (
            lambda log, row=(kind, name): log.copied(*row, Emergency().ready().trust[row]),
            "trust state cannot be read", "no custodian or ceremony",
        )
        for kind, name in (("breakglass", ""), ("custodian", "ben"), ("escrow", ""))
    },
    "an old share": (
        lambda log: log.copied("oldshare", f"{'ab' * 6}:ben", Emergency().ready().rotated().any_of("oldshare")),
        "ben is of no ceremony that", "no share that became old",
    ),
    "a row use": (
        lambda log: log.copied("use", "ab" * 32, Emergency().ready().noted().any_of("use")),
        "the uses of break-glass on", "that the log had to note",
    ),
    "a custody told by a shredding": (
        lambda log: log.told_by("shred"), "custodians, or none", "members than the spec's"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ACCEPTED)
def test_accepted_by_both(what: str, tmp_path: Path) -> None:
    log = Emergency().ready()
    ACCEPTED[what](log)
    assert judge(log, tmp_path) == ("", "")


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_both(what: str, tmp_path: Path) -> None:
    refused(Emergency().ready(), REFUSED[what], tmp_path)


@pytest.mark.parametrize("what", WITHOUT)
def test_refused_where_there_are_no_custodians(what: str, tmp_path: Path) -> None:
    refused(Emergency().begin(), WITHOUT[what], tmp_path)


def refused(log: Emergency, fault: tuple[Callable[[Emergency], object], str, str], tmp_path: Path) -> None:
    fault[0](log)
    package, script = judge(log, tmp_path)
    assert fault[1] in package
    assert fault[2] in script
