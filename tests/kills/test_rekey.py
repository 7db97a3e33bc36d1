"""Re-keying killed at any moment: the next run takes it back or finishes it, and nothing in between is ever seen.

Each row of ``WORK`` is run to its end once, to learn every call that changes a file and what the vault is like
afterwards. Then copies are killed before one call after the other. What the next run finds must be what a vault is like
that was never re-keyed, or what one is like that was re-keyed undisturbed: tokens, texts, files and all.

With ``scripts/test --full`` before every call, but for SoftHSM2's rewriting of an object that is being made, which is
one file written some twenty times: there the first, the last and one between.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kills.place import DISK_CALLS, Place, Point
from tests.kills.rekeyed import (
    AWAY,
    PROFILES,
    REST,
    SHRED,
    SYNC,
    WORK,
    Campaign,
    Past,
    Work,
    choose,
    command,
    commit_of,
    committed,
    kek,
    look,
    raw,
)
from tests.kills.test_kills import kills
from tests.support.checkout import FULL

CASES = [pytest.param(work, *profiles, id=f"{work.name}-{profiles[0]}") for work in WORK for profiles in work.profiles]


@pytest.mark.parametrize(("work", "doctor", "spare"), CASES)
def test_killed(past: Past, tmp_path: Path, work: Work, doctor: str, spare: str) -> None:
    campaign = past.campaign(work, doctor, spare)
    after = campaign.after
    assert after["objects"]["doctor"] == sorted([*REST, *kek(doctor, work.doctor)])
    assert after["objects"]["spare"] == ([] if work.spare is None else sorted([*REST, *kek(spare, work.spare)]))
    assert after["doomed_at_last"] == list(work.left)
    for key, read in after["read"].items():
        assert (read == f"to {key.replace(' ', ' in ')}") == (not work.gone(key) and "2026-08" not in key), key
    kills(campaign.start, campaign.todo, work.points, campaign.check, tmp_path, choose=choose)


def disturbed(
    campaign: Campaign, directory: Path, chosen: list[Point], disturb: Callable[[Place, Point], tuple[int, str]]
) -> None:
    """Each place that ``disturb`` leaves, with exit code and stdout, passes ``check``, or did not notice."""
    failures = []
    for point in chosen:
        place = campaign.start.copy_to(directory / f"{point.call}-{point.number}")
        code, stdout = disturb(place, point)
        try:
            assert (code == 0) == bool(stdout)
            campaign.check(place, stdout)
        except AssertionError as exc:
            failures.append(f"{point}: {exc}")
    assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize("work", [SHRED, SYNC], ids=["shred", "sync"])
def test_interrupted_by_a_person(past: Past, tmp_path: Path, work: Work) -> None:
    """Ctrl-C while a commit waits for the disk: the file has it, and the program learns of the keys first."""
    campaign = past.campaign(work, *PROFILES[0])
    points = campaign.points
    syncs = [point for point in points if point.call in ("fdatasync", "fsync")]

    def disturb(place: Place, point: Point) -> tuple[int, str]:
        done = place.signalled(campaign.todo, point, "INT")
        assert done.returncode in (0, 130), done
        return done.returncode, done.stdout

    disturbed(campaign, tmp_path, syncs if FULL else [commit_of(points)], disturb)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_the_disk_fails_for_good(past: Past, tmp_path: Path, error: str) -> None:
    """From some call on no write and no sync comes through, not even those by which it would be taken back."""
    campaign = past.campaign(SHRED, *PROFILES[error == "EIO"])
    points = campaign.points
    own = [p for p in points if p.call in DISK_CALLS and "-shm" not in p.what]

    def disturb(place: Place, point: Point) -> tuple[int, str]:
        done = place.fail(campaign.todo, points, point, error)
        assert done.returncode in (0, 1), done
        if done.returncode:
            lines = done.stderr.splitlines()
            assert [line.partition(":")[0] for line in lines] == ["error", "hint"], done
            if point != commit:  # a commit that failed: nobody knows
                assert ("is re-keyed" in lines[0]) == committed(SHRED, place), done
        return done.returncode, done.stdout

    commit = commit_of(points)
    few = [commit, own[-20]] if error == "EIO" else [own[len(own) // 2]]
    disturbed(campaign, tmp_path, own if FULL else few, disturb)


def first_write_of_commit(points: list[Point]) -> Point:
    """Every root key is made, and the file knows of none."""
    at = points.index(commit_of(points))
    while points[at - 1].call == "pwrite64":
        at -= 1
    return points[at]


@pytest.mark.parametrize("spare", ["p256-hpke", "aes-kw"] if FULL else ["p256-hpke"])
def test_a_leftover_on_the_other_token_goes_though_that_was_away_next(past: Past, tmp_path: Path, spare: str) -> None:
    """Its root key of the third generation wraps nothing; the re-key to the fourth finds it."""
    profiles = next(pair for pair in PROFILES if pair[1] == spare)
    campaign = past.campaign(SHRED, *profiles)
    place = campaign.start.copy_to(tmp_path / "place")
    points = campaign.points
    place.kill(campaign.todo, first_write_of_commit(points))
    place.run(command("shred", "2026-09", *AWAY))
    assert {*kek(spare, "2"), *kek(spare, "3")} < set(look(place, campaign.wires)["objects"]["spare"])
    place.run(command("patient", "erase", "EXP-2"))
    assert look(place, campaign.wires)["objects"]["spare"] == sorted([*REST, *kek(spare, "4")])


def test_the_fresh_backup_put_back_is_finished_again(past: Past, tmp_path: Path) -> None:
    """It is of the moment between commit and certificate, opens with the new root keys, and the certificate stays."""
    campaign = past.campaign(SHRED, *PROFILES[0])
    place = campaign.start.copy_to(tmp_path / "place")
    place.run(campaign.todo)
    certified = place.vault.with_name("vault.db-certificate-3.json").read_bytes()
    place.run(command("vault", "restore", "@PLACE@/practice/vault.db-backup-3"))
    assert raw(place)[0], "nothing is left to finish"
    found = look(place, campaign.wires)
    for name in ("read", "generation", "begun", "keysets", "doomed_at_last", "objects", "spare", "patients", "files"):
        assert found[name] == campaign.after[name], name
    assert place.vault.with_name("vault.db-certificate-3.json").read_bytes() == certified
