"""scripts/standalone/patient.py against forged parts of a message, and against a clock that is far from the truth."""

from __future__ import annotations

import pytest

from scripts.standalone import patient
from scripts.standalone.patient import Month, Plaintext, Problem
from tests.standalone.test_patient import PAIRED, Phone, at, doctor, doctor_parts, paired, phone, plaintext, problem

__all__ = ["phone"]  # the fixture


def forge(wire: str) -> str:
    """What somebody without the key can make of it: the same header and nonce, another tag."""
    return wire[:-3] + ("A" if wire[-3] != "A" else "B") + wire[-2:]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1), (0, 1, 2, 2)])
def test_a_forged_part_does_not_spoil_its_message(order: tuple[int, ...]) -> None:
    parts = doctor_parts("2026-11", "take ", "two")
    wires, state, now = [*parts, forge(parts[1])], paired(), at("2026-11-25")
    results = patient.read(state, " ".join(wires[i] for i in order), now)
    assert len(results) == 2
    shown, refused = sorted(results, key=lambda result: isinstance(result, Problem))
    assert plaintext(shown) == Plaintext("take two", "d", Month.parse("2026-11"), "")
    assert problem(refused).code == patient.NOT_AUTHENTIC
    assert isinstance(results[0], Problem) == (order[0] == 2), "in the order in which they begin"
    again = patient.read(state, "".join(parts), now)
    assert [plaintext(one).notes for one in again] == [", seen before"]


def test_a_forged_part_does_not_stand_in_for_a_missing_one() -> None:
    first, second = doctor_parts("2026-11", "take ", "two")
    results = patient.read(paired(), first + forge(second), at("2026-11-25"))
    assert [problem(one).code for one in results] == [patient.REFUSED, patient.NOT_AUTHENTIC]
    assert "missing of its 2 parts: 2" in problem(results[0]).what


def test_parts_that_are_all_forged_leave_no_trace() -> None:
    parts, state, now = doctor_parts("2026-11", "take ", "two"), paired(), at("2026-11-25")
    [result] = patient.read(state, "".join(map(forge, parts)), now)
    assert problem(result).code == patient.NOT_AUTHENTIC
    assert not any(state.seen.values())
    assert plaintext(patient.read(state, "".join(parts), now)[0]).notes == ""


def test_a_conflicting_part_beside_a_forged_one_is_malformed_still() -> None:
    parts = doctor_parts("2026-11", "take ", "two")
    text = "".join(parts) + forge(parts[0]) + doctor("2026-11", "nine", "2.2.3q2+7w")
    results = [problem(one) for one in patient.read(paired(), text, at("2026-11-25"))]
    assert [one.code for one in results] == [patient.NOT_AUTHENTIC] * 2
    assert [one.what.split(":")[0] for one in results] == ["malformed", "not authentic"]


@pytest.mark.parametrize("together", [True, False])
def test_a_forged_text_does_not_take_up_a_nonce(together: bool) -> None:
    wire, state, now = doctor("2026-11", "2 mg"), paired(), at("2026-11-25")
    if together:
        results = patient.read(state, forge(wire) + wire, now)
    else:
        results = patient.read(state, forge(wire), now) + patient.read(state, wire, now)
    assert problem(results[0]).code == patient.NOT_AUTHENTIC
    assert plaintext(results[1]).notes == ""
    after = patient.read(state, forge(wire) + wire, now)
    assert problem(after[0]).code == patient.NOT_AUTHENTIC
    assert plaintext(after[1]).notes == ", seen before"


@pytest.mark.parametrize("command", ["read", "write"])
def test_a_clock_that_is_far_ahead_costs_nothing(phone: Phone, command: str) -> None:
    before, wire = phone.state.read_bytes(), doctor("2026-11", "take one")
    for when in ("2027-01-01 00:00:00", "2031-05-05 10:00:00"):
        done = phone.run(when, command, stdin=wire)
        assert (done.returncode, done.stdout) == (patient.REFUSED, "")
        assert f"--to {when[:7]}" in done.stderr
    for wrong in ("2031-04", "2031-06", "2026-11"):
        done = phone.run("2031-05-05 10:00:00", command, "--to", wrong, stdin=wire)
        assert (done.returncode, done.stdout) == (patient.REFUSED, "")
    assert phone.state.read_bytes() == before
    assert phone.run("2026-12-01 10:00:00", "read", stdin=wire).stdout == "take one", "one month needs no option"
    assert ":2026-12:p:1.1:" in phone.run("2026-12-01 10:00:00", "write", stdin="still here").stdout


def test_several_months_are_read_once_the_clock_is_vouched_for(phone: Phone) -> None:
    wire = doctor("2027-02", "welcome back")
    assert phone.run("2027-02-10 10:00:00", "read", stdin=wire).returncode == patient.REFUSED
    for _ in range(2):  # where nothing is due, it does no harm
        assert phone.run("2027-02-10 10:00:00", "read", "--to", "2027-02", stdin=wire).stdout == "welcome back"
    assert phone.run("2027-03-10 10:00:00", "read", "--archive", stdin=wire).stdout == "welcome back"


@pytest.mark.parametrize("when", ["1999-12-31 23:59:59", "2100-01-01 00:00:00"])
@pytest.mark.parametrize("command", ["read", "write"])
def test_a_clock_outside_all_months(phone: Phone, when: str, command: str) -> None:
    done = phone.run(when, command, stdin=doctor("2026-11", "x"))
    assert (done.returncode, done.stdout) == (patient.REFUSED, "")


def test_a_forged_part_at_the_command_line(phone: Phone) -> None:
    parts = doctor_parts("2026-11", "take ", "two")
    done = phone.run(PAIRED, "read", stdin="\n".join([*parts, forge(parts[1])]))
    assert done.returncode == patient.NOT_AUTHENTIC
    assert done.stdout == "== message 1 of 2: from the doctor, 2026-11, 8 bytes ==\ntake two\n"
    assert done.stderr.startswith("error: message 2 of 2: not authentic")
