"""Several processes on one vault and one token: nothing lost, nothing doubled, one log."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.vault.inspection import verify_file
from tests.kills.established import CREATE, DECEMBER, NOVEMBER, WHOLE, Established
from tests.kills.place import Command, Place, busy_waiting
from tests.support.checkout import ROOT
from tests.support.store import open_at, write_lock


class Writer:
    """One writer.py."""

    def __init__(self, place: Place, at: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills.writer", str(place.vault)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=place.medcrypt.environment(at),
            cwd=ROOT,
            text=True,
        )

    def start(self, *job: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline() or '"it died"')


@contextmanager
def writers(place: Place, number: int, at: str = NOVEMBER) -> Iterator[list[Writer]]:
    """That many, each with the vault open."""
    with ExitStack() as stack:
        crowd = []
        for _ in range(number):
            writer = Writer(place, at)
            stack.callback(writer.process.communicate)  # closes its stdin: it ends
            # One login after another: SoftHSM2's token cannot be seen while another process logs in.
            assert writer.result() == "ready"
            crowd.append(writer)
        yield crowd


def wait_until_all_wait(crowd: list[Writer]) -> None:
    """Until every process is in SQLite's wait for the write lock: each has then done all that it does before it."""
    deadline = time.monotonic() + 30
    while not all(busy_waiting(writer.process.pid) for writer in crowd):
        assert time.monotonic() < deadline, "they never waited for the lock"
        time.sleep(0.005)


@pytest.fixture
def place(established: Established, tmp_path: Path) -> Place:
    return established.place.copy_to(tmp_path / "place")


