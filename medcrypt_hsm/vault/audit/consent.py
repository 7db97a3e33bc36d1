"""What makes a break-glass entry count: the custodians on record, a request, and their approvals.

In: the details of audit entries in the clear. Out: frozen values; what is not as docs/spec/breakglass.md has it is a
ValueError, or a ``BreakGlassRefused`` that names the rule. The same checks serve whoever uses break-glass now and
whoever reads later that it was used. Not here: tokens, shares, files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.notation import octets, parse_time
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.actions import (
    BREAKGLASS_CLOSE,
    BREAKGLASS_OPEN,
    BREAKGLASS_READ,
    GUEST_ACTIONS,
    MESSAGE_FAILED,
)
from medcrypt_hsm.vault.audit.entries import GRADES, PROFILES, Entry
from medcrypt_hsm.vault.audit.fields import check_kek, p256_key
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.statements import Approval, Request, Signed
from medcrypt_hsm.vault.audit.trust_custody import CEREMONY_BYTES, CUSTODIAN_TOLD, GUEST, MOST, PATIENT, BreakGlass

SKEW = timedelta(days=1)
SEEN_ROW = 64  # characters of a listed message's row that is new; one that was there before is longer
IsOf = Callable[[bytes, str], bool]
"""Is that pairing, or was it until it was erased, of the patient with this id?"""


class Custody(NamedTuple):
    """The custodians as the log tells of them. ``told``: each one's members, by name, in the order of x."""

    ceremony: bytes
    key: bytes  # the break-glass key's fingerprint
    threshold: int
    told: Mapping[str, Mapping[str, Any]]
    entry: int
    time: str
    signer: bytes  # fingerprint of the audit key of the token that the ceremony was held with

    @classmethod
    def parse(cls, value: Mapping[str, Any], entry: int, time: str, signer: bytes) -> Custody:
        """The member ``custody`` of ``vault.rekey``. Raises ValueError, KeyError, TypeError, NotAuthentic."""
        if set(value) != {"ceremony", "custodians", "key", "threshold"}:
            raise ValueError("a custody with other members")
        custodians = value["custodians"]
        if not isinstance(custodians, list) or type(value["threshold"]) is not int:
            raise ValueError("not a custody")
        if not 2 <= value["threshold"] <= len(custodians) <= MOST:
            raise ValueError("a threshold that cannot be")
        for x, told in enumerate(custodians, 1):
            _check_custodian(told, x)
        keys = {told["approval_key"] for told in custodians}
        names = {told["name"]: told for told in custodians}
        if len(keys) != len(custodians) or len(names) != len(custodians):
            raise ValueError("a custodian named twice")
        ceremony, key = octets(value["ceremony"], CEREMONY_BYTES), octets(value["key"], 32)
        return cls(ceremony, key, value["threshold"], names, entry, time, signer)

    @classmethod
    def of(cls, breakglass: BreakGlass) -> Custody:
        """From trust rows that a verified head signed."""
        ordered = sorted(breakglass.custodians.values(), key=lambda custodian: custodian.x)
        return cls(
            breakglass.ceremony,
            hashlib.sha256(breakglass.key).digest(),
            breakglass.threshold,
            {custodian.name: custodian.told() for custodian in ordered},
            breakglass.entry,
            breakglass.since,
            breakglass.audit_key,
        )

    def value(self) -> dict[str, Any]:
        return {
            "ceremony": self.ceremony.hex(),
            "custodians": [dict(told) for told in self.told.values()],
            "key": self.key.hex(),
            "threshold": self.threshold,
        }


def _check_custodian(told: Mapping[str, Any], x: int) -> None:
    if set(told) != set(CUSTODIAN_TOLD) or type(told["x"]) is not int or told["x"] != x:
        raise ValueError("a custodian with other members, or out of order")
    if not all(isinstance(told[member], str) for member in CUSTODIAN_TOLD if member != "x"):
        raise ValueError("not text")
    if told["profile"] not in PROFILES or told["attestation"] not in GRADES or not statements.is_name(told["name"]):
        raise ValueError("a custodian of unknown profile or grade, or with no name")
    octets(told["commitment"], 32)
    p256_key(told["approval_key"])
    if (told["profile"] == "p256-hpke") != bool(told["kek"]):
        raise ValueError("a public key for a KEK that has none, or none for one that has")
    check_kek(told["profile"], told["kek"])


