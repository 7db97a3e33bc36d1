"""A vault's status, verified: what its file says, and what takes the token to know."""

from __future__ import annotations

from medcrypt_hsm.tokens.access import open_token
from tests.support.practice import Practice, pin, unlocked


def test_what_the_token_adds_to_what_the_file_says(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        found = vault.status()
        assert (found.verified, found.in_use, found.orphans, found.problems) == (True, "doctor", (), ())
        assert found.anchor == found.entries == 2
        before = unlocked(vault).log.sequence
        vault.status()
        assert unlocked(vault).log.sequence == before, "it shows no name, and is not recorded"


def test_an_object_that_nothing_refers_to(shared_practice: Practice) -> None:
    with open_token(shared_practice.uri, pin) as token:
        token.put_object("medcrypt stray", b"x")
    with shared_practice.open() as vault:
        assert vault.status().orphans == ("medcrypt stray",)
        assert vault.status().problems[-1] == ("the token holds an object that this vault does not use: medcrypt stray")
        unlocked(vault).token.destroy("medcrypt stray")


def test_a_clock_that_is_behind_and_what_could_not_be_ended_come_first(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        shared_practice.clock.set("2026-11-20")
        unlocked(vault).unsettled = "the disk is full"
        clock, unsettled = vault.status().problems
        assert clock == (
            "this machine's clock says 2026-11-20T12:00:00Z, the newest audit entry is of 2026-11-22T12:00:00Z: "
            "nothing is written until it is set"
        )
        shared_practice.clock.set("2026-11-22")
        assert unsettled == "what an interrupted command left could not be ended now: the disk is full"
