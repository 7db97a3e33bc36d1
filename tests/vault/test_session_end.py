"""What a session leaves when it ends: an entry, or a note for the next unlock to enter."""

from __future__ import annotations

from typing import Any

from medcrypt_hsm import Vault
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.session.place import SOCKET
from medcrypt_hsm.vault import session_end
from medcrypt_hsm.vault.audit.actions import NOTES, SESSION_END
from medcrypt_hsm.vault.store.rows import Location
from tests.support.practice import Practice, pin
from tests.support.store import beside


def ends(vault: Vault) -> list[Any]:
    """Who, for which token and why; of entries and of notes."""
    found: list[Any] = []
    for _, entry in vault.log.entries():
        if entry.action == SESSION_END:
            found.append((entry.actor, entry.subject, entry.detail["why"]))
        elif entry.action == NOTES:
            found += [("note", note["token"], note["why"]) for note in entry.detail["notes"]]
    return found


def test_an_entry_where_the_token_is_there(practice: Practice) -> None:
    token = open_token(practice.uri, pin)
    session_end.record(practice.path, token, "doctor", "mara", "idle")
    practice.clock.set("2027-01-01")  # of the machine's clock, which the entry has
    with Vault.open(practice.path, pin=pin) as vault:
        assert ends(vault) == [("mara", "doctor", "idle")]
        vault.log.verify()


def test_a_note_where_it_is_not(practice: Practice) -> None:
    session_end.leave_note(practice.path, "doctor", "mara", "token-removed", practice.clock)
    with practice.open() as vault:
        assert ends(vault) == [("note", "doctor", "token-removed")]


def test_a_note_never_keeps_a_session_from_ending(practice: Practice) -> None:
    beside(practice.path).session_directories[-1].with_name("vault.db-notes").mkdir()
    session_end.leave_note(practice.path, "doctor", "mara", "idle", practice.clock)
    session_end.leave_note(practice.path.with_name("none.db"), "doctor", "mara", "idle", practice.clock)


def test_whoever_comes_next_says_that_an_agent_was_killed(practice: Practice) -> None:
    location = Location.parse(practice.path)
    session_end.note_killed(location, "mara", practice.clock)  # there was none
    left = beside(practice.path).session_directories[-1]
    left.mkdir(mode=0o700)
    (left / SOCKET).touch()
    session_end.note_killed(location, "mara", practice.clock)
    session_end.note_killed(location, "mara", practice.clock)
    assert not left.exists()
    with practice.open() as vault:
        assert ends(vault) == [("note", "", session_end.KILLED)]
