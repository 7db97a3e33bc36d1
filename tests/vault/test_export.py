"""Exports: what is in a JSON Lines, CSV or CEF file, read back by other means, and when there is none."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import AuditBroken, UsageError
from medcrypt_hsm.vault.audit.filter import EntryFilter
from tests.support.practice import Practice, unlocked
from tests.support.store import rows, tamper

HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "'",
    "'=1+1",
    'a,b;c"d"',
    "two\nlines",
    "two\r\nlines",
    "CEF:0|a|b|c|d|e|9|act=none",
    "a=b msg=c cs1=d",
    "ends in \\",
    "\\n is not a line end",
    "\\| \\= \\\\",
    " spaces at both ends ",
    "\u202egnitirw ot tfel\u202c",
    "\u2028 \u2029 \x85 \x0b \x0c \x1c",
    "\x00\x01\x1b[2J\x7f\x9b",
    "Núñez 日本 🩺",
    "",
]
TEXTS = ("time", "actor", "token", "action", "subject", "outcome")
Entries = list[dict[str, Any]]


def from_jsonl(data: bytes) -> Entries:
    assert data.isascii()
    text = data.decode()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def from_csv(data: bytes) -> Entries:
    csv.field_size_limit(1 << 26)
    head, *lines = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    assert head == ["sequence", *TEXTS, "detail", "hash"]
    for line in lines:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in line)
    found = [dict(zip(head, (cell.removeprefix("'") for cell in line), strict=True)) for line in lines]
    return [one | {"sequence": int(one["sequence"]), "detail": json.loads(one["detail"])} for one in found]


def cef_fields(line: str) -> tuple[list[str], dict[str, str]]:
    """The seven fields of the head, and the extension: a parser as the format's description has it."""
    head: list[str] = []
    field, at = "", 0
    while len(head) < 7:
        if line[at] == "\\":
            assert line[at + 1] in "\\|"
            field, at = field + line[at + 1], at + 2
        elif line[at] == "|":
            head.append(field)
            field, at = "", at + 1
        else:
            field, at = field + line[at], at + 1
    extension = {}
    for pair in re.split(r" (?=[A-Za-z0-9]+=)", line[at:]):
        key, value = pair.split("=", 1)
        assert not re.search(r"(?<!\\)(?:\\\\)*=", value)
        assert key not in extension
        extension[key] = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), value, flags=re.DOTALL)
    return head, extension


def from_cef(data: bytes) -> Entries:
    found = []
    *lines, last = data.decode().split("\n")
    assert last == ""
    for line in lines:
        head, extension = cef_fields(line)
        assert head[:3] == ["CEF:0", "MedCrypt", "medcrypt"]
        assert head[4].split() == extension["act"].split()
        assert 0 <= int(head[6]) <= 10
        labelled = {extension[f"{key}Label"]: extension[key] for key in ("cs1", "cs2", "cs3")}
        moment = datetime.fromtimestamp(int(extension["rt"]) / 1000, UTC)
        found.append(
            {
                "sequence": int(extension["externalId"]),
                "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "actor": extension["suser"],
                "action": extension["act"],
                "outcome": extension["outcome"],
                "detail": json.loads(extension["msg"]),
                **labelled,
            }
        )
    return found


READERS: dict[str, Callable[[bytes], Entries]] = {"jsonl": from_jsonl, "csv": from_csv, "cef": from_cef}


def told(vault: Vault, path: Path, where: EntryFilter | None = None) -> Entries:
    """What the log says, by ``audit_entries`` and the file's own hashes."""
    entries = vault.log.entries(where or EntryFilter())
    hashes = {row[0]: row[2].hex() for row in rows(path, "entries")}
    return [
        {
            "sequence": sequence,
            **{name: getattr(entry, name) for name in TEXTS},
            "detail": entry.detail,
            "hash": hashes[sequence],
        }
        for sequence, entry in entries
    ]


@pytest.mark.parametrize("form", READERS)
def test_every_entry_comes_back(practice: Practice, tmp_path: Path, form: str) -> None:
    target = tmp_path / "log"
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        vault.decrypt("\n".join(phone.write("=cmd") + phone.write("dos")))
        for subject in HOSTILE:
            unlocked(vault).record("patient.show", subject, {"text": subject, "number": 1, "none": None})
        exported = vault.log.export(target, format=form)
        expected = told(vault, practice.path)[:-1]  # the last is of reading it now
    assert (exported.format, exported.entries) == (form, len(expected))
    assert READERS[form](target.read_bytes()) == expected
    assert [one["subject"] for one in expected if one["action"] == "patient.show"] == HOSTILE
    assert expected[-1]["action"] == "audit.export"
    assert (expected[-1]["subject"], expected[-1]["outcome"]) == ("log", "intended")
    assert expected[-1]["detail"] == {"format": form}


@pytest.mark.parametrize("form", READERS)
def test_a_filter_narrows_it_and_is_recorded(practice: Practice, tmp_path: Path, form: str) -> None:
    target, where = tmp_path / "log", EntryFilter(patient="EXP-2", action="patient")
    with practice.open() as vault:
        for patient in ("EXP-1", "EXP-2"):
            practice.pair(vault, patient)
        vault.log.export(target, format=form, where=where)
        expected = told(vault, practice.path, where)
        entry = vault.log.entries(EntryFilter(action="audit.export"))[-1][1]
    assert READERS[form](target.read_bytes()) == expected
    assert [one["action"] for one in expected] == ["patient.add", "patient.confirm"]
    assert entry.detail == {"format": form, "filter": {"patient": "EXP-2", "action": "patient"}}


