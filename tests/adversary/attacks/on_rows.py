"""Rows that no unlock reads: keys, patients, what was seen. Refused when they are used, and by ``audit verify``."""

from __future__ import annotations

from dataclasses import dataclass

from tests.adversary.attacks.attack import FILE, OLDER, OTHER_VAULT, Act
from tests.adversary.attacks.hand import Hand

UNKNOWN = "the log does not know it"
ALTERED = "was altered|wrote it again"


@dataclass(frozen=True)
class RowAttack:
    """``words``: those of the verification, and so of every command that re-keys or backs up.

    ``unreadable``: the texts ("patient month") that cannot be read any more; ``unwritable``: whom nobody can write to.
    """

    name: str
    holds: str
    do: Act
    words: str
    unreadable: tuple[str, ...] = ()
    unwritable: str = ""

    def __str__(self) -> str:
        return self.name


def key(hand: Hand, patient: str, month: str, values_of: tuple[str, str, str], source: str | None = None) -> None:
    """A patient's message key of a month made another row: purpose, patient and month of that."""
    purpose, whose, when = values_of
    pairing = hand.scene.pairings.get(whose, b"")
    (row,) = [r for r in hand.rows("records", source) if r[:3] == (purpose, pairing, when)]
    hand.put("records", ("message", hand.scene.pairings[patient], month, *row[3:]))


def of_another_vault(hand: Hand) -> None:
    hand.scene.files["other"] = hand.scene.other.path
    key(hand, "EXP-1", "2026-11", ("log", "", "00000001"), "other")


def patient(hand: Hand, *, source: str | None = None, body_of: str = "EXP-1", lookup_of: str = "EXP-1") -> None:
    found = {row[1]: row for row in hand.rows("sealed", source) if row[0] == "patient"}
    body, lookup = (found[hand.scene.pairings[whose]] for whose in (body_of, lookup_of))
    hand.put("sealed", ("patient", hand.scene.pairings["EXP-1"], lookup[2], *body[3:]))


def seen_under_another_patient(hand: Hand) -> None:
    (row, *_) = [r for r in hand.rows("seen") if r[0] == hand.scene.pairings["EXP-1"]]
    hand.put("seen", (hand.scene.pairings["EXP-2"], *row[1:]))


def delete(hand: Hand, table: str, whose: str, condition: str = "1") -> None:
    hand.sql(f"DELETE FROM {table} WHERE pairing = ? AND {condition}", values=(hand.scene.pairings[whose],))


NOVEMBER, OCTOBER = "EXP-1 2026-11", "EXP-1 2026-10"
OF_EXP_1 = (NOVEMBER, OCTOBER)

ON_ROWS = (
    RowAttack("a key of another patient", FILE,
              lambda hand: key(hand, "EXP-1", "2026-11", ("message", "EXP-2", "2026-11")), ALTERED,
              (NOVEMBER,), "EXP-1"),
    RowAttack("a key of another month", FILE,
              lambda hand: key(hand, "EXP-1", "2026-11", ("message", "EXP-1", "2026-10")), ALTERED,
              (NOVEMBER,), "EXP-1"),
    RowAttack("a chain key as a message key", FILE,
              lambda hand: key(hand, "EXP-1", "2026-11", ("chain", "EXP-1", "2026-11")), ALTERED, (NOVEMBER,), "EXP-1"),
    RowAttack("a log key as a message key", FILE,
              lambda hand: key(hand, "EXP-1", "2026-11", ("log", "", "00000001")), ALTERED, (NOVEMBER,), "EXP-1"),
    RowAttack("a key of another vault", OTHER_VAULT, of_another_vault, ALTERED, (NOVEMBER,), "EXP-1"),
    RowAttack("a key as it was wrapped before the re-key", OLDER,
              lambda hand: key(hand, "EXP-1", "2026-10", ("message", "EXP-1", "2026-10"), "before"), ALTERED,
              (OCTOBER,)),
    RowAttack("a key of a month that was shredded", OLDER,
              lambda hand: key(hand, "EXP-1", "2026-09", ("message", "EXP-1", "2026-09"), "before"), UNKNOWN,
              ("EXP-1 2026-09",)),
    RowAttack("a key deleted", FILE, lambda hand: delete(hand, "records", "EXP-1", "purpose = 'message'"), "is missing",
              OF_EXP_1, "EXP-1"),
    RowAttack("a patient as sealed before the re-key", OLDER, lambda hand: patient(hand, source="before"), ALTERED,
              OF_EXP_1, "EXP-1"),
    RowAttack("a patient's row with what another's says", FILE, lambda hand: patient(hand, body_of="EXP-2"), ALTERED,
              OF_EXP_1, "EXP-1"),
    RowAttack("a patient's row to be found as another's", FILE, lambda hand: patient(hand, lookup_of="EXP-2"), ALTERED,
              OF_EXP_1, "EXP-1"),
    RowAttack("a patient deleted", FILE, lambda hand: delete(hand, "sealed", "EXP-1"), "is missing", OF_EXP_1, "EXP-1"),
    RowAttack("a message seen of another patient", FILE, seen_under_another_patient, "not the one that the log knows"),
    # A limit: the message looks new until somebody verifies (docs/threat-model.md).
    RowAttack("a message seen, forgotten", FILE, lambda hand: delete(hand, "seen", "EXP-1"),
              "are missing from the file"),
    # A limit: after the anchor, and back to where the trust state was the same.
    RowAttack("the log's end cut off behind the anchor", FILE,
              lambda hand: hand.sql(f"DELETE FROM entries WHERE sequence > {hand.scene.anchor}"),
              "not the one that the log knows"),
)  # fmt: skip
