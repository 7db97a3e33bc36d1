"""Killed at any moment, the program leaves what its next run completes or rolls back; SoftHSM2's writes are among them.

Each test runs a command to its end once to learn every call that changes a file, then kills a fresh copy of vault and
token just before some of these calls (all of them with ``scripts/test --full``) and looks at what is left.

What SoftHSM2 2.6.1 itself does not survive (docs/spec/tokens.md): it rewrites ``token.object`` in place at every login;
that point is left out here and has a test of its own. An object whose making was interrupted stays as a stub file that
no PKCS#11 call shows; nothing depends on it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kills.established import (
    CREATE,
    DECEMBER,
    NOVEMBER,
    PLAINTEXT,
    V1_SECRET,
    WHOLE,
    WITH_SECRET,
    Established,
    looking,
)
from tests.kills.place import Command, Look, Place, Point, sample


def kills(
    start: Place,
    command: Command,
    most: int,
    check: Callable[[Place, str], None],
    work: Path,
    also: Callable[[Point], bool] = lambda point: False,
    choose: Callable[[list[Point], int], list[Point]] = sample,
) -> None:
    """Kill ``command`` at some points of ``start`` and ``check`` the place and the stdout that each leaves.

    Which points: those that ``choose`` chooses, and those that are ``also`` wanted.
    """
    counted = start.copy_to(work / "counted")
    points = [point for point in counted.points(command) if not point.what.endswith("token.object")]

    def one(point: Point) -> str | None:
        place = start.copy_to(work / f"{point.call}-{point.number}")
        try:
            check(place, place.kill(command, point))
        except AssertionError as exc:
            return f"killed before {point}: {exc}"
        shutil.rmtree(place.root)
        return None

    few = choose(points, most)
    chosen = [point for point in points if point in few or also(point)]
    with ThreadPoolExecutor(2) as pool:
        failures = [failure for failure in pool.map(one, chosen) if failure is not None]
    assert not failures, "\n\n".join(failures)


def _check_nothing_lost(established: Established, place: Place, at: str) -> Look:
    """What holds after a kill of whatever it was, and after the work that a next day brings."""
    check_no_secret(place)
    look = place.look(established.wires, at)
    assert look["entries"][: len(established.entries)] == established.entries
    assert look["read"] == established.texts
    assert [p for p in look["patients"] if p[0] in ("EXP-1", "EXP-2", "EXP-3", "OLD-1")] == established.look["patients"]
    assert look["orphans"] == []
    assert set(look["objects"]) == set(WHOLE)
    assert len(look["objects"]) <= len(WHOLE) + 1  # a second anchor at most, between its making and the old one's end
    assert look["objects_after_anchor"] == WHOLE
    return look


def check_no_secret(place: Place) -> None:
    for file in place.files():
        content = file.read_bytes()
        for secret in (PLAINTEXT, V1_SECRET):
            assert secret.encode() not in content, file


def _actions(look: Look, established: Established) -> list[str]:
    """What the killed command and its next run entered."""
    return [entry[2] for entry in look["entries"][len(established.entries) : -len(looking(established.wires))]]


def test_vault_create(blank: Place, tmp_path: Path) -> None:
    def check(place: Place, stdout: str) -> None:
        again = place.run(CREATE, code=None)
        complete = again.returncode == 7 and "there is a vault" in again.stderr
        assert again.returncode == 0 or complete, again
        assert complete or not stdout
        look = place.look([], NOVEMBER)
        assert [entry[2] for entry in look["entries"]][:1] == ["token.introduce"]
        assert look["orphans"] == []
        assert set(look["objects"]) == set(WHOLE)
        assert complete or look["objects"] == WHOLE
        assert look["objects_after_anchor"] == WHOLE
        assert sorted(path.name for path in place.vault.parent.iterdir()) == ["vault.db"]

    kills(blank, CREATE, 7, check, tmp_path)


ADD_V2 = Command(("--json", "patient", "add", "NEW-1", "--unconfirmed"))
ADD_V1 = Command(
    ("--json", "patient", "add", "NEW-1", "--protocol", "v1", "--secret-source", "env:V1_SECRET"), env=WITH_SECRET
)


@pytest.mark.parametrize("command", [ADD_V2, ADD_V1], ids=["v2", "v1"])
def test_patient_add(established: Established, tmp_path: Path, command: Command) -> None:
    def check(place: Place, stdout: str) -> None:
        look = _check_nothing_lost(established, place, NOVEMBER)
        added = [patient for patient in look["patients"] if patient[0] == "NEW-1"]
        assert len(added) == _actions(look, established).count("patient.add") <= 1
        assert added or not stdout, "reported, but not recorded"
        # Another try is refused (there is one already) or makes it.
        place.run(command, code=6 if added else 0)

    kills(established.place, command, 4, check, tmp_path)


ROTATE = Command(("rotate",), at=DECEMBER)
FIRST_OF_MONTH = Command(("encrypt", "EXP-1"), stdin=PLAINTEXT, at=DECEMBER)


@pytest.mark.parametrize("command", [ROTATE, FIRST_OF_MONTH], ids=["rotate", "by-itself"])
def test_month_opening(established: Established, tmp_path: Path, command: Command) -> None:
    def check(place: Place, stdout: str) -> None:
        months = [month for (month,) in place.rows("SELECT name FROM trust WHERE kind = 'month' ORDER BY name")]
        chains = place.rows("SELECT DISTINCT month FROM records WHERE purpose = 'chain'")
        assert months in (["2026-11"], ["2026-11", "2026-12"])
        assert chains == [(months[-1],)], "some chains were stepped and some not"
        look = _check_nothing_lost(established, place, DECEMBER)
        assert [month for month, _ in look["months"]] == ["2026-11", "2026-12"] or len(months) == 1
        december = place.run(Command(("encrypt", "EXP-2"), stdin=PLAINTEXT, at=DECEMBER)).stdout.strip()
        again = place.look([*established.wires, december, *stdout.split()], DECEMBER)
        assert again["read"][: len(established.texts) + 1] == [*established.texts, PLAINTEXT]
        assert [e[5]["months"] for e in again["entries"] if e[2] == "month.open"] == [["2026-12"]]

    kills(established.place, command, 4, check, tmp_path)


@pytest.mark.parametrize("patient", ["EXP-1", "OLD-1"])
def test_encrypt(established: Established, tmp_path: Path, patient: str) -> None:
    def check(place: Place, stdout: str) -> None:
        look = _check_nothing_lost(established, place, NOVEMBER)
        if stdout.endswith("\n"):
            assert "message.encrypt" in _actions(look, established), "handed out, but not recorded"
            assert place.look([*established.wires, stdout.strip()], NOVEMBER)["read"][-1] == PLAINTEXT

    kills(established.place, Command(("encrypt", patient), stdin=PLAINTEXT), 3, check, tmp_path)


def test_decrypt(established: Established, tmp_path: Path) -> None:
    command = Command(("--json", "decrypt"), stdin="\n".join(established.wires))

    def check(place: Place, stdout: str) -> None:
        look = _check_nothing_lost(established, place, NOVEMBER)
        assert "message.decrypt" in _actions(look, established) or not stdout, "plaintext, but no record"

    kills(established.place, command, 4, check, tmp_path)


def test_backup(established: Established, tmp_path: Path) -> None:
    command = Command(("vault", "backup", "@PLACE@/backups/new.db"))

    def check(place: Place, stdout: str) -> None:
        backup = place.root / "backups" / "new.db"
        whole = backup.exists()
        if whole:  # under its final name only when it is whole: it is one file, and it verifies
            (other := place.root / "other").mkdir(mode=0o700)
            copy = {"MEDCRYPT_VAULT": str(shutil.copy(backup, other / "new.db"))}
            status = place.medcrypt("--json", "status", env=copy, at=NOVEMBER)
            assert json.loads(status.stdout)["schema"] == 1
        assert whole or not stdout
        _check_nothing_lost(established, place, NOVEMBER)
        if not whole:  # another try is not in the way of what the first left
            place.run(command)
        left = {path.name for path in (place.root / "backups").iterdir()}
        assert left - {"new.db.partial"} == {"old.db", "new.db"}
        place.run(Command(("vault", "restore", str(backup), "--yes")))
        look = place.look(established.wires, NOVEMBER)
        assert look["read"] == established.texts
        assert look["entries"][: len(established.entries)] == established.entries

    kills(established.place, command, 4, check, tmp_path)


def test_restore(established: Established, tmp_path: Path) -> None:
    command = Command(("vault", "restore", "@PLACE@/backups/old.db", "--yes"))

    def check(place: Place, stdout: str) -> None:
        check_no_secret(place)
        before = place.look(established.wires, NOVEMBER)
        old_vault = before["entries"][: len(established.entries)] == established.entries
        restored = [entry[2] for entry in before["entries"]].count("vault.restore")
        assert old_vault == (restored == 0), "neither the vault nor the backup"
        assert before["read"] == established.texts
        if old_vault:
            assert not stdout
            place.run(command)
            assert [e[2] for e in place.look([], NOVEMBER)["entries"]].count("vault.restore") == 1
            assert sorted(path.name for path in place.vault.parent.iterdir()) == ["vault.db"]

    def decisive(point: Point) -> bool:
        """The vault file itself changes, or which file bears its name, or whether a journal is still to be undone."""
        return point.what in ("practice/vault.db", "practice") or (
            (point.call == "unlink" and point.what.endswith("vault.db-journal")) or point.call == "rename"
        )

    kills(established.place, command, 3, check, tmp_path, decisive)


def test_anchor(established: Established, tmp_path: Path) -> None:
    def check(place: Place, stdout: str) -> None:
        look = _check_nothing_lost(established, place, NOVEMBER)
        assert not stdout or "audit.anchor" in _actions(look, established)

    kills(established.place, Command(("audit", "anchor")), 4, check, tmp_path)


def test_two_anchors_are_harmless_and_the_next_write_clears_them(established: Established, tmp_path: Path) -> None:
    counted = established.place.copy_to(tmp_path / "counted")
    place = established.place.copy_to(tmp_path / "place")
    command = Command(("audit", "anchor"))
    # The old anchor's file is the only object that the command removes.
    (destroy,) = [p for p in counted.points(command) if p.call.startswith("unlink") and p.what.endswith("*.object")]
    place.kill(command, destroy)
    look = place.look(established.wires, NOVEMBER)
    assert look["objects"] == sorted([*WHOLE, "DATA medcrypt anchor"])
    assert look["read"] == established.texts
    assert look["objects_after_anchor"] == WHOLE


def test_orphans_of_an_unfinished_vault_are_named_by_another_and_destroyed_by_their_own(
    blank: Place, tmp_path: Path
) -> None:
    counted = blank.copy_to(tmp_path / "counted")
    place = blank.copy_to(tmp_path / "place")
    points = counted.points(CREATE)
    objects = [point for point in points if point.what.endswith("*.object")]
    place.kill(CREATE, objects[len(objects) * 3 // 4])
    unfinished = place.run(Command(("status", "--token", "doctor")), code=7)
    assert "vault create" in unfinished.stderr

    elsewhere = {"MEDCRYPT_VAULT": str(place.root / "elsewhere" / "vault.db")}
    place.medcrypt(*CREATE.args, env=elsewhere, at=NOVEMBER)
    named = place.medcrypt("--json", "status", "--token", "doctor", env=elsewhere, at=NOVEMBER)
    assert "medcrypt kek" in named.stdout, "the orphans are not named"
    place.run(CREATE)  # its own vault's creation clears exactly its own
    look = place.look([], NOVEMBER)
    assert look["objects"] == sorted(WHOLE * 2)


def _token_object(place: Place) -> Path:
    # The directory also holds SoftHSM2's lock files and those of objects.
    (path,) = (place.root / "softhsm" / "tokens").glob("*/token.object")
    return path


@pytest.fixture
def killed_at_login(established: Established, tmp_path: Path) -> tuple[Place, bytes]:
    counted = established.place.copy_to(tmp_path / "counted")
    place = established.place.copy_to(tmp_path / "place")
    whole = _token_object(place).read_bytes()
    command = Command(("encrypt", "EXP-1"), stdin=PLAINTEXT)
    (write,) = [p for p in counted.points(command) if p.call == "write" and p.what.endswith("token.object")]
    place.kill(command, write)
    return place, whole


def test_softhsm_killed_at_login_has_no_token(killed_at_login: tuple[Place, bytes], established: Established) -> None:
    """SoftHSM2 2.6.1 truncates ``token.object`` and writes it anew at each login (to clear a flag).

    Killed between the two it has no token any more. No caller can prevent that; a copy of its directory is the remedy,
    and it is why SoftHSM2 is for tests and demos. What the program owes: say so, touch nothing, go on afterwards.
    """
    place, whole = killed_at_login
    assert _token_object(place).read_bytes() == b""
    before = place.vault.read_bytes()
    for args in (("encrypt", "EXP-1"), ("audit", "verify"), ("status", "--token", "doctor")):
        absent = place.run(Command(args, stdin=PLAINTEXT), code=3)
        assert not absent.stdout
    assert place.vault.read_bytes() == before
    _token_object(place).write_bytes(whole)
    look = _check_nothing_lost(established, place, NOVEMBER)
    assert "message.encrypt" not in _actions(look, established)