@pytest.mark.parametrize("form", READERS)
def test_of_no_entry_there_is_a_file_all_the_same(practice: Practice, tmp_path: Path, form: str) -> None:
    target = tmp_path / "log"
    with practice.open() as vault:
        assert vault.log.export(target, format=form, where=EntryFilter(actor="nobody")).entries == 0
    assert READERS[form](target.read_bytes()) == []


def test_csv_lines_end_as_the_rfc_says(practice: Practice, tmp_path: Path) -> None:
    with practice.open() as vault:
        vault.log.export(tmp_path / "log", format="csv")
    data = (tmp_path / "log").read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 4
    assert data.startswith(b"sequence,time,actor,token,action,subject,outcome,detail,hash\r\n")


def test_cef_severity_is_by_what_it_is(practice: Practice, tmp_path: Path) -> None:
    with practice.open() as vault:
        change = unlocked(vault).change
        for action, outcome in (
            ("message.encrypt", "done"),
            ("message.failed", "not-authentic"),
            ("patient.add", "refused"),
            ("vault.policy", "done"),
            ("notes", "done"),
            ("no.such", "done"),
        ):
            with change(action, outcome=outcome) as told_of:
                told_of.detail["messages"] = []
        vault.backup(tmp_path / "backup.db")
    with practice.restore(tmp_path / "backup.db") as vault:
        vault.log.export(tmp_path / "log", format="cef", where=EntryFilter())
    heads = [cef_fields(line)[0] for line in (tmp_path / "log").read_text().splitlines()]
    found = {action: int(level) for *_, action, _, level in heads}
    assert found == {
        "token.introduce": 5, "vault.create": 5, "message.encrypt": 3, "message.failed": 8, "patient.add": 7,
        "vault.policy": 5, "notes": 7, "no.such": 3, "vault.backup": 5, "vault.restore": 9, "audit.export": 3,
    }  # fmt: skip
    assert {action: name for *_, action, name, _ in heads}["no.such"] == "no such"


_GROWTH = """
import re
def peak(): return int(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
before = peak()
for form in ("jsonl", "csv", "cef"):
    assert vault.log.export({target!r} + form, format=form).entries > 300
assert peak() - before < 12 << 10, (before, peak())
"""


def test_memory_does_not_grow_with_the_log(practice: Practice, tmp_path: Path) -> None:
    """300 entries as of long chats, 30 MiB together."""
    with practice.open() as vault:
        for number in range(300):
            unlocked(vault).record("patient.show", str(number), {"text": "x" * 100_000})
    practice.elsewhere(_GROWTH.format(target=str(tmp_path / "log.")))
    assert (tmp_path / "log.cef").stat().st_size > 30_000_000


class TestTheFile:
    def test_it_is_private_and_alone(self, practice: Practice, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "log.partial").write_text("left by a kill")
        with practice.open() as vault:
            vault.log.export(tmp_path / "out" / "log")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["log"]
        assert (tmp_path / "out" / "log").stat().st_mode & 0o777 == 0o600

    def test_never_over_a_file(self, practice: Practice, tmp_path: Path) -> None:
        (tmp_path / "log").write_text("mine")
        with practice.open() as vault, pytest.raises(UsageError, match="exists already"):
            vault.log.export(tmp_path / "log")
        assert (tmp_path / "log").read_text() == "mine"
        assert [action for action in actions(practice) if action[0] == "audit.export"] == []

    @pytest.mark.parametrize(
        ("name", "form"), [("none/log", "jsonl"), ("log", "xml"), ("log", ""), ("\udcff", "jsonl"), ("log", "JSONL")]
    )
    def test_what_cannot_be(self, practice: Practice, tmp_path: Path, name: str, form: str) -> None:
        with practice.open() as vault, pytest.raises(UsageError):
            vault.log.export(tmp_path / name, format=form)
        assert [action for action in actions(practice) if action[0] == "audit.export"] == []

    def test_one_that_the_disk_refuses_is_told_in_the_log(self, practice: Practice, tmp_path: Path) -> None:
        with practice.open() as vault, pytest.raises(OSError, match="too long"):
            vault.log.export(tmp_path / ("x" * 250))
        assert actions(practice)[-2:] == [("audit.export", "intended"), ("audit.export", "failed")]

    @pytest.mark.parametrize("form", READERS)
    def test_an_older_entry_that_was_left_out(self, practice: Practice, tmp_path: Path, form: str) -> None:
        """After the anchor the unlock does not look: the export does."""
        target = tmp_path / "log"
        with practice.open() as vault:
            for _ in range(3):
                vault.patients.list()
            vault.log.anchor()
        tamper(practice.path, "DELETE FROM entries WHERE sequence = 4")
        with practice.open() as vault, pytest.raises(AuditBroken) as raised:
            vault.log.export(target, format=form)
        assert raised.value.at == 4
        assert not list(tmp_path.glob("log*"))
        assert actions(practice)[-2:] == [("audit.export", "intended"), ("audit.export", "audit-broken")]

    def test_older_entries_that_were_rewritten(self, practice: Practice, tmp_path: Path) -> None:
        """Their hashes follow from each other, but do not lead to the head that the token remembers."""
        with practice.open() as vault:
            vault.patients.list()
            vault.log.anchor()
        other = Practice(practice.path.with_name("other.db"), practice.uri, practice.clock)
        other.create().close()
        (row,) = [row for row in rows(other.path, "entries") if row[0] == 2]
        tamper(
            practice.path,
            change=lambda db: db.execute(
                "UPDATE entries SET stored = ?, hash = ? WHERE sequence = 2", (row[1], row[2])
            ),
        )
        with practice.open() as vault, pytest.raises(AuditBroken, match="entry 2 was altered"):
            vault.log.export(tmp_path / "log")


def actions(practice: Practice) -> list[tuple[str, str]]:
    with practice.open() as vault:
        return [(entry.action, entry.outcome) for _, entry in vault.log.entries()][:-1]
