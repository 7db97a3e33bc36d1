"""scripts/standalone/recover.py: what a log may not tell of uses of break-glass, one fault a test
(docs/spec/breakglass.md).

Were such an entry believed, whoever writes to the file could add a token, and with it an escrow, of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.openable_vault import CUSTODIANS, Practice, make_practice
from tests.support.vault_builder import SoftToken


@pytest.fixture
def practice(tmp_path: Path) -> Practice:
    return make_practice(tmp_path)


def opens(*xs: int, approval: dict[str, object] | None = None, **request: object) -> Callable[[Practice], object]:
    """`breakglass.open` for one patient, with approvals of these custodians."""
    return lambda practice: practice.built.open_patient(SoftToken(""), xs=xs or (1, 2), approval=approval, **request)


def forged_approvals(practice: Practice) -> None:
    real = practice.ceremony
    practice.built.ceremony = real._replace(approvers=tuple(SoftToken(name) for name in CUSTODIANS))
    practice.built.open_patient(SoftToken(""))
    practice.built.ceremony = real


def used_again(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    again = json.loads(practice.built.rows[-1].stored[1:])["detail"]
    practice.built.clear("breakglass.open", again, guest)


def guest_changes_trust(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    practice.built.open_month("2026-12")
    practice.built.told("message.decrypt", {}, guest)


def guest_introduces(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    practice.built.introduce(SoftToken("mine"), guest, row=False, serial="98")


def guest_stays(practice: Practice) -> None:
    guest = SoftToken("")
    practice.built.open_patient(guest)
    practice.sign_anew()
    practice.built.told("message.decrypt", {}, guest)


def guest_is_late(practice: Practice) -> None:
    guest = SoftToken("")
    id_ = practice.built.open_patient(guest)
    for _ in range(4):
        practice.built.told("message.decrypt", {}, guest)
    practice.built.clear("breakglass.close", {"request": id_.hex()}, guest)


def late(practice: Practice) -> None:
    guest = SoftToken("")
    request, id_ = practice.built.request(guest, "patient")
    approvals = [practice.built.approval(x, id_) for x in (1, 2)]
    for _ in range(4):
        practice.sign_anew()
    practice.built.clear("breakglass.open", {"approvals": approvals, "request": request}, guest)


def no_custodians_yet(practice: Practice) -> None:
    practice.drop_ceremony()
    practice.built.clear("breakglass.open", {}, practice.praxis)


def opening_of(practice: Practice, guest: SoftToken) -> dict[str, Any]:
    """What the entry of an honest opening tells; the entry is gone again."""
    practice.built.open_patient(guest)
    detail: dict[str, Any] = json.loads(practice.built.rows.pop().stored[1:])["detail"]
    return detail


def one_member_more(practice: Practice) -> None:
    detail = opening_of(practice, guest := SoftToken(""))
    practice.built.clear("breakglass.open", detail | {"token": {}}, guest)


def request_of_another(practice: Practice) -> None:
    detail = opening_of(practice, guest := SoftToken(""))
    detail["request"]["signature"] = SoftToken("").sign(b"").hex()
    practice.built.clear("breakglass.open", detail, guest)


def opening_that_changes_trust(practice: Practice) -> None:
    detail = opening_of(practice, guest := SoftToken(""))
    practice.built.open_month("2026-12")
    practice.built.clear("breakglass.open", detail, guest)


def before_the_ceremony(practice: Practice) -> None:
    row = practice.built.rows[5]
    practice.built.open_patient(SoftToken(""), hash=row.hash.hex(), sequence=row.sequence)


NOT_AN_OPENING: dict[str, tuple[Callable[[Practice], object], str]] = {
    "no custodians yet": (no_custodians_yet, "it opens by a break-glass that the vault does not have"),
    "one member more": (one_member_more, "it has other members than the spec's"),
    "a request of another": (request_of_another, "the request's signature is not its signer's"),
    "an opening that changes trust": (opening_that_changes_trust, "opening one patient changed the trust state"),
    "too few approvals": (opens(1), "not as many approvals, of different custodians, as it takes (BG-2)"),
    "one custodian twice": (opens(1, 1), "not as many approvals, of different custodians, as it takes (BG-2)"),
    "of another request": (opens(approval={"request": "ab" * 32}), "an approval is of another request"),
    "of another's x": (opens(approval={"x": 3}), "an approval is of another request or of no custodian (BG-3)"),
    "of another share": (opens(approval={"commitment": "ab" * 32}), "of another share than that custodian's"),
    "of another log": (opens(approval={"audit_key": "ab" * 32}), "or of another log (BG-3)"),
    "of another ceremony": (opens(approval={"ceremony": "ab" * 6}), "an approval is not of this vault and ceremony"),
    "an approval that is late": (
        opens(approval={"time": "2026-12-01T00:00:00Z"}),
        "an approval was given when the request had ended, or was not made yet (BG-4)",
    ),
    "an approval that is early": (
        opens(approval={"time": "2026-11-01T00:00:00Z"}),
        "an approval was given when the request had ended, or was not made yet (BG-4)",
    ),
    "forged approvals": (forged_approvals, "an approval is not signed by custodian 'ana' (BG-3)"),
    "another history": (opens(hash="ab" * 32), "an entry that a registered token did not write since the ceremony"),
    "a history before": (before_the_ceremony, "an entry that a registered token did not write since the ceremony"),
    "a request of a year": (opens(expires="2027-11-01T00:00:00Z"), "later than three days after it was made (BG-4)"),
    "a request that had ended": (late, "the request had ended, or was not made or approved yet (BG-4)"),
    "a request that was used": (used_again, "the request was used before, or its signer was (BG-5)"),
    "a guest that changes the trust state": (guest_changes_trust, "a guest changed the trust state"),
    "a guest that introduces a token": (guest_introduces, "a guest may only write sealed entries"),
    "a guest that stays": (guest_stays, "which was not introduced before"),
    "a guest that is late": (guest_is_late, "a guest wrote it when the request had ended (BG-4)"),
    "a guest's end without a guest": (
        lambda p: p.built.clear("breakglass.close", {"request": "ab" * 32}, p.praxis),
        "it ends a guest's run, and no guest wrote it",
    ),
    "an heir of a guest's name": (
        lambda p: p.built.open_practice(SoftToken("bg-00000000")),
        "token 'bg-00000000' has a guest's name, or is a custodian's (BG-1)",
    ),
    "an heir that is a custodian": (
        lambda p: p.built.open_practice(SoftToken("heir"), serial="2"),
        "token 'heir' has a guest's name, or is a custodian's (BG-1)",
    ),
}


@pytest.mark.parametrize("what", NOT_AN_OPENING)
def test_a_use_that_the_custodians_did_not_allow(practice: Practice, what: str) -> None:
    fault, why = NOT_AN_OPENING[what]
    fault(practice)
    practice.refused(why)


def test_what_a_guest_may_not_have_written(practice: Practice) -> None:
    """What is sealed is seen only now."""
    guest = SoftToken("")
    practice.built.open_patient(guest)
    practice.built.told("patient.add", {}, guest)
    practice.built.told("message.decrypt", {"writes": ["sealed:patient:00"]}, guest)
    practice.built.told("message.failed", {}, guest)
    done = practice.run("check")
    assert done.code == 5
    assert [line for line in done.err.splitlines() if line.startswith("error: ")] == [
        "error: entry 11 is of a guest, who may not write it",
        "error: entry 12 is of a guest, who may not write it",
        "error: entry 13 was written by a guest when the request had ended (BG-4)",
        "error: rows were not compared with the log, since not every entry is as it should be",
    ]
