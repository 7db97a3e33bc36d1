"""Every value of every row of a real vault, altered: refused when used, or found by ``audit verify``; never accepted.

Which of the two finds what is said here as well. Unlock reads the trust state, the entries from the anchor on and the
newest log key. All else it leaves to the moment of use, where a row's own MAC refuses it, and to ``audit verify``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from medcrypt_hsm.errors import AuditBroken, MedcryptError, NotAuthentic, VaultDamaged, VaultError, VaultRolledBack
from medcrypt_hsm.messages import decrypt, months, patients, wire
from medcrypt_hsm.messages.encrypt import encrypt
from medcrypt_hsm.messages.plan import v1_month_key
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.unlocked import Unlocked
from tests.support.checkout import FULL
from tests.support.eventful_vault import (
    COLUMNS,
    KEYS,
    UNLOCK,
    VERIFY,
    Eventful,
    Row,
    delete,
    every_row,
    flipped,
    insert,
    make,
    put,
)
from tests.support.practice import Practice
from tests.support.softhsm import SoftHsm
from tests.support.store import TABLES, RowRefused, by_hand
from tests.support.watched_token import WatchedToken

BITS = 12 if FULL else 1


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory, softhsm: SoftHsm) -> Iterator[Eventful]:
    directory = tmp_path_factory.mktemp("tamper")
    practice = Practice(directory / "practice" / "vault.db", softhsm.make_token())
    practice.create().close()
    with WatchedToken.open(practice.uri) as token:
        token.close()
    made = make(practice, directory / "copies", lambda: WatchedToken.open(practice.uri))
    with made.token:
        yield made


def test_the_unaltered_vault_is_accepted_and_everything_in_it_can_be_used(eventful: Eventful) -> None:
    with pytest.raises(AssertionError, match="accepted"):
        eventful.judge(eventful.copy(), "nothing")
    with eventful.unlocked(eventful.copy()) as unlocked:
        opened = decrypt.decrypt(unlocked, wire.find("\n".join(eventful.texts)), archive=True)
        assert {message.status for message in opened} == {"seen"}
    assert {row[0] for row in eventful.rows("records")} == {"log", "message", "chain", "seen"}
    assert {row[0] for row in eventful.rows("sealed")} == {"patient", "qr", "v1-secret"}


# Refused when used


def refused_when_used(eventful: Eventful, table: str, row: Row) -> Callable[[Unlocked], None] | None:
    """What would use this row, and must not."""
    match table, row[0]:
        case "records", "message":
            return lambda unlocked: nothing_is_read(eventful, unlocked, row[1], row[2])
        case "records", "chain":
            return lambda unlocked: no_month_is_opened(eventful, unlocked)
        case "sealed", "patient":
            return lambda unlocked: nothing_is_read(eventful, unlocked, row[1], None)
        case "sealed", "v1-secret":
            return lambda unlocked: no_v1_key_is_derived(unlocked, row[1])
    return None


def nothing_is_read(eventful: Eventful, unlocked: Unlocked, pairing: bytes, month: str | None) -> None:
    """Nothing under that pairing and month, and everything under the others: the fault is that row's alone."""
    touched = [
        text for text, (whose, when) in eventful.texts.items() if whose == pairing and when in (month, month or when)
    ]
    others = [text for text, (whose, _) in eventful.texts.items() if whose is not None and text not in touched]
    try:
        opened = decrypt.decrypt(unlocked, wire.find("\n".join(touched)), archive=True)
    except VaultDamaged:
        opened = []
    assert all(isinstance(message.error, NotAuthentic) and message.text is None for message in opened)
    for message in decrypt.decrypt(unlocked, wire.find("\n".join(others)), archive=True):
        assert message.text is not None
    for patient_id in ("EXP-1", "EXP-2"):
        try:
            texts = encrypt(unlocked, patient_id, "x")
        except MedcryptError:
            continue
        used = wire.parse(texts[0])
        assert isinstance(used, wire.MessageV2)
        assert not (used.pairing == pairing and month in (None, str(used.month)))


def no_month_is_opened(eventful: Eventful, unlocked: Unlocked) -> None:
    clock = eventful.practice.clock
    before, clock.now = clock.now, clock.now.replace(year=2027, month=1)
    try:
        with pytest.raises(VaultError):
            months.open_months(unlocked, Month.parse("2027-01"))
    finally:
        clock.now = before


def no_v1_key_is_derived(unlocked: Unlocked, pairing: bytes) -> None:
    owner = patients.by_pairing(unlocked, pairing)
    assert owner is not None
    with pytest.raises(VaultDamaged):
        v1_month_key(unlocked, owner, Month.parse("2026-12"))


# One bit