def check_request(request: Signed[Request], custody: Custody, vault_id: bytes, used: Collection[bytes]) -> None:
    """Is it a request to these custodians, signed by its own key, and not used? Time is the caller's question.

    Raises BreakGlassRefused or NotAuthentic.
    """
    told = request.told
    request.verify(told.signer)
    if told.vault_id != vault_id:
        raise BreakGlassRefused(Rule.BG_3, t("the request is for another vault, {vault}", vault=told.vault_id.hex()))
    if told.sequence < custody.entry:
        raise BreakGlassRefused(Rule.BG_3, "the request is from before the ceremony that it names")
    if told.ceremony != custody.ceremony:
        raise BreakGlassRefused(
            Rule.BG_3,
            t(
                "the request is to the custodians of ceremony {ceremony}; the present one is {present}",
                ceremony=told.ceremony.hex(),
                present=custody.ceremony.hex(),
            ),
            "make a new request: 'medcrypt breakglass request'",
        )
    if request.id in used:
        raise BreakGlassRefused(
            Rule.BG_5, "this request was used already", "make a new request: 'medcrypt breakglass request'"
        )


def check_approvals(approvals: Sequence[Signed[Approval]], request: Signed[Request], custody: Custody) -> None:
    """Are they t approvals of this very request, each by another custodian on record?

    Raises BreakGlassRefused or NotAuthentic, naming the custodian.
    """
    seen = set()
    for approval in approvals:
        told = approval.told
        whose = t("the approval of {custodian!a}", custodian=told.custodian)
        if told.request != request.id or told.vault_id != request.told.vault_id:
            raise BreakGlassRefused(Rule.BG_3, t("{approval} is of another request", approval=whose))
        known = custody.told.get(told.custodian)
        if known is None or told.ceremony != custody.ceremony or told.x != known["x"]:
            raise BreakGlassRefused(
                Rule.BG_3, t("{approval} is of another ceremony, or of nobody's share", approval=whose)
            )
        try:
            approval.verify(bytes.fromhex(known["approval_key"]))
        except NotAuthentic as exc:
            raise NotAuthentic(
                t(
                    "{approval} is not signed by that custodian's token: it was altered, or is forged ({rule})",
                    approval=whose,
                    rule=Rule.BG_3,
                ),
                "ask the custodian, by voice, whether they gave it",
            ) from exc
        if (told.commitment.hex(), told.audit_key) != (known["commitment"], custody.signer):
            # y is sealed alone: only this says whose log the share belongs to.
            raise NotAuthentic(
                t(
                    "{approval} is of a ceremony that was held in another log than this file's ({rule})",
                    approval=whose,
                    rule=Rule.BG_3,
                ),
                "the file was forged, or is another vault's: call the security officer",
            )
        given, asked = parse_time(told.time), parse_time(request.told.created)
        if asked - given > SKEW or given > parse_time(request.told.expires):  # a difference is in range in any year
            raise BreakGlassRefused(Rule.BG_4, t("{approval} was given outside of the request's time", approval=whose))
        if told.custodian in seen:
            raise BreakGlassRefused(
                Rule.BG_2, t("{approval} is there twice", approval=whose), "give each custodian's approval once"
            )
        seen.add(told.custodian)
    if len(seen) < custody.threshold:
        raise BreakGlassRefused(
            Rule.BG_2,
            t("there are {count} approvals, and {threshold} are needed", count=len(seen), threshold=custody.threshold),
            t("the custodians are: {custodians}", custodians=", ".join(custody.told)),
        )


def check_moment(now: datetime, request: Signed[Request], approvals: Sequence[Signed[Approval]]) -> None:
    """BG-4. Raises BreakGlassRefused."""
    told = request.told
    earliest = max(parse_time(moment) for moment in (told.created, *(approval.told.time for approval in approvals)))
    if now > parse_time(told.expires):
        raise BreakGlassRefused(
            Rule.BG_4,
            t("the request ended at {time}", time=told.expires),
            "make a new request: 'medcrypt breakglass request'",
        )
    if earliest - now > SKEW:
        raise BreakGlassRefused(
            Rule.BG_4, t(
                "the request or an approval is of {time} UTC, ahead of this clock", time=f"{earliest:%Y-%m-%d %H:%M}"
            ),
            "check this machine's clock and theirs",
        )  # fmt: skip


