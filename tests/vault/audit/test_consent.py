"""What makes break-glass count: custodians on record, a request, their approvals, and what a guest then does."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.notation import parse_time
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.consent import (
    Custody,
    check_approvals,
    check_moment,
    check_request,
    follow_guest,
    guest_name,
)
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.statements import Approval, Request, RequestedBy, Signed
from tests.support.breakglass_builder import Statement
from tests.support.two_readers_breakglass import Emergency

TOKEN = {"label": "nueva", "model": "SoftHSM v2", "serial": "00", "uri": "pkcs11:token=nueva"}
REASON = RequestedBy("nueva", "EXP-1", "la doctora no despierta", "guardia", TOKEN, "00" * 16).encode()
PAIRING = "c0ffee0123456789"


@pytest.fixture(scope="module")
def log() -> Emergency:
    return Emergency().ready()


@pytest.fixture(scope="module")
def custody(log: Emergency) -> Custody:
    return Custody.parse(log.custody, 5, "2026-11-05T09:00:00Z", log.doctor.id)


def request_of(told: Statement) -> Signed[Request]:
    return statements.from_log(told.value, Request)


def asked(log: Emergency, **changed: Any) -> tuple[Signed[Request], list[Signed[Approval]]]:
    """A request, and what anna and ben say to it."""
    request = log.request(log.who, **changed)
    approvals = [statements.from_log(log.approve(request, name).value, Approval) for name in ("anna", "ben")]
    return request_of(request), approvals


class TestCustody:
    def test_what_is_read_is_told_again(self, log: Emergency, custody: Custody) -> None:
        assert custody.value() == log.custody
        assert list(custody.told) == ["anna", "ben", "carla"]

    @pytest.mark.parametrize(
        "change",
        [
            lambda told: told.update(threshold=1),
            lambda told: told.update(threshold=4),
            lambda told: told.update(threshold=True),
            lambda told: told.update(more=""),
            lambda told: told["custodians"].pop(0),
            lambda told: told["custodians"].reverse(),
            lambda told: told["custodians"][1].update(name="anna"),
            lambda told: told["custodians"][1].update(approval_key=told["custodians"][0]["approval_key"]),
            lambda told: told["custodians"][1].update(profile="p256-hpke"),
            lambda told: told["custodians"][1].update(commitment="00"),
        ],
    )
    def test_what_is_none(self, log: Emergency, change: Callable[[dict[str, Any]], object]) -> None:
        told = json.loads(json.dumps(log.custody))
        change(told)
        with pytest.raises((ValueError, KeyError, TypeError, NotAuthentic)):
            Custody.parse(told, 5, "2026-11-05T09:00:00Z", log.doctor.id)


class TestRequest:
    def test_one_that_counts(self, log: Emergency, custody: Custody) -> None:
        request, approvals = asked(log)
        check_request(request, custody, log.vault, ())
        check_approvals(approvals, request, custody)

    def test_signed_by_another_key_than_it_names(self, log: Emergency, custody: Custody) -> None:
        with pytest.raises(NotAuthentic):
            check_request(request_of(log.request(log.who, by=log.other)), custody, log.vault, ())

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"vault": "00" * 16}, "the request is for another vault"),
            ({"sequence": 4}, "from before the ceremony"),
            ({"ceremony": "00" * 6}, "to the custodians of ceremony 000000000000"),
        ],
    )
    def test_of_something_else(self, log: Emergency, custody: Custody, changed: dict[str, Any], words: str) -> None:
        with pytest.raises(BreakGlassRefused, match=words):
            check_request(request_of(log.request(log.who, **changed)), custody, log.vault, ())

    def test_used_already(self, log: Emergency, custody: Custody) -> None:
        request, _ = asked(log)
        with pytest.raises(BreakGlassRefused, match="BG-5"):
            check_request(request, custody, log.vault, {request.id})


class TestApprovals:
    def test_too_few_or_one_twice(self, log: Emergency, custody: Custody) -> None:
        request, (anna, _) = asked(log)
        with pytest.raises(BreakGlassRefused, match=r"there are 1 approvals, and 2 are needed.*BG-2"):
            check_approvals([anna], request, custody)
        with pytest.raises(BreakGlassRefused, match="the approval of 'anna' is there twice"):
            check_approvals([anna, anna], request, custody)

    def test_of_another_request(self, log: Emergency, custody: Custody) -> None:
        request, _ = asked(log)
        _, others = asked(log)
        with pytest.raises(BreakGlassRefused, match="the approval of 'anna' is of another request"):
            check_approvals(others, request, custody)

    def test_in_a_custodians_name_and_not_by_them(self, log: Emergency, custody: Custody) -> None:
        request = log.request(log.who)
        forged = statements.from_log(log.approve(request, "anna", by=log.who).value, Approval)
        with pytest.raises(NotAuthentic, match="the approval of 'anna' is not signed by that custodian's token"):
            check_approvals([forged], request_of(request), custody)


def test_a_request_ends_and_is_not_from_ahead(log: Emergency) -> None:
    request, approvals = asked(log)
    expires, created = parse_time(request.told.expires), parse_time(request.told.created)
    check_moment(expires, request, approvals)
    check_moment(created - timedelta(days=1), request, approvals)  # two clocks may differ by a day
    for now, words in ((expires + timedelta(seconds=1), "the request ended at"),
                       (datetime(2026, 11, 1, tzinfo=UTC), "ahead of this clock")):  # fmt: skip
        with pytest.raises(BreakGlassRefused, match=words):
            check_moment(now, request, approvals)


class TestGuest:
    """What a guest wrote, opened: for one patient, and nothing else."""

    @pytest.fixture
    def entries(self, log: Emergency) -> tuple[Entry, Entry, Entry]:
        """Opened, the reason, a message read."""
        request = log.request(log.who, enclosed=sha256(REASON).hexdigest())
        name = guest_name(bytes.fromhex(request.id))
        row = "00" * 32
        read = {"messages": [{"patient": "EXP-1", "pairing": PAIRING, "messages": [["p", "1.1", row]]}]}

        def entry(action: str, subject: str, detail: dict[str, Any]) -> Entry:
            return Entry(log.now(), "guardia", name, action, subject, "done", detail)

        return (
            entry("breakglass.open", "", {"request": request.value}),
            entry("breakglass.read", "EXP-1", {"enclosure": REASON.decode()}),
            entry("message.decrypt", "EXP-1", read),
        )

    @staticmethod
    def follow(*entries: Entry) -> None:
        run = None
        for sequence, entry in enumerate(entries, 7):
            run = follow_guest(run, sequence, entry, lambda pairing, patient: patient == "EXP-1", guest=True)
        assert run is not None

    def test_the_reason_that_was_approved_then_messages(self, entries: tuple[Entry, Entry, Entry]) -> None:
        self.follow(*entries)

    def test_no_message_without_the_reason_and_the_reason_once(self, entries: tuple[Entry, Entry, Entry]) -> None:
        opened, reason, read = entries
        with pytest.raises(KeyError, match="enclosure"):
            self.follow(opened, read)
        with pytest.raises(ValueError, match="another reason than was approved"):
            self.follow(opened, reason._replace(detail={"enclosure": "{}"}))
        with pytest.raises(ValueError, match="its reason twice"):
            self.follow(opened, reason, reason)

    def test_no_other_patient_action_or_name(self, entries: tuple[Entry, Entry, Entry]) -> None:
        opened, reason, read = entries

        groups = [{"patient": "EXP-2", "pairing": PAIRING, "messages": []}]
        for other, words in (
            (read._replace(detail={"messages": groups}), "another patient"),
            (read._replace(action="message.encrypt"), "none of a guest's"),
            (read._replace(detail={"writes": ["record:log::1"]}), "rows that are none of a guest's"),
            (read._replace(token="doctor"), "in another's name"),
            (read._replace(time="2027-01-01T00:00:00Z"), "outside of its time"),
        ):
            with pytest.raises(ValueError, match=words):
                self.follow(opened, reason, other)
