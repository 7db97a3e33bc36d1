"""Imports through the library: parts, months, order, the record, and memory that does not grow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.api import chats
from medcrypt_hsm.errors import Failed, Malformed, UsageError
from medcrypt_hsm.messages.chats import conversation
from medcrypt_hsm.messages.chats.conversation import Conversation, Read
from medcrypt_hsm.messages.wire import v1
from medcrypt_hsm.month import Month
from tests.support.practice import Phone, Practice, forge

SECRET = "secreto compartido 4711 ejemplo"
V1_PATIENT = "EXP-00112"


def telegram(path: Path, texts: Sequence[str | tuple[str, str]]) -> Path:
    """Each a text, or a text and when it was sent (UTC)."""
    messages = []
    for given in texts:
        text, when = given if isinstance(given, tuple) else (given, "2026-11-22 12:00")
        seconds = datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
        messages.append({"type": "message", "date_unixtime": str(int(seconds)), "from": "Luz", "text": text})
    path.write_text(json.dumps({"name": "Luz", "messages": messages}))
    return path


def read_all(vault: Vault, path: Path, program: str = "telegram", month: Month | None = None) -> list[Read]:
    return [read for batch in batches(vault, path, program, month)[1] for read in batch]


def batches(
    vault: Vault, path: Path, program: str = "telegram", month: Month | None = None
) -> tuple[Conversation, list[list[Read]]]:
    begun = chats.find_in_export(path, program)
    return begun, list(vault.chats.open(begun).read(month=month))


def texts(results: Sequence[Read]) -> list[str | None]:
    return [read.opened.text if read.opened.error is None else read.opened.error.name for read in results]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of five, so that a short chat has many."""
    monkeypatch.setattr(conversation, "BATCH", 5)
    monkeypatch.setattr(conversation, "SOON", 4)
    monkeypatch.setattr(conversation, "MOST_FETCHED", 10)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


# Order and parts