class Opening(NamedTuple):
    """A ``breakglass.open`` that counts: request and approvals hold."""

    request: Signed[Request]
    approvals: tuple[Signed[Approval], ...]
    token: Mapping[str, Any] | None  # of scope practice: the introduction

    @property
    def name(self) -> str:
        """What the log calls the signer."""
        return guest_name(self.request.id)

    @classmethod
    def parse(
        cls, detail: Mapping[str, Any], time: str, custody: Custody, vault_id: bytes, used: Collection[bytes]
    ) -> Opening:
        """Raises ValueError, KeyError, TypeError, AttributeError, NotAuthentic or BreakGlassRefused."""
        request = statements.from_log(detail["request"], Request)
        quoted = detail["approvals"]
        if not isinstance(quoted, list) or len(quoted) > MOST:
            raise ValueError("not a list of approvals")
        approvals = tuple(statements.from_log(one, Approval) for one in quoted)
        check_request(request, custody, vault_id, used)
        check_approvals(approvals, request, custody)
        check_moment(parse_time(time), request, approvals)
        told = request.told
        members = {"approvals", "request"} | (set() if told.scope == PATIENT else {"token"})
        if set(detail) != members:
            raise ValueError("other members than the spec's")
        return cls(request, approvals, detail.get("token"))

    def detail(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "approvals": [approval.quoted() for approval in self.approvals],
            "request": self.request.quoted(),
        }
        return found if self.token is None else found | {"token": dict(self.token)}


def guest_name(request: bytes) -> str:
    """The token name of a guest's entries."""
    return f"{GUEST}{request.hex()[:8]}"


class GuestRun:
    """What a guest wrote after ``breakglass.open``, entry by entry, opened: to be checked with the token."""

    def __init__(self, request: Signed[Request], opened_at: str) -> None:
        self._request = request
        self._time = opened_at
        self._patient = ""
        self._entries: dict[int, set[str]] = {}  # of each, the seen rows that it made

    def take(self, sequence: int, entry: Entry, is_of: IsOf) -> None:
        """Raises ValueError, KeyError, TypeError, Malformed for what a guest may not write."""
        if not self._time <= entry.time <= self._request.told.expires:
            raise ValueError("outside of its time")
        self._time = entry.time
        if entry.action == BREAKGLASS_CLOSE:
            return
        if entry.action not in GUEST_ACTIONS or entry.token != guest_name(self._request.id):
            raise ValueError("an action that is none of a guest's")
        if {"writes", "deletes"} & set(entry.detail):
            raise ValueError("rows that are none of a guest's")
        if not self._entries:
            self._take_reason(entry)
        elif entry.action == BREAKGLASS_READ:
            raise ValueError("its reason twice")
        groups = entry.detail.get("messages", ())
        if any(g["patient"] != self._patient or not is_of(bytes.fromhex(g["pairing"]), g["patient"]) for g in groups):
            raise ValueError("another patient")
        made = {row for group in groups for _, _, row in group["messages"] if len(row) == SEEN_ROW}
        if entry.action == MESSAGE_FAILED:
            read = self._entries.get(entry.detail["entry"])
            if read is None or not made <= read:
                raise ValueError("a failure of another's reading")  # whose seen rows it would take away
        self._entries[sequence] = made

    def _take_reason(self, entry: Entry) -> None:
        enclosure = entry.detail["enclosure"].encode()
        if entry.action != BREAKGLASS_READ or hashlib.sha256(enclosure).digest() != self._request.told.enclosed:
            raise ValueError("another reason than was approved")
        self._patient = statements.RequestedBy.parse(enclosure).patient
        if not self._patient or entry.subject != self._patient:
            raise ValueError("another patient than was approved")


def follow_guest(run: GuestRun | None, sequence: int, entry: Entry, is_of: IsOf, *, guest: bool) -> GuestRun | None:
    """The run as it is after this entry. ``guest``: no registered token signed it. Raises as ``GuestRun.take`` does."""
    if guest != entry.token.startswith(GUEST):
        raise ValueError("in another's name")
    if entry.action == BREAKGLASS_OPEN:
        request = statements.from_log(entry.detail["request"], Request)
        return GuestRun(request, entry.time) if request.told.scope == PATIENT else None
    if not guest:
        return None
    if run is None:
        raise ValueError("outside of its use")
    run.take(sequence, entry, is_of)
    return None if entry.action == BREAKGLASS_CLOSE else run
