"""Files while the power goes or the disk fills: whole under their own name, or not there; what is left goes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kills.established import NOVEMBER, Established
from tests.kills.place import Command, Place
from tests.kills.test_disk import NAMESPACE, said_in_two_lines
from tests.kills.test_kills import kills

CONTENT = b"a scan of somebody " * 12_000  # four chunks
ENCRYPT = Command(("encrypt-file", "EXP-1", "@PLACE@/scan.pdf", "@PLACE@/out/x.mcf"), at=NOVEMBER)
DECRYPT = Command(("decrypt-file", "@PLACE@/sent.mcf", "--out", "@PLACE@/out"), at=NOVEMBER)

# Runs a command where its directory for results is a disk of so much room, and says what is left there.
SMALL = """
out=$1; shift
mount -t tmpfs -o "size=64k,mode=0700" tmpfs "$out" || exit 90
"$@"
code=$?
ls -A "$out"
exit $code
"""


@pytest.fixture(scope="module")
def start(established: Established, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = established.place.copy_to(tmp_path_factory.mktemp("files") / "start")
    (place.root / "scan.pdf").write_bytes(CONTENT)
    (place.root / "out").mkdir(mode=0o700)
    place.run(Command(("encrypt-file", "EXP-1", "@PLACE@/scan.pdf", "@PLACE@/sent.mcf"), at=NOVEMBER))
    return place


def left(place: Place) -> list[Path]:
    return sorted((place.root / "out").iterdir())


def check(place: Place, stdout: str, command: Command, named: str) -> None:
    """After a kill of ``command``, whose result is called ``named``."""
    out = place.root / "out"
    unfinished = [path for path in left(place) if path.name.startswith("medcrypt-not-whole-")]
    assert [path for path in left(place) if path not in unfinished] in ([], [out / named])
    assert len(unfinished) <= 1
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in left(place))
    whole = (out / named).exists()
    assert whole or not stdout
    reading = DECRYPT if command is DECRYPT else Command(("decrypt-file", str(out / named), "--out", str(place.root)))
    if whole and command is ENCRYPT:
        place.run(Command(reading.args, at=NOVEMBER))
        assert (place.root / "scan (2).pdf").read_bytes() == CONTENT
    elif whole:
        assert (out / named).read_bytes() == CONTENT
    again = place.run(command, code=2 if whole and command is ENCRYPT else 0)
    names = {named} | ({"scan (2).pdf"} if whole and command is DECRYPT else set())
    if again.returncode == 0:
        assert {path.name for path in left(place)} == names, "the next run takes away what was left"
    place.run(Command(("audit", "verify"), at=NOVEMBER))


def test_killed_while_encrypting(start: Place, tmp_path: Path) -> None:
    kills(start, ENCRYPT, 2, lambda place, stdout: check(place, stdout, ENCRYPT, "x.mcf"), tmp_path,
          lambda point: "not-whole" in point.what and point.call in ("fsync", "link"))  # fmt: skip


def test_killed_while_decrypting(start: Place, tmp_path: Path) -> None:
    kills(start, DECRYPT, 2, lambda place, stdout: check(place, stdout, DECRYPT, "scan.pdf"), tmp_path,
          lambda point: "not-whole" in point.what and point.call in ("fsync", "link"))  # fmt: skip


@pytest.mark.parametrize("command", [ENCRYPT, DECRYPT], ids=["encrypt", "decrypt"])
def test_a_full_disk(start: Place, tmp_path: Path, command: Command) -> None:
    place = start.copy_to(tmp_path / "place")
    wrapped = ["sh", "-c", SMALL, "sh", str(place.root / "out")]
    done = subprocess.run(
        [*NAMESPACE, *wrapped, *place.medcrypt.command(*place.arguments(command))],
        env=place.medcrypt.environment(command.at),
        cwd=place.root / "home",
        capture_output=True,
        text=True,
        timeout=120,
    )
    said_in_two_lines(done)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    entries = place.run(Command(("--json", "audit", "show"), at=NOVEMBER)).json["entries"]
    assert [(e["action"], e["outcome"]) for e in entries][-2] == ("message.failed", "failed")
    place.run(command)
    place.run(Command(("audit", "verify"), at=NOVEMBER))