def expected(eventful: Eventful, table: str, column: str, row: Row) -> set[str]:
    newest = eventful.rows("entries")[-1][0]
    match table:
        case "trust":
            return {UNLOCK}
        case "entries" if column == "sequence":
            return {UNLOCK, VERIFY}
        case "entries" if column == "signature":
            return {UNLOCK} if row[0] == newest else {VERIFY}  # the newest head vouches for those before it
        case "entries":
            recomputed = row[0] >= eventful.anchor or (row[0] == eventful.anchor - 1 and column == "hash")
            return {UNLOCK} if recomputed else {VERIFY}
        case "records" if row[0] == "log":
            return {UNLOCK}
    return {VERIFY}


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in TABLES for column in COLUMNS[table]])
def test_one_bit_of_every_value(eventful: Eventful, table: str, column: str) -> None:
    for row in eventful.rows(table):
        value = row[COLUMNS[table].index(column)]
        random = Random(f"{table} {column} {row[:3]}")
        for _ in range(BITS):
            if value in ("", b""):
                continue  # no bit to flip; another value there is test_something_where_nothing_was's
            altered, path = flipped(value, random.randrange(2**12)), eventful.copy()
            what = f"{table} {row[:3]}: {column} {value!r:.60} → {altered!r:.60}"
            try:
                with by_hand(path) as db:
                    put(db, table, row, column, altered)
            except RowRefused:
                continue  # another row has that key: a swap, below
            is_key = COLUMNS[table].index(column) < KEYS[table]
            use = refused_when_used(eventful, table, row) if not is_key else None
            assert eventful.judge(path, what, use) in expected(eventful, table, column, row), what


@pytest.mark.parametrize(("table", "column"), [
    ("trust", "name"), ("records", "pairing"), ("sealed", "lookup"),
])  # fmt: skip
def test_something_where_nothing_was(eventful: Eventful, table: str, column: str) -> None:
    for row in eventful.rows(table):
        if row[COLUMNS[table].index(column)] not in ("", b""):
            continue
        path = eventful.copy()
        with by_hand(path) as db:
            put(db, table, row, column, bytes(32))
        assert eventful.judge(path, f"{table} {row[:3]}: {column}")


# Whole rows


@pytest.mark.parametrize("table", TABLES)
def test_every_row_deleted(eventful: Eventful, table: str) -> None:
    for row in eventful.rows(table):
        path = eventful.copy()
        with by_hand(path) as db:
            delete(db, table, row)
        found_by = eventful.judge(path, f"{table} {row[:3]} deleted")
        at_once = table == "trust" or row[0] == "log" or (table == "entries" and row[0] > eventful.anchor)
        if at_once and not (table == "entries" and row == eventful.rows("entries")[-1]):
            assert found_by == UNLOCK


@pytest.mark.parametrize("table", TABLES)
def test_all_rows_deleted(eventful: Eventful, table: str) -> None:
    path = eventful.copy()
    with by_hand(path) as db:
        db.execute(f"DELETE FROM {table}")
    assert eventful.judge(path, f"all of {table} deleted") in {UNLOCK, VERIFY}


def exchanged(eventful: Eventful, table: str, one: Row, other: Row) -> str:
    """The two rows' values under each other's keys."""
    keys, path = KEYS[table], eventful.copy()
    with by_hand(path) as db:
        insert(db, table, one[:keys] + other[keys:])
        insert(db, table, other[:keys] + one[keys:])
    return eventful.judge(path, f"{table} {one[:3]} ↔ {other[:3]}")


@pytest.mark.parametrize("table", TABLES)
def test_every_two_rows_swapped(eventful: Eventful, table: str) -> None:
    """Between patients, months, purposes and kinds. In the quick run each row with the next and with a random one."""
    rows = eventful.rows(table)
    random = Random(table)
    for at, one in enumerate(rows):
        others = rows[at + 1 :] if FULL else {rows[(at + 1) % len(rows)], random.choice(rows)}
        for other in others:
            if one[KEYS[table] :] != other[KEYS[table] :]:
                exchanged(eventful, table, one, other)


def test_a_message_key_under_another_patients_name_opens_nothing(eventful: Eventful) -> None:
    one, other = [row for row in eventful.rows("records") if row[0] == "message" and row[2] == "2026-12"][:2]
    path = eventful.copy()
    with by_hand(path) as db:
        insert(db, "records", one[:3] + other[3:])
    eventful.judge(path, "a key swapped", lambda u: nothing_is_read(eventful, u, one[1], "2026-12"))


def test_a_chain_key_as_a_message_key_opens_nothing(eventful: Eventful) -> None:
    (chain, *_) = [row for row in eventful.rows("records") if row[0] == "chain"]
    path = eventful.copy()
    with by_hand(path) as db:
        insert(db, "records", ("message", *chain[1:]))
    eventful.judge(path, "a chain key swapped", lambda u: nothing_is_read(eventful, u, chain[1], chain[2]))


@pytest.mark.parametrize("table", TABLES)
def test_every_row_copied_under_another_key(eventful: Eventful, table: str) -> None:
    other_keys = {
        "trust": ("month", "2031-01"),
        "entries": (10_000,),
        "records": ("message", bytes(8), "2031-01"),
        "sealed": ("patient", bytes(8)),
        "seen": (bytes(8), "2031-01", bytes(16)),
    }
    for row in eventful.rows(table):
        path = eventful.copy()
        with by_hand(path) as db:
            insert(db, table, other_keys[table] + row[KEYS[table] :])
        eventful.judge(path, f"{table} {row[:3]} copied")


