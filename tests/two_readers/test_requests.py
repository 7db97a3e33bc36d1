"""Requests and approvals in the log (docs/spec/breakglass.md): each log is accepted or refused by both readers.

One fault each, and for each what package and script say: a log that is refused for another reason proves nothing. Who
opens, guests and the practice: tests/two_readers/test_uses.py. The rows and the custody: test_custody.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.breakglass_builder import later
from tests.support.two_readers import compressed, judge
from tests.support.two_readers_breakglass import Emergency
from tests.support.vault_builder import SoftToken

ACCEPTED: dict[str, Callable[[Emergency], object]] = {
    "asked for and approved": lambda log: log.used(),
    "by all custodians": lambda log: log.by_name("anna", "ben", "carla"),
    "by others": lambda log: log.by_name("carla", "ben"),
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
    "of another vault": (lambda log: log.asking(vault="00" * 16), "the request is for another", "is of another vault"),
    "of another ceremony": (
        lambda log: log.asking(ceremony="00" * 6), "the request is to the", "is of another ceremony"
    ),
    "of the ceremony before": (
        lambda log: (r := log.request(log.who), log.rotated(), log.open(log.who, request=r)),
        "the request is from before", "is of another ceremony",
    ),
    "signed by another": (lambda log: log.asking(by=log.other), "a signature does not", "the key that it should be"),
    "of another signer": (
        lambda log: log.asking(signer=log.other.spki.hex(), by=log.other),
        "it is signed by another", "key than the request",
    ),
    "a signature too short": (
        lambda log: log.told_as(lambda request, _: {"request": request.value | {"signature": "ab" * 63}}),
        "not lower-case hex of the", "hex of the right length",
    ),
    "a signature in upper case": (
        lambda log: log.told_as(
            lambda request, _: {"request": request.value | {"signature": request.value["signature"].upper()}}
        ), "not lower-case hex of the", "hex of the right length",
    ),
    "a request that tells more": (
        lambda log: log.told_as(lambda request, _: {"request": request.value | {"enclosure": ""}}),
        "not a quoted statement", "members than the spec's",
    ),
    "a request that is text": (
        lambda log: log.told_as(lambda request, _: {"request": request.value["statement"]}),
        "not a quoted statement", "members than the spec's",
    ),
    "a statement that is an object": (
        lambda log: log.told_as(lambda request, _: {"request": request.value | {"statement": {}}}),
        "dict' object has no", "'statement' is not text",
    ),
    "spaces in it": (
        lambda log: log.asking_in(lambda text: text.replace(b",", b", ", 1)), "not canonical", "a canonical JSON object"
    ),
    "a line end behind it": (
        lambda log: log.asking_in(lambda text: text + b"\n"), "not canonical", "a canonical JSON object"
    ),
    "a member twice": (
        lambda log: log.asking_in(lambda text: text[:-1] + b',"version":1}'), "not canonical", "a canonical JSON object"
    ),
    "a number with a point": (
        lambda log: log.asking_in(lambda text: text.replace(b":1}", b":1.0}")), "not canonical", "is not canonical JSON"
    ),
    "half of a character": (
        lambda log: log.asking_in(lambda text: text.replace(b'"scope":"patient"', b'"scope":"\\ud800"')),
        "utf-8' codec can't encode", "is not canonical JSON",
    ),
    "an array": (
        lambda log: log.asking_in(lambda text: b"[" + text + b"]"), "another type or version", "a canonical JSON object"
    ),
    "nested without end": (
        lambda log: log.asking_in(lambda text: b"[" * 60000), "nested without end", "is not canonical JSON"
    ),
    "of the first year": (
        lambda log: log.asking(created="0001-01-01T00:00:00Z", expires="0001-01-02T00:00:00Z"),
        "outside of the request's", "to 0001-01-02T00:00:00Z",
    ),
    "of the last year": (
        lambda log: log.asking(created="9999-12-30T00:00:00Z", expires="9999-12-31T23:59:59Z"),
        "outside of the request's", "to 9999-12-31T23:59:59Z",
    ),
    "nothing": (lambda log: log.asking_in(lambda text: b""), "Expecting value: line 1", "is not canonical JSON"),
    "signed as another type": (
        lambda log: log.asking_in(lambda text: text, as_="approval"),
        "a signature does not", "the key that it should be",
    ),
    "a member more": (lambda log: log.asking(reason="an emergency"), "not canonical", "members than the spec's"),
    **{
        f"no {member}": (lambda log, member=member: log.asking(drop=(member,)), f"'{member}'", "other members")
        for member in (
            "ceremony", "created", "enclosed", "expires", "hash", "key", "scope", "sequence", "signer", "type",
            "vault", "version",
        )
    },
    "of another type": (
        lambda log: log.asking(type="medcrypt/breakglass/drill"),
        "another type or version", "of another type or version",
    ),
    "of version 2": (lambda log: log.asking(version=2), "another type or version", "of another type or version"),
    "of version true": (lambda log: log.asking(version=True), "not canonical", "is not a number in range"),
    "an enclosure in upper case": (
        lambda log: log.asking(enclosed="AB" * 32), "not lower-case hex of the", "hex of the right length"
    ),
    "an enclosure too short": (
        lambda log: log.asking(enclosed="ab" * 31), "not lower-case hex of the", "hex of the right length"
    ),
    "a key too long": (lambda log: log.asking(key="ab" * 1217), "not lower-case hex of the", "hex of the right length"),
    "a key that is none": (lambda log: log.asking(key=""), "not lower-case hex of the", "hex of the right length"),
    "no scope that there is": (
        lambda log: log.asking(scope="everything"), "its time or scope", "the spec does not have"
    ),
    "a name in the clear": (lambda log: log.asking(name="emergency"), "not canonical", "members than the spec's"),
    "another history": (
        lambda log: log.asking(hash="ab" * 32), "break-glass was asked for", "or of before the ceremony"
    ),
    "another entry of this history": (
        lambda log: log.asking(sequence=5), "break-glass was asked for", "or of before the ceremony"
    ),
    "an entry from before the ceremony": (
        lambda log: log.asking(sequence=4, hash=log.rows[3].hash.hex()),
        "the request is from before", "or of before the ceremony",
    ),
    "an entry from before the rotation": (
        lambda log: (log.rotated(), log.asking(sequence=6, hash=log.rows[5].hash.hex())),
        "the request is from before", "or of before the ceremony",
    ),
    "an entry that is to come": (
        lambda log: log.asking(sequence=7, hash="ab" * 32), "the request names an entry", "or of before the ceremony"
    ),
    "an entry of a guest": (
        lambda log: (row := log.open(log.other), log.asking(sequence=row.sequence, hash=row.hash.hex())),
        "the request names an entry", "or of before the ceremony",
    ),
    "an entry of a guest whose run has ended": (
        lambda log: (
            row := log.open(log.other), log.sealed(log.doctor),
            log.asking(sequence=row.sequence, hash=row.hash.hex()),
        ), "break-glass was asked for", "or of before the ceremony",
    ),
    "an entry that opened the practice, and a doctor's behind it": (
        lambda log: (
            row := log.open(log.other, new=log.new), log.sealed(log.doctor),
            log.asking(sequence=row.sequence, hash=row.hash.hex()),
        ), "break-glass was asked for", "or of before the ceremony",
    ),
    "an entry that opened the practice": (
        lambda log: (
            row := log.open(log.other, new=SoftToken("third")), log.asking(sequence=row.sequence, hash=row.hash.hex())
        ), "the request names an entry", "or of before the ceremony",
    ),
    "an entry in text": (lambda log: log.asking(sequence="6"), "its sequence", "is not a number in range"),
    "entry 0": (lambda log: log.asking(sequence=0), "its sequence", "is not a number in range"),
    "a hash that is none": (lambda log: log.asking(hash=None), "not lower-case hex of the", "'hash' is not text"),
    "a signer in another encoding": (
        lambda log: log.asking(signer=compressed(log.who).spki.hex()),
        "that P-256 key is not", "encoded as the spec says",
    ),
    "of more than 72 hours": (
        lambda log: log.asking(expires=later(log.now(), days=3, seconds=1)),
        "its time or scope", "days, or before it began",
    ),
    "of no time at all": (lambda log: log.asking(expires=log.now()), "its time or scope", "days, or before it began"),
    "a time that is none": (
        lambda log: log.asking(expires="2026-11-31T00:00:00Z"), "day is out of range for", "is not a UTC time"
    ),
    "a second after its end": (
        lambda log: (
            r := log.request(log.who, created=later(log.now(), days=-1), expires=later(log.now(), seconds=-1)),
            log.open(
                log.who, request=r, approvals=[log.approve(r, x, time=log.rows[-1].time) for x in ("anna", "ben")]
            ),
        ), "the request ended at", "is not that of the request",
    ),
    "more than a day before it": (
        lambda log: (
            r := log.request(log.who, created=later(log.now(), days=1, seconds=1), expires=later(log.now(), days=2)),
            log.open(
                log.who, request=r,
                approvals=[log.approve(r, x, time=later(log.now(), days=1)) for x in ("anna", "ben")],
            ),
        ), "the request or an approval", "is not that of the request",
    ),
    # The approvals
    "one of two": (lambda log: log.by_name("anna"), "there are 1 approvals, and", "has not 2 to 3 approvals"),
    "the same twice": (
        lambda log: log.by_name("anna", "anna"), "there twice", "share, or approved before"
    ),
    "one of them twice": (
        lambda log: log.by_name("anna", "ben", "anna"), "there twice", "share, or approved before"
    ),
    "four of three": (
        lambda log: log.by_name("anna", "ben", "carla", "anna"), "there twice", "has not 2 to 3 approvals"
    ),
    "none": (
        lambda log: log.told_as(lambda *_: {"approvals": []}), "there are 0 approvals, and", "has not 2 to 3 approvals"
    ),
    "in an object": (
        lambda log: log.told_as(lambda *_: {"approvals": {}}), "not a list of approvals", "has not 2 to 3 approvals"
    ),
    "of nothing": (
        lambda log: log.told_as(lambda _, two: {"approvals": [two[0].value, None]}),
        "NoneType' object is not", "members than the spec's",
    ),
    "an approval that tells more": (
        lambda log: log.told_as(lambda _, two: {"approvals": [two[0].value, two[1].value | {"more": 1}]}),
        "not a quoted statement", "members than the spec's",
    ),
    "an approval of another vault": (
        lambda log: log.approving(vault="00" * 16), "of another request", "2 is of another vault"
    ),
    "an approval of another ceremony": (
        lambda log: log.approving(ceremony="00" * 6), "of another ceremony, or of", "2 is of another ceremony"
    ),
    "an approval of another request": (
        lambda log: log.approving(log.request(log.other)), "of another request", "2 is of another request"
    ),
    "by no custodian": (
        lambda log: log.approving(custodian="dora"), "of another ceremony, or of", "share, or approved before"
    ),
    "in another's name": (
        lambda log: log.approving(name="carla", by=log.custodians["ben"]),
        "not signed by", "the key that it should be",
    ),
    "with another's share": (lambda log: log.approving(x=3), "of another ceremony, or of", "share, or approved before"),
    "with share true": (
        lambda log: log.approving(by=log.custodians["ben"], x=True), "not a share's number", "is not a number in range"
    ),
    "with a share in text": (lambda log: log.approving(x="2"), "not a share's number", "is not a number in range"),
    "signed by another custodian": (
        lambda log: log.approving(by=log.custodians["carla"]), "not signed by", "the key that it should be"
    ),
    "signed by a doctor": (
        lambda log: log.approving(by=log.doctor), "not signed by", "the key that it should be"
    ),
    "approved behind its end": (
        lambda log: (
            r := log.request(log.who, created=later(log.now(), days=-2), expires=log.now()),
            log.open(log.who, request=r, approvals=[
                log.approve(r, "anna"), log.approve(r, "ben", time=later(log.now(), seconds=1))
            ]),
        ), "outside of the request's", "or of later than its end",
    ),
    "approved more than a day before it": (
        lambda log: log.approving(time=later(log.now(), days=-1, seconds=-1)),
        "outside of the request's", "or of later than its end",
    ),
    "approved more than a day behind the use": (
        lambda log: log.approving(time=later(log.now(), days=1, seconds=1)),
        "the request or an approval", "a day later than the use",
    ),
    "of another commitment": (
        lambda log: log.approving(commitment="ab" * 32), "of a ceremony that was held in", "2 is of another commitment"
    ),
    "with another's commitment": (
        lambda log: log.approving(commitment=log.custody["custodians"][0]["commitment"]),
        "of a ceremony that was held in", "2 is of another commitment",
    ),
    "of another token's ceremony": (
        lambda log: log.approving(audit_key=log.reserve.id.hex()),
        "of a ceremony that was held in", "2 is of another audit_key",
    ),
    "an approver in the clear": (lambda log: log.approving(approver="ben"), "not canonical", "members than the spec's"),
    "approved in the first year": (
        lambda log: log.approving(time="0001-01-01T00:00:00Z"), "outside of the request's", "or of later than its end"
    ),
    "approved at no time": (lambda log: log.approving(time="today"), "not a UTC time", "'today' is not a UTC time"),
    "a request for an approval": (
        lambda log: log.approving(type="medcrypt/breakglass/request"),
        "another type or version", "of another type or version",
    ),
    "an approval of version 2": (
        lambda log: log.approving(version=2), "another type or version", "of another type or version"
    ),
    **{
        f"an approval without {member}": (
            lambda log, member=member: log.approving(drop=(member,)), f"'{member}'", "other members"
        )
        for member in (
            "audit_key", "ceremony", "commitment", "custodian", "enclosed", "request", "time", "vault", "version", "x"
        )
    },
    "by a custodian of before": (
        lambda log: (ben := log.custodians["ben"], log.rotated(), log.approving(by=ben)),
        "not signed by", "the key that it should be",
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
