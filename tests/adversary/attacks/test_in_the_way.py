"""Somebody put something where the program writes by itself: it is not followed, overwritten or lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm.errors import VaultError
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.inspection import status_of_file
from tests.support.practice import Practice

BOTH_PROFILES = True
SEPTEMBER = Month.parse("2026-09")
NOBODY = 65534
Plant = Callable[[Path, Path], None]
OWN = ("backup-2", "backup-2.partial", "certificate-2.json", "certificate-2.md", "certificate-2.json.partial",
       "certificate-2.md.partial")  # fmt: skip


@pytest.fixture
def september(tmp_path: Path, token_uri: str, profile: str) -> Practice:
    practice = Practice(tmp_path / "practice" / "vault.db", token_uri)
    practice.clock.set("2026-09-20")
    with practice.create(options=TokenOptions(profile)) as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
    practice.clock.set("2026-10-20")
    with practice.open() as vault:
        vault.months.open()
    return practice


def link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def link_to_nothing(path: Path, precious: Path) -> None:
    path.symlink_to(precious.with_name("none"))


def directory(path: Path, precious: Path) -> None:
    path.mkdir()
    shutil.copy(precious, path)


def file_of_another(path: Path, precious: Path) -> None:
    shutil.copy(precious, path)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    path.chmod(0o400)


@pytest.mark.parametrize("plant", [link, link_to_nothing, directory, file_of_another])
def test_at_every_name_that_a_re_key_uses(september: Practice, tmp_path: Path, plant: Plant) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"of somebody else")
    beside = {name: september.path.with_name(f"vault.db-{name}") for name in OWN}
    for path in beside.values():
        plant(path, precious)
    with september.open() as vault:
        made = vault.months.shred([SEPTEMBER])
        vault.log.verify()
    assert precious.read_bytes() == b"of somebody else"
    assert not (tmp_path / "none").exists()
    assert [file.is_file() and not file.is_symlink() for file in made.files] == [True, True]
    assert dict(status_of_file(beside["backup-2"]).months)["2026-09"] == "shredded"
    for name, path in beside.items():
        if plant is not file_of_another or "partial" not in name:  # a file by that name is a killed run's
            assert os.path.lexists(f"{path}-found-1")
    for found in september.path.parent.glob("*-found-1"):
        held = found / "precious" if plant is directory else found
        assert plant is link_to_nothing or held.read_bytes() == precious.read_bytes()


def test_a_backup_of_another_history_is_kept(september: Practice, tmp_path: Path) -> None:
    """A restore went back to before a re-key of another token, and the numbers are used again."""
    with september.open() as vault:
        vault.backup(tmp_path / "saved.db")
    with september.open() as vault:
        vault.holds.add("what the other history has", patient="EXP-1")
        for number in (1, 2):
            vault.backup(september.path.with_name(f"vault.db-backup-{number}"))
    others = september.path.with_name("vault.db-backup-2").read_bytes()
    with september.restore(tmp_path / "saved.db") as vault:
        vault.months.shred([SEPTEMBER])
    assert september.path.with_name("vault.db-backup-2-found-1").read_bytes() == others
    assert september.path.with_name("vault.db-backup-1").exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_where_the_notes_are_kept(september: Practice, tmp_path: Path, kind: str) -> None:
    notes = september.path.with_name("vault.db-notes")
    precious = tmp_path / "precious"
    precious.write_bytes(b"of somebody else")
    if kind == "pipe":
        os.mkfifo(notes)
    else:
        plant = link if kind == "link" else directory
        plant(notes, precious)
    with pytest.raises(VaultError, match=r"vault\.db-notes"):
        september.open()
    assert precious.read_bytes() == b"of somebody else"