@pytest.mark.parametrize("row", [
    ("token", "intruder", b"{}"), ("keyset", "1:intruder", b"{}"), ("hold", "EXP-1", b"{}"), ("vault", "x", b"{}"),
    ("policy", "x", b"{}"),
])  # fmt: skip
def test_a_row_more_in_the_trust_state(eventful: Eventful, row: Row) -> None:
    path = eventful.copy()
    with by_hand(path) as db:
        insert(db, "trust", row)
    assert eventful.judge(path, str(row)) == UNLOCK


# Replay


def test_every_row_as_it_was_in_an_older_copy(eventful: Eventful) -> None:
    """Its MAC is right, for it was true once: the log knows that it was written again, or deleted."""
    compared = 0
    for table in TABLES:
        now = {row[: KEYS[table]]: row for row in eventful.rows(table)}
        for row in eventful.rows(table, eventful.older):
            if now.get(row[: KEYS[table]]) == row:
                continue
            compared += 1
            path = eventful.copy()
            with by_hand(path) as db:
                insert(db, table, row)
            found_by = eventful.judge(path, f"{table} {row[:3]} of an older copy")
            assert found_by == (UNLOCK if table == "trust" else VERIFY)
    assert compared >= 6


@pytest.mark.parametrize("tables", [
    ("trust",), ("records",), ("sealed",), ("seen",), ("records", "sealed"), ("records", "sealed", "seen"),
    ("trust", "records", "sealed", "seen"), ("entries",), ("entries", "trust"),
    ("entries", "trust", "records", "sealed"),
])  # fmt: skip
def test_whole_tables_of_an_older_copy(eventful: Eventful, tables: tuple[str, ...]) -> None:
    path = eventful.copy()
    with by_hand(path) as db:
        for table in tables:
            db.execute(f"DELETE FROM {table}")
            for row in eventful.rows(table, eventful.older):
                insert(db, table, row)
    found_by = eventful.judge(path, f"{tables} of an older copy")
    assert found_by == (UNLOCK if {"trust", "entries"} & set(tables) else VERIFY)


def test_the_whole_older_file(eventful: Eventful) -> None:
    with (
        pytest.raises(VaultRolledBack, match="older than the token remembers"),
        eventful.unlocked(eventful.copy(eventful.older)),
    ):
        pass


# The log cut


@pytest.mark.parametrize("left", ["none", "one", "before the anchor", "at the anchor", "behind the anchor"])
def test_its_end_cut(eventful: Eventful, left: str) -> None:
    newest = eventful.rows("entries")[-1][0]
    keep = {"none": 0, "one": 1, "before the anchor": eventful.anchor - 1, "at the anchor": eventful.anchor,
            "behind the anchor": newest - 1}[left]  # fmt: skip
    path = eventful.copy()
    with by_hand(path) as db:
        db.execute("DELETE FROM entries WHERE sequence > ?", (keep,))
    assert eventful.judge(path, left) == (UNLOCK if keep < eventful.anchor else VERIFY)


def test_its_end_cut_and_the_trust_state_of_that_time_put_back(eventful: Eventful) -> None:
    """Consistent in itself, every signature right: the token's anchor is what knows better."""
    ends, path = eventful.rows("entries", eventful.older)[-1][0], eventful.copy()
    with by_hand(path) as db:
        db.execute("DELETE FROM entries WHERE sequence > ?", (ends,))
        db.execute("DELETE FROM trust")
        for row in eventful.rows("trust", eventful.older):
            insert(db, "trust", row)
    with pytest.raises(VaultRolledBack), eventful.unlocked(path):
        pass


def test_its_middle_cut_and_renumbered(eventful: Eventful) -> None:
    for first in (2, eventful.anchor - 1, eventful.anchor + 1):
        path = eventful.copy()
        with by_hand(path) as db:
            db.execute("DELETE FROM entries WHERE sequence = ?", (first,))
            db.execute("UPDATE entries SET sequence = -sequence WHERE sequence > ?", (first,))
            db.execute("UPDATE entries SET sequence = -sequence - 1 WHERE sequence < 0")
        eventful.judge(path, f"entry {first} cut out")


def test_a_clear_entry_at_the_very_anchor_is_read_from_its_own_bytes(eventful: Eventful) -> None:
    """Its time is believed by the clock's rules: a hash that is only copied would not protect it."""
    path = eventful.copy()
    with by_hand(path) as db:
        db.execute("DELETE FROM entries WHERE sequence > ?", (eventful.anchor,))
        db.execute(
            "UPDATE entries SET stored = (SELECT stored FROM entries WHERE sequence = 1) WHERE sequence = ?",
            (eventful.anchor,),
        )
    with pytest.raises(AuditBroken, match="was altered"), eventful.unlocked(path):
        pass


def test_every_row_was_looked_at(eventful: Eventful) -> None:
    kinds = {(table, row[0] if table in ("trust", "records", "sealed") else "") for table, row in every_row(eventful)}
    assert len(kinds) == 5 + 4 + 3 + 1 + 1
