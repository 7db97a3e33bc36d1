"""``EntryFilter``: by patient, actor, action and time; and that a reading is recorded with what it was after."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.filter import EVERY_ENTRY, EntryFilter, moment
from tests.support.practice import Practice, forge

GROUP = {"patient": "EXP-1", "pairing": "00" * 8, "month": "2026-11", "version": "v2", "messages": [["d", "1.1", "00"]]}
ENTRY = Entry("2026-11-22T12:00:00Z", "mara", "doctor", "message.decrypt", "", "intended", {"messages": [GROUP]})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"patient": "EXP-1"},
        {"actor": "mara"},
        {"action": "message.decrypt"},
        {"action": "message"},
        {"since": "2026-11-22T12:00:00Z"},
        {"until": "2026-11-22T12:00:00Z"},
        {"since": "2026-11-22T12:00:00Z", "until": "2026-11-22T12:00:00Z", "actor": "mara", "patient": "EXP-1"},
    ],
)
def test_taken(given: dict[str, str]) -> None:
    assert EntryFilter(**given).takes(ENTRY)


@pytest.mark.parametrize(
    "given",
    [
        {"patient": "EXP-2"},
        {"patient": "EXP"},
        {"patient": "2026-11"},
        {"actor": "Mara"},
        {"action": "message.encrypt"},
        {"action": "mess"},
        {"action": "message."},
        {"action": "decrypt"},
        {"since": "2026-11-22T12:00:01Z"},
        {"until": "2026-11-22T11:59:59Z"},
        {"patient": "EXP-1", "actor": "luis"},
    ],
)
def test_not_taken(given: dict[str, str]) -> None:
    assert not EntryFilter(**given).takes(ENTRY)


@pytest.mark.parametrize(
    "given",
    [
        {"patient": ""},
        {"actor": "\udcff"},
        {"since": "2026-11-22"},
        {"until": "tomorrow"},
        {"since": "2026-11-22T12:00:01Z", "until": "2026-11-22T12:00:00Z"},
    ],
)
def test_no_filter(given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        EntryFilter(**given)


def test_days_and_times() -> None:
    assert moment("2026-11-22") == "2026-11-22T00:00:00Z"
    assert moment("2026-11-22", end=True) == "2026-11-22T23:59:59Z"
    assert moment("2026-11-22T12:00:00Z", end=True) == "2026-11-22T12:00:00Z"


@pytest.mark.parametrize(
    "text",
    ["", "2026-11", "2026-11-31", "2026-1-1", "22.11.2026", "2026-11-22 12:00:00", "2026-11-22T12:00Z", "2026-11-22T12"
     ":00:00", "2026-11-22T24:00:00Z", "2026-11-22T12:00:00+00:00", "２０２６-11-22", "2026-11-22\n"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    for end in (False, True):
        with pytest.raises(UsageError, match="is not a time"):
            moment(text, end=end)


def test_a_patient_is_found_by_subject_messages_and_by_who_looked(practice: Practice) -> None:
    """Messages of several patients are read at once: their entry has no subject."""
    with practice.open() as vault:
        one, two = practice.pair(vault, "EXP-1"), practice.pair(vault, "EXP-2")
        practice.pair(vault, "EXP-3")
        (good,), (bad,) = one.write("uno"), two.write("dos")
        vault.decrypt("\n".join((good, forge(bad))))
        vault.encrypt("EXP-2", "tres")
        vault.patients.list()
        first = vault.log.entries(EntryFilter(patient="EXP-2"))
        second = vault.log.entries(EntryFilter(patient="EXP-2", action="audit"))
        everything = vault.log.entries()
    assert [(entry.action, entry.subject) for _, entry in first] == [
        ("patient.add", "EXP-2"),
        ("patient.confirm", "EXP-2"),
        ("message.decrypt", ""),
        ("message.failed", "EXP-2"),
        ("message.encrypt", "EXP-2"),
        ("audit.show", ""),
    ]
    assert [entry.detail for _, entry in second] == [
        {"filter": {"patient": "EXP-2"}},
        {"filter": {"patient": "EXP-2", "action": "audit"}},
    ]
    assert {number for number, _ in first} < {number for number, _ in everything}
    assert everything[-1][1].detail == {}


def test_by_time(practice: Practice) -> None:
    with practice.open() as vault:
        practice.clock.forward(seconds=1)
        vault.patients.list()
        practice.clock.forward(seconds=1)
        vault.patients.list()
        found = vault.log.entries(EntryFilter(since="2026-11-22T12:00:01Z", until="2026-11-22T12:00:01Z"))
        assert [(entry.action, entry.time) for _, entry in found] == [("patient.list", "2026-11-22T12:00:01Z")]
        assert len(vault.log.entries(EVERY_ENTRY)) == len(vault.log.entries()) - 1