def test_everything_is_told_in_its_place(practice: Practice, file: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        stranger = Phone.scan(vault.patients.add("EXP-00900").payload, practice.clock)  # never confirmed
        long = phone.write("ñ" * 2000)
        one, two = phone.write("uno")[0], phone.write("dos")[0]
        unknown = one.replace(one.split(":")[2], "AAAAAAAAAAA")
        given = ["hola", one, forge(one), long[1], "[MEDCRYPT:v9:x]", unknown, f"{two} y {one}", long[0]]
        given += stranger.write("x")
        begun, found = batches(vault, telegram(file, given))
    (results,) = found
    assert texts(results) == [
        "uno", "not-authentic", "ñ" * 2000, "malformed", "unknown-pairing", "dos", "uno", "unconfirmed",
    ]  # fmt: skip
    assert [read.origin.position for read in results] == [2, 3, 4, 5, 6, 7, 7, 9]
    assert [read.number for read in results] == [1, 2, 3, 4, 5, 6, 7, 9]
    summary = begun.summary
    assert (summary.chat_messages, summary.without, summary.ok, summary.seen) == (9, 1, 3, 1)
    assert summary.bad == {"not-authentic": 1, "malformed": 1, "unknown-pairing": 1, "unconfirmed": 1}
    assert summary.first_error is results[1].opened.error


def test_parts_far_apart_come_together_at_the_first_one(practice: Practice, file: Path, small: None) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        long, lost = phone.write("a" * 7000), phone.write("b" * 4000)
        shorts = [phone.write(f"{number}")[0] for number in range(30)]
        given = [shorts[0], long[2], *shorts[1:15], long[0], *shorts[15:], lost[1], long[1], long[2]]
        _, found = batches(vault, telegram(file, given))
        assert max(map(len, found)) <= 5
        assert texts([read for batch in found for read in batch]) == [
            "0", "a" * 7000, *(f"{number}" for number in range(1, 30)), "incomplete",
        ]  # fmt: skip
        again = read_all(vault, file)
        assert {read.opened.status for read in again} == {"seen", "incomplete"}


def test_a_forged_part_hides_no_real_one(practice: Practice, file: Path, small: None) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        first, second = phone.write("a" * 4000)
        shorts = [phone.write(f"{number}")[0] for number in range(12)]
        given = [first, forge(second), *shorts[:6], second, *shorts[6:], forge(first)]
        results = read_all(vault, telegram(file, given))
    told = texts(results)
    assert told.count("a" * 4000) == 1
    assert told.count("not-authentic") >= 2
    assert [text for text in told if text and len(text) <= 2] == [f"{number}" for number in range(12)]


def test_a_flood_of_false_parts_is_refused_in_its_place(
    practice: Practice, file: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "MOST_PARTS", 8)
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        first, _ = phone.write("a" * 4000)
        false = []
        for number in range(12):
            head, _, *rest = first.rsplit(":", 3)
            false.append(":".join([head, f"{number:016}", *rest]))
        results = read_all(vault, telegram(file, [*false, *phone.write("fin")]))
    assert texts(results) == ["malformed"] * 12 + ["fin"]


def test_many_open_messages_are_fetched_a_few_at_a_time(practice: Practice, file: Path, small: None) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        longs = [phone.write(f"{number}" * 11_000) for number in range(6)]
        assert len(longs[0]) == 4
        given = [part for parts in zip(*longs, strict=True) for part in parts]
        results = read_all(vault, telegram(file, given))
    assert texts(results) == [f"{number}" * 11_000 for number in range(6)]


# The record


def test_every_batch_is_recorded_before_it_is_handed_out(practice: Practice, file: Path, small: None) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        telegram(file, [phone.write(f"{number}")[0] for number in range(12)])
        begun = chats.find_in_export(file, "telegram")
        counted = 0
        for batch in vault.chats.open(begun).read():
            counted += len(batch)
            entries = [entry for _, entry in vault.log.entries() if entry.action == "message.decrypt"]
            listed = sum(len(group["messages"]) for entry in entries for group in entry.detail["messages"])
            assert listed == counted
        assert counted == 12
        vault.log.verify()


def test_no_record_no_plaintext(practice: Practice, file: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        begun = chats.find_in_export(telegram(file, phone.write("hola")), "telegram")
        results = vault.chats.open(begun).read()
        practice.path.chmod(0o400)
        vault._unlocked.file._db.execute("PRAGMA query_only = ON")
        with pytest.raises(Failed):
            next(iter(results))


# Version 1: the months of the chat's dates


def v1_text(text: str, month: str) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = text.encode()[:12].ljust(12, b"-")
    key = v1.month_key(SECRET, Month.parse(month))
    return v1.encode(V1_PATIENT, nonce, AESGCM(key).encrypt(nonce, text.encode(), V1_PATIENT.encode()))


def test_version_1_months_come_from_the_dates(practice: Practice, file: Path) -> None:
    with practice.open() as vault:
        vault.patients.add(V1_PATIENT, protocol="v1", secret=SECRET)
        given = [
            (v1_text("mid", "2026-05"), "2026-05-15 12:00"),
            (v1_text("grace", "2026-04"), "2026-05-03 12:00"),
            (v1_text("zone", "2026-06"), "2026-05-31 22:00"),
            (v1_text("elsewhere", "2026-02"), "2026-05-15 12:00"),
            (v1_text("ahead", "2026-12"), "2026-12-24 12:00"),
        ]
        results = read_all(vault, telegram(file, given))
        assert texts(results) == ["mid", "grace", "zone", "not-authentic", "month-future"]
        assert [read.opened.month for read in results[:3]] == ["2026-05", "2026-04", "2026-06"]
        named = read_all(vault, telegram(file, given[3:4]), month=Month.parse("2026-02"))
        assert texts(named) == ["elsewhere"]
        vault.log.verify()


def test_an_edited_message_may_be_of_the_month_of_its_edit(practice: Practice, file: Path) -> None:
    with practice.open() as vault:
        vault.patients.add(V1_PATIENT, protocol="v1", secret=SECRET)
        telegram(file, [(v1_text("edited", "2026-09"), "2026-07-15 12:00")])
        document = json.loads(file.read_text())
        document["messages"][0]["edited_unixtime"] = str(int(datetime(2026, 9, 10, tzinfo=UTC).timestamp()))
        file.write_text(json.dumps(document))
        assert texts(read_all(vault, file)) == ["edited"]


def test_whatsapp_dates_in_their_order(practice: Practice, tmp_path: Path) -> None:
    chat = tmp_path / "_chat.txt"
    with practice.open() as vault:
        vault.patients.add(V1_PATIENT, protocol="v1", secret=SECRET)
        chat.write_text(f"3/5/26, 10:15 - Luz: {v1_text('mayo', '2026-05')}\n25/5/26, 1:00 - Luz: x\n")
        assert texts(read_all(vault, chat, "whatsapp")) == ["mayo"]


def test_shredded_months_are_told_apart(practice: Practice, file: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-00417")
        vault.patients.add(V1_PATIENT, protocol="v1", secret=SECRET)
        old = phone.write("viejo")[0]
    practice.clock.set("2027-01-20")
    with practice.open() as vault:
        vault.months.open(Month.parse("2027-01"))
        vault.months.shred([Month.parse("2026-11")])
    with practice.open() as vault:
        given = [
            (old, "2026-11-22 12:00"),
            (v1_text("noviembre", "2026-11"), "2026-11-15 12:00"),
            (v1_text("borde", "2026-11"), "2026-11-03 12:00"),
            (phone.write("nuevo")[0], "2027-01-20 12:00"),
        ]
        begun, found = batches(vault, telegram(file, given))
        assert texts(found[0]) == ["shredded", "shredded", "shredded", "nuevo"]
        assert begun.summary.bad == {"shredded": 3}
        vault.log.verify()


# Before anybody is asked for a PIN


def test_what_needs_no_vault(file: Path, tmp_path: Path) -> None:
    telegram(file, ["hola", "adiós"])
    with pytest.raises(Malformed, match="no MedCrypt message in this export; 2 others"):
        chats.find_in_export(file, "telegram")
    with pytest.raises(Malformed):
        chats.find_in_export(file, "whatsapp")
    with pytest.raises(UsageError):
        chats.find_in_export(file, "signal")
    for absent, message in ((tmp_path / "none", "cannot be read"), (tmp_path, "is not a file")):
        with pytest.raises(UsageError, match=message):
            chats.find_in_export(absent, "telegram")


def keys_kept(vault: Vault) -> int:
    return [entry.action for _, entry in vault.log.entries()].count("month.derive")


def test_junk_of_version_1_leaves_no_keys_whatever_its_dates(practice: Practice, file: Path) -> None:
    with practice.open() as vault:
        vault.patients.add(V1_PATIENT, protocol="v1", secret=SECRET)
        junk = [
            (v1.encode(V1_PATIENT, bytes([number] * 12), bytes(32)), f"{2001 + number}-06-15 12:00")
            for number in range(25)
        ]
        results = read_all(vault, telegram(file, [*junk, (v1_text("mayo", "2026-05"), "2026-05-15 12:00")]))
        assert set(texts(results)[:-1]) == {"not-authentic"}
        assert keys_kept(vault) <= 1


def test_a_key_of_version_1_is_kept_when_something_opened_under_it(practice: Practice, file: Path) -> None:
    with practice.open() as vault:
        vault.patients.add(V1_PATIENT, protocol="v1", secret=SECRET)
        given = [(v1_text(f"mayo {number}", "2026-05"), "2026-05-15 12:00") for number in range(3)]
        assert texts(read_all(vault, telegram(file, given))) == ["mayo 0", "mayo 1", "mayo 2"]
        assert keys_kept(vault) == 1
        vault.log.verify()


def test_version_1_of_after_the_upgrade_is_refused(practice: Practice, file: Path) -> None:
    """Whoever found the old secret writes as the patient, who writes version 2 by now."""
    with practice.open() as vault:
        vault.patients.add(V1_PATIENT, protocol="v1", secret=SECRET)
        practice.pair(vault, V1_PATIENT)
    practice.clock.set("2027-01-20")
    with practice.open() as vault:
        vault.months.open(Month.parse("2027-01"))
        given = [
            (v1_text("forged", "2027-01"), "2027-01-15 12:00"),
            (v1_text("noviembre", "2026-11"), "2026-11-15 12:00"),
        ]
        assert texts(read_all(vault, telegram(file, given))) == ["month-stale", "noviembre"]
