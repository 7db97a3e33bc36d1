"""Holds through the library: put on, listed, lifted, and each of it recorded."""

from __future__ import annotations

from medcrypt_hsm import Month
from tests.support.practice import Practice


def test_a_hold_from_its_beginning_to_its_end(practice: Practice) -> None:
    november = Month.parse("2026-11")
    with practice.open() as vault:
        assert vault.holds.list() == []
        held = vault.holds.add("an inspection", month=november)
        assert (held.month, held.patient, held.reasons) == ("2026-11", "", ("an inspection",))
        assert vault.holds.list() == [held]
        assert vault.holds.remove("it is over", month=november) == held
        assert vault.holds.list() == []
        told = [(e.action, e.subject, e.detail.get("reason")) for _, e in vault.log.entries() if "hold" in e.action]
        assert told == [
            ("hold.list", "", None),
            ("hold.add", "2026-11", "an inspection"),
            ("hold.list", "", None),
            ("hold.remove", "2026-11", "it is over"),
            ("hold.list", "", None),
        ]
        vault.log.verify()
