"""Ceremony, rotation, replacement, recovery and reading by break-glass, killed, interrupted, and on a failing disk.

What the next run finds is what the vault was before, with the old custodians as good as ever, or what it is afterwards;
and the same command, run again, makes the latter of the former. A use of break-glass is never forgotten.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.kills.circled import WORK, Campaign, Circles, Work
from tests.kills.place import DISK_CALLS, Place, Point
from tests.kills.rekeyed import choose
from tests.kills.test_kills import kills
from tests.support.checkout import FULL


@pytest.fixture(scope="session")
def circles(blank: Place, tmp_path_factory: pytest.TempPathFactory) -> Circles:
    return Circles(tmp_path_factory.mktemp("circles"), blank)


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.name)
def test_killed(circles: Circles, tmp_path: Path, work: Work) -> None:
    campaign = circles.campaign(work.name)
    kills(campaign.start, campaign.todo, work.points, campaign.check, tmp_path, choose=choose)


def disturbed(
    campaign: Campaign, directory: Path, chosen: list[Point], disturb: Callable[[Place, Point], tuple[int, str]]
) -> None:
    """Each place that ``disturb`` leaves, with exit code and stdout, passes ``check``."""
    failures = []
    for point in chosen:
        place = campaign.start.copy_to(directory / f"{point.call}-{point.number}")
        try:
            code, stdout = disturb(place, point)
            assert (code == 0) == bool(stdout)
            campaign.check(place, stdout)
        except AssertionError as exc:
            failures.append(f"{point}: {exc}")
        shutil.rmtree(place.root)
    assert not failures, "\n\n".join(failures)


def commits(points: list[Point]) -> list[Point]:
    """The syncs of the vault after which a token forgets something: an old anchor, a request, a share."""
    telling = [
        p for p in points if p.call in ("fdatasync", "fsync") or (p.call == "unlink" and p.what.endswith(".object"))
    ]
    return [p for p, q in pairwise(telling) if p.what == "practice/vault.db-wal" and q.call == "unlink"]


@pytest.mark.parametrize(("name", "few"), [("rotate", (0, -1)), ("recover", (0, 1))])
def test_interrupted_by_a_person(circles: Circles, tmp_path: Path, name: str, few: tuple[int, ...]) -> None:
    """Ctrl-C while a commit waits for the disk: the file has it, and the program learns of it before it goes."""
    campaign = circles.campaign(name)
    syncs = [point for point in campaign.points if point.call in ("fdatasync", "fsync")]

    def disturb(place: Place, point: Point) -> tuple[int, str]:
        done = place.signalled(campaign.todo, point, "INT")
        assert done.returncode in (0, 130), done
        return done.returncode, done.stdout

    disturbed(campaign, tmp_path, syncs if FULL else [commits(campaign.points)[at] for at in few], disturb)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", ["rotate", "recover"])
def test_the_disk_fails_for_good(circles: Circles, tmp_path: Path, name: str, error: str) -> None:
    """From some call on no write and no sync comes through, not even those by which it would be taken back."""
    campaign = circles.campaign(name)
    points = campaign.points
    own = [p for p in points if p.call in DISK_CALLS and "-shm" not in p.what]

    def disturb(place: Place, point: Point) -> tuple[int, str]:
        done = place.fail(campaign.todo, points, point, error)
        assert done.returncode in (0, 1), done
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: without --since")]
            assert [line.partition(":")[0] for line in lines] == ["error", "hint"], done
            if point not in commits(points):  # a commit that failed: nobody knows
                assert ("is re-keyed" in lines[0]) == campaign.committed(place), done
        return done.returncode, done.stdout

    few = commits(points)[:1] if error == "EIO" else [own[len(own) // 2]]
    disturbed(campaign, tmp_path, own if FULL else few, disturb)


@pytest.mark.parametrize("name", ["ceremony", "rotate"])
def test_a_custodians_token_vanishes(circles: Circles, tmp_path: Path, name: str) -> None:
    """Code 3, or it had done its part: SoftHSM2 keeps much in its own memory. It is back afterwards."""
    campaign = circles.campaign(name)
    points = campaign.points
    login = max(i for i, point in enumerate(points) if point.what.endswith("token.object"))
    own = [p for p in points[login:] if p.what.startswith("practice") and "-shm" not in p.what]
    objects = [p for p in points[login:] if p.what.endswith("*.object") and p.call != "write"]
    few = [objects[len(objects) // 2], own[len(own) // 2]]  # a share is being made; the old ones are not gone yet

    def disturb(place: Place, point: Point) -> tuple[int, str]:
        with ExitStack() as gone:
            with place.stopped(campaign.todo, point) as done:
                gone.enter_context(place.token_removed("berta"))
            assert done.returncode in (0, 3), done
            if done.returncode:
                assert "hint: " in done.stderr
                assert ("vault sync --share-token" in done.stderr) == campaign.committed(place), done
        return done.returncode, done.stdout

    disturbed(campaign, tmp_path, [*objects[::8], *own[::4]] if FULL else few, disturb)