@pytest.mark.parametrize("number", [2, 8])
def test_nothing_is_lost_and_nothing_doubled(place: Place, established: Established, number: int) -> None:
    each = 24 // number
    jobs: list[tuple[Any, ...]] = []
    for index in range(number):
        jobs.append(
            [
                ("encrypt", "EXP-1", [f"text {index} {count}" for count in range(each)]),
                ("decrypt", established.wires[:2] * (each // 2)),
                ("add", [f"NEW-{index}-{count}" for count in range(each)]),
                ("encrypt", "OLD-1", [f"old text {index} {count}" for count in range(each)]),
            ][index % 4]
        )
    if number == 2:  # both kinds of writing to one patient at once
        jobs[1] = ("encrypt", "EXP-1", [f"text 1 {count}" for count in range(each)])
    with writers(place, number) as crowd:
        for writer, job in zip(crowd, jobs, strict=True):
            writer.start(*job)
        results = [writer.result() for writer in crowd]
    for job, result in zip(jobs, results, strict=True):
        assert isinstance(result, list), result
        assert len(result) == each if job[0] != "decrypt" else result == established.texts[:2] * (each // 2)

    encrypted = [(job[2], result) for job, result in zip(jobs, results, strict=True) if job[0] == "encrypt"]
    texts = [text for job_texts, _ in encrypted for text in job_texts]
    wires = [wire for _, result in encrypted for wire in result]
    assert len(set(wires)) == len(texts)
    look = place.look(wires, NOVEMBER)
    assert look["read"] == texts
    actions = [entry[2] for entry in look["entries"][len(established.entries) :]]
    for action, job_name in (("message.encrypt", "encrypt"), ("patient.add", "add")):
        assert actions.count(action) == each * sum(job[0] == job_name for job in jobs)
    assert [entry[0] for entry in look["entries"]] == list(range(1, len(look["entries"]) + 1))
    assert [entry[1] for entry in look["entries"]] == sorted(entry[1] for entry in look["entries"])
    added = [patient for job in jobs if job[0] == "add" for patient in job[1]]
    assert sorted(p[0] for p in look["patients"] if p[0].startswith("NEW-")) == sorted(added)
    assert look["objects_after_anchor"] == established.look["objects"]


def test_one_patient_added_by_two_at_once_is_added_once(place: Place) -> None:
    with writers(place, 2) as crowd:
        with write_lock(place.vault):
            for writer in crowd:
                writer.start("add", ["NEW-1"])
            wait_until_all_wait(crowd)
        results = [writer.result() for writer in crowd]
    assert sorted(isinstance(result, list) for result in results) == [False, True], results
    (refused,) = [result for result in results if not isinstance(result, list)]
    assert (refused["error"], refused["code"]) == ("refused", 6)
    assert [p[2] for p in place.look([], NOVEMBER)["patients"] if p[0] == "NEW-1"] == ["active"]


def test_a_month_is_opened_once_by_two_at_once(place: Place) -> None:
    with writers(place, 2, DECEMBER) as crowd:
        with write_lock(place.vault):
            for writer in crowd:
                writer.start("rotate")
            wait_until_all_wait(crowd)
        results = [writer.result() for writer in crowd]
    assert sorted(results) == [[], ["2026-12"]]
    look = place.look([], DECEMBER)
    assert [entry[5].get("months") for entry in look["entries"] if entry[2] == "month.open"] == [["2026-12"]]


def test_messages_of_two_at_once_in_a_new_month(place: Place, established: Established) -> None:
    with writers(place, 2, DECEMBER) as crowd:
        with write_lock(place.vault):
            for patient, writer in zip(("EXP-1", "EXP-2"), crowd, strict=True):
                writer.start("encrypt", patient, [f"to {patient}"])
            wait_until_all_wait(crowd)
        wires = [wire for writer in crowd for wire in writer.result()]
    look = place.look([*established.wires, *wires], DECEMBER)
    assert look["read"] == [*established.texts, "to EXP-1", "to EXP-2"]
    assert all(":2026-12:" in wire for wire in wires)


def test_anchors_written_by_two_at_once_leave_the_newest(place: Place, established: Established) -> None:
    with writers(place, 2) as crowd:
        for writer in crowd:
            writer.start("anchor", 8)
        anchored = [sequence for writer in crowd for sequence in writer.result()]
    look = place.look([], NOVEMBER)
    assert look["objects"] == established.look["objects"]
    actions = [entry[2] for entry in look["entries"]]
    assert actions.count("audit.anchor") == 16
    assert max(anchored) == max(entry[0] for entry in look["entries"] if entry[2] == "audit.anchor")


def test_busy_is_said_after_the_wait(place: Place) -> None:
    before = place.rows("SELECT max(sequence) FROM entries")
    hurried = f"{NOVEMBER} x50"  # the ten seconds pass in a fifth of one
    with write_lock(place.vault):
        busy = place.run(Command(("encrypt", "EXP-1"), stdin="a text", at=hurried), code=7)
    assert "busy" in busy.stderr
    assert "hint: another medcrypt command is writing to it; try again in a moment" in busy.stderr
    assert not busy.stdout
    assert place.rows("SELECT max(sequence) FROM entries") == before
    place.run(Command(("encrypt", "EXP-1"), stdin="a text"))


def test_reading_status_is_not_disturbed_by_a_writer(place: Place) -> None:
    with write_lock(place.vault):
        place.run(Command(("status",)))


def test_backup_while_another_writes_is_whole(place: Place, established: Established) -> None:
    targets = [str(place.root / "backups" / f"{number}.db") for number in range(5)]
    with writers(place, 2) as (writing, backing_up):
        writing.start("encrypt", "EXP-1", [f"text {count}" for count in range(150)])
        backing_up.start("backup", targets)
        lengths = backing_up.result()
        wires = writing.result()
    assert len(wires) == 150
    entries = dict(place.rows("SELECT sequence, hash FROM entries"))
    for target, length in zip(targets, lengths, strict=True):
        with contextlib.closing(open_at(Path(target), in_use=False)) as copy:
            copy.check_integrity()
            copied = {row.sequence: row.hash for row in copy.entries()}
            keys = [
                bytes.fromhex(json.loads(value)["audit_key"]) for kind, _, value in copy.trust_rows() if kind == "token"
            ]
        assert len(copied) == length
        assert copied.items() <= entries.items(), "the backup is not the vault's own past"
        assert verify_file(target, keys).entries == length
    assert place.look(wires[:3], NOVEMBER)["read"] == ["text 0", "text 1", "text 2"]


def test_a_restore_is_refused_while_another_has_the_vault_open(place: Place, established: Established) -> None:
    """Also if that one is idle: it would go on with keys and a log that are no longer those of the file."""
    restore = Command(("vault", "restore", "@PLACE@/backups/old.db", "--yes"), at=f"{NOVEMBER} x50")
    with writers(place, 1) as (writer,):
        writer.start("encrypt", "EXP-1", ["before"])
        (before,) = writer.result()
        place.run(restore, code=7)
        writer.start("encrypt", "EXP-1", ["after"])
        (after,) = writer.result()
    look = place.look([*established.wires, before, after], NOVEMBER)
    assert look["read"] == [*established.texts, "before", "after"]
    assert [entry[2] for entry in look["entries"]].count("vault.restore") == 0
    place.run(Command(restore.args))


def test_a_process_from_before_a_replacement_writes_no_more(place: Place) -> None:
    """The file was exchanged while a program had it open: that one must not go on in the file that has no name."""
    with writers(place, 1) as (writer,):
        writer.start("encrypt", "EXP-1", ["before"])
        assert len(writer.result()) == 1
        exchanged = place.vault.with_name("copy")
        exchanged.write_bytes(place.vault.read_bytes())
        exchanged.replace(place.vault)
        writer.start("encrypt", "EXP-1", ["after"])
        refused = writer.result()
    assert (refused["error"], refused["code"]) == ("vault-busy", 7)


def test_a_restore_waits_for_a_writer_and_replaces_nothing(place: Place, established: Established) -> None:
    with write_lock(place.vault):
        place.run(Command(("vault", "restore", "@PLACE@/backups/old.db", "--yes"), at=f"{NOVEMBER} x50"), code=7)
    look = place.look(established.wires, NOVEMBER)
    assert look["entries"][: len(established.entries)] == established.entries


def test_creating_one_vault_twice_at_once_makes_one(blank: Place, tmp_path: Path) -> None:
    """An operator who thinks that the first has hung: the second must not clear away what the first is making."""
    counted = blank.copy_to(tmp_path / "counted")
    place = blank.copy_to(tmp_path / "place")
    # The file has its name and the token nothing yet. Further on SoftHSM2's own lock would make the second wait.
    (named,) = [p for p in counted.points(CREATE) if p.call == "fsync" and p.what == "practice"]
    with place.stopped(CREATE, named) as first:
        second = place.run(CREATE, code=7)
        assert "another command is making, restoring or re-keying a vault" in second.stderr
    assert first.returncode == 0, first
    look = place.look([], NOVEMBER)
    assert look["objects"] == look["objects_after_anchor"] == WHOLE


def test_two_restores_at_once_replace_once(place: Place, established: Established) -> None:
    counted = place.copy_to(place.root.parent / "counted")
    command = Command(("vault", "restore", "@PLACE@/backups/old.db", "--yes"))
    drafting = [point for point in counted.points(command) if point.what.endswith("-restoring")]
    with place.stopped(command, drafting[len(drafting) // 2]) as first:
        second = place.run(command, code=7)
        assert "another command is making, restoring or re-keying a vault" in second.stderr
    assert first.returncode == 0, first
    look = place.look(established.wires, NOVEMBER)
    assert [entry[2] for entry in look["entries"]].count("vault.restore") == 1


def test_sixteen_command_lines_at_once(place: Place) -> None:
    """Whole commands, login and all. SoftHSM2 hides a token from others while it logs in; all get in all the same."""
    command = Command(("encrypt", "EXP-1"), stdin="a text")
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda _: place.run(command), range(16)))
    wires = [run.stdout.strip() for run in done]
    look = place.look(wires, NOVEMBER)
    assert look["read"] == ["a text"] * 16
    assert [entry[2] for entry in look["entries"]].count("message.encrypt") == 4 + 16
