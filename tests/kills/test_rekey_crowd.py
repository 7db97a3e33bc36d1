"""Others at work while a vault is re-keyed: before the commit as ever, after it not with the old keys."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kills.place import CALLS, Command, Place, Point
from tests.kills.rekeyed import AWAY, NOW, PROFILES, SHRED, Past, command, commit_of, committed, look, raw
from tests.kills.test_concurrency import writers
from tests.support.checkout import FULL

TODO = command(*SHRED.args)
ENCRYPT = Command(("--token", "doctor", "encrypt", "EXP-1"), stdin="a text of another", at=NOW)


def before_the_commit(points: list[Point]) -> Point:
    """All is made, and it asks for its turn: what follows is the read lock, the write lock and the commit.

    A stop, unlike a kill, comes when the call was carried out. Turns are locks on the vault's directory; the first call
    looks who waits.
    """
    locks = [point for point in points[: points.index(commit_of(points))] if point.call == "fcntl"]
    queueing = [point.what == "practice" for point in locks]
    begun = len(locks) - 1 - queueing[::-1].index(True)
    while queueing[begun - 1]:
        begun -= 1
    return locks[begun]


def behind_the_commit(points: list[Point]) -> Point:
    """When the file is written anew, and its backup is to be made."""
    return next(point for point in points if point.what.startswith("practice/vault.db-backup-3"))


@pytest.fixture
def place(past: Past, tmp_path: Path) -> Place:
    return past(*PROFILES[0])[0].copy_to(tmp_path / "place")


def stopping_at(place: Place, where: Callable[[list[Point]], Point]) -> Point:
    return where(place.copy_to(place.root.with_name("counted")).points(TODO, f"{CALLS},fcntl"))


def test_before_the_commit_others_work_and_take_nothing_back(past: Past, place: Place) -> None:
    _, wires = past(*PROFILES[0])
    with place.stopped(TODO, stopping_at(place, before_the_commit)) as shredding:
        wires = {**wires, "other": place.run(ENCRYPT).stdout.strip()}
        place.run(replace(ENCRYPT, args=("--token", "spare", "encrypt", "EXP-1")))
        begun, _ = raw(place)
        assert begun, "another command took it back while it was at work"
        busy = place.run(command("patient", "erase", "EXP-2"), code=7)
        assert "another command is" in busy.stderr
    assert shredding.returncode == 0, shredding
    found = look(place, wires)
    assert (found["generation"], found["begun"], found["read"]["other"]) == (3, False, "a text of another")


def test_behind_the_commit_others_start_anew_and_finish_nothing(past: Past, place: Place) -> None:
    _, wires = past(*PROFILES[0])
    point = stopping_at(place, behind_the_commit)
    with writers(place, 4, NOW) as crowd:
        with place.stopped(TODO, point) as shredding:
            jobs = [("encrypt", "EXP-1", ["x"]), ("decrypt", [wires["EXP-1 2026-11"]]), ("add", ["N-1"]), ("anchor", 1)]
            for writer, job in zip(crowd, jobs, strict=True):
                writer.start(*job)
            assert [writer.result()["error"] for writer in crowd] == ["vault-busy"] * 4
            wires = {**wires, "other": place.run(ENCRYPT).stdout.strip()}
            begun, _ = raw(place)
            assert begun, "another command finished it while it was at work"
            busy = place.run(command("shred", "2026-10"), code=7)
            assert "another command is" in busy.stderr
        assert shredding.returncode == 0, shredding
    found = look(place, wires)
    assert (found["generation"], found["begun"], found["read"]["other"]) == (3, False, "a text of another")
    assert "N-1" not in found["patients"]


def test_a_text_that_was_recorded_is_handed_out_though_the_vault_was_rekeyed_since(past: Past, place: Place) -> None:
    """The token's anchor is written after the message's own commit: that one may come too late."""
    _, wires = past(*PROFILES[0])
    hold = command("hold", "add", "--month", "2026-10", "--reason", "a case")
    unanchored = next(p for p in place.copy_to(place.root.with_name("held")).points(hold) if "*.object" in p.what)
    place.kill(hold, unanchored)
    counted = place.copy_to(place.root.with_name("counted")).points(ENCRYPT, f"{CALLS},fcntl")
    anchored = next(i for i, point in enumerate(counted) if point.what.endswith("*.object") and point.call != "fcntl")
    locks = [p for p in counted[:anchored] if p.call == "fcntl" and p.what.endswith("-shm")]
    with place.stopped(ENCRYPT, locks[-3]) as encrypting:
        place.run(TODO)
    assert encrypting.returncode == 0, encrypting
    assert look(place, {**wires, "other": encrypting.stdout.strip()})["read"]["other"] == "a text of another"


def test_many_encrypt_while_a_month_is_shredded(past: Past, place: Place) -> None:
    """Each has its text in the vault, readable, or ends with code 7 and has nothing there."""
    _, wires = past(*PROFILES[0])
    many = 20 if FULL else 8
    with ThreadPoolExecutor(many + 1) as pool:
        shredding = pool.submit(place.run, command("shred", "2026-09", *AWAY))
        commands = [replace(ENCRYPT, stdin=f"text {number}") for number in range(many)]
        done = list(pool.map(lambda each: place.run(each, code=None), commands))
    assert shredding.result().returncode == 0
    assert committed(SHRED, place)
    for run in done:
        assert (run.returncode, bool(run.stdout)) in ((0, True), (7, False)), run
        assert run.returncode == 0 or '"vault-busy"' in run.stderr or "hint: " in run.stderr
    written = {f"text {number}": run.stdout.strip() for number, run in enumerate(done) if run.returncode == 0}
    seen = place.look([*written.values(), wires["EXP-1 2026-09"]], NOW)
    assert seen["read"] == [*written, "shredded"]
    actions = [entry[2] for entry in seen["entries"]]
    assert actions.count("message.encrypt") == len(wires) + len(written)
    assert "notes" not in actions, "a false alarm was noted"


@pytest.mark.parametrize("profiles", PROFILES if FULL else PROFILES[1:], ids=lambda profiles: profiles[0])
def test_fifty_command_lines_at_once(past: Past, tmp_path: Path, profiles: tuple[str, str]) -> None:
    """Whole commands, login and all: none is lost, none doubled, and the log is one."""
    start, wires = past(*profiles)
    place = start.copy_to(tmp_path / "crowd")
    many = 50 if FULL else 10
    with ThreadPoolExecutor(many) as pool:
        done = list(pool.map(lambda number: place.run(replace(ENCRYPT, stdin=f"text {number}")), range(many)))
    written = [run.stdout.strip() for run in done]
    assert len(set(written)) == many
    seen = place.look(written, NOW)
    assert seen["read"] == [f"text {number}" for number in range(many)]
    entries = seen["entries"]
    assert [entry[0] for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry[1] for entry in entries] == sorted(entry[1] for entry in entries)
    assert [entry[2] for entry in entries].count("message.encrypt") == len(wires) + many
