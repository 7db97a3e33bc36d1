"""A disk that is full, and one that cannot be written: two lines of words, nothing half done, and it goes on with room.

The vault's directory is a small tmpfs, or mounted read-only, in a mount namespace of the command's own. What a command
leaves there is brought back to an ordinary disk, on which the next one has room.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kills.place import Command, Place
from tests.kills.rekeyed import NOW, PROFILES, SHRED, WORK, Past, Work, look
from tests.support.checkout import FULL, ROOT

NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
OWN = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []  # a mode binds root too

SMALL = """
practice=$1 size=$2; shift 2
cp -a "$practice" "$practice.before" && mount -t tmpfs -o "size=$size,mode=0700" tmpfs "$practice" || exit 90
cp -a "$practice.before/." "$practice/" || exit 91
"$@"
code=$?
cp -a "$practice" "$practice.after" || exit 92
exit $code
"""
READ_ONLY = """
practice=$1; shift
mount --bind "$practice" "$practice" && mount -o remount,bind,ro "$practice" || exit 90
exec "$@"
"""
ENCRYPT = Command(("--token", "doctor", "encrypt", "EXP-1"), stdin="a text", at=NOW)
BACKUP = Command(("--token", "doctor", "vault", "backup", "@PLACE@/practice/new.db"), at=NOW)
HOLD = Command(("--token", "doctor", "hold", "add", "--month", "2026-10", "--reason", "a case"), at=NOW)
ERASE = next(work for work in WORK if work.name == "erase")


def inside(place: Place, script: str, command: Command, *more: str) -> subprocess.CompletedProcess[str]:
    wrapped = ["sh", "-c", script, "sh", str(place.vault.parent), *more]
    return subprocess.run(
        [*NAMESPACE, *wrapped, *place.medcrypt.command(*place.arguments(command))],
        input=command.stdin,
        env=place.medcrypt.environment(command.at, dict(command.env)),
        cwd=place.root / "home",
        capture_output=True,
        text=True,
        timeout=120,
    )


def with_room_for(place: Place, command: Command, kilobytes: int) -> subprocess.CompletedProcess[str]:
    """Run it where so much is free beside what is there; afterwards the place has all the room that it wants."""
    practice = place.vault.parent
    pages = sum(-(-file.stat().st_size // 4096) for file in practice.iterdir())
    done = inside(place, SMALL, command, f"{4 * pages + 4 + kilobytes}k")  # tmpfs counts pages, and one for itself
    for leftover in (practice, before := practice.with_name(practice.name + ".before")):
        subprocess.run(["rm", "-r", str(leftover)], check=True)
    assert not before.exists()
    practice.with_name(practice.name + ".after").rename(practice)
    return done


def said_in_two_lines(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode in (1, 7), done
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"], done


@pytest.mark.parametrize("work", [SHRED, ERASE], ids=["shred", "erase"])
def test_full_while_it_is_rekeyed(past: Past, tmp_path: Path, work: Work) -> None:
    """Before the commit nothing has happened; after it the vault opens all the same, and is finished with room."""
    campaign = past.campaign(work, *PROFILES[work is ERASE])
    codes = []
    few = [80, 190] if work is SHRED else [112]
    for kilobytes in range(0, 480, 8) if FULL else few:
        place = campaign.start.copy_to(tmp_path / str(kilobytes))
        done = with_room_for(place, campaign.todo, kilobytes)
        codes.append(done.returncode)
        if done.returncode:
            said_in_two_lines(done)
            assert "is full" in done.stderr or "No space left" in done.stderr or "disk I/O error" in done.stderr
        campaign.check(place, done.stdout)
    assert 1 in codes
    assert not FULL or codes[-1] == 0, codes


@pytest.mark.parametrize("command", [ENCRYPT, BACKUP, HOLD], ids=["encrypt", "backup", "hold"])
def test_full_while_something_is_written(past: Past, tmp_path: Path, command: Command) -> None:
    start, wires = past(*PROFILES[0])
    before = look(start.copy_to(tmp_path / "before"), wires)
    failed = 0
    for kilobytes in range(0, 240, 8) if FULL else [24]:
        place = start.copy_to(tmp_path / str(kilobytes))
        done = with_room_for(place, command, kilobytes)
        if done.returncode:
            said_in_two_lines(done)
            failed += 1
            found = look(place, wires)
            assert {name: found[name] for name in before.keys() - {"rows"}} == {
                name: before[name] for name in before.keys() - {"rows"}
            }
            place.run(command)
    assert failed


def test_a_read_only_file_system(past: Past, tmp_path: Path) -> None:
    """It can be looked at and verified, with the token too; what would write says that it cannot."""
    start, wires = past(*PROFILES[0])
    place = start.copy_to(tmp_path / "place")
    files = {file: file.read_bytes() for file in place.vault.parent.iterdir()}
    for args in (("status",), ("--token", "doctor", "status"), ("--token", "doctor", "audit", "verify")):
        done = inside(place, READ_ONLY, Command(args, at=NOW))
        assert done.returncode == 0, done
    decrypt = Command(("--token", "doctor", "decrypt"), stdin=wires["EXP-1 2026-11"], at=NOW)
    shred = Command(("--token", "doctor", "--yes", "shred", "2026-09", "--without", "spare"), at=NOW)
    for command in (ENCRYPT, BACKUP, HOLD, decrypt, shred):
        said_in_two_lines(inside(place, READ_ONLY, command))
    assert {file: file.read_bytes() for file in place.vault.parent.iterdir()} == files
    place.run(shred)


def test_a_read_only_directory(past: Past, tmp_path: Path) -> None:
    """The same with a mode, and in the midst of a re-key: what was begun waits until it can be ended."""
    campaign = past.campaign(SHRED, *PROFILES[0])
    place = campaign.start.copy_to(tmp_path / "place")
    counted = campaign.points
    behind = next(point for point in counted if point.what.startswith("practice/vault.db-backup-3"))
    place.kill(campaign.todo, behind)
    practice = place.vault.parent
    practice.chmod(0o500)
    try:
        for args, code in ((("status",), 0), (("--token", "doctor", "status"), 0), (ENCRYPT.args, 0)):
            done = subprocess.run(
                [*OWN, *place.medcrypt.command(*args)],
                input="a text",
                env=place.medcrypt.environment(NOW),
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            assert done.returncode == code, done
            assert "was interrupted" in done.stdout or args is ENCRYPT.args
    finally:
        practice.chmod(0o700)
    campaign.check(place, "")
