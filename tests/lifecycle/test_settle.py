"""The ends of a re-key: what was cut off comes to the one end or the other, and keeps nobody from reading."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medcrypt_hsm.lifecycle.commit import _commit
from medcrypt_hsm.month import Month
from tests.support.practice import Practice, statuses
from tests.support.store import beside

BOTH_PROFILES = True
OCTOBER = Month.parse("2026-10")


class Interrupted(BaseException):
    """Ctrl-C, as it is raised by the first instruction behind the call that it interrupts."""


def test_ctrl_c_right_behind_the_commit_takes_nothing_back(
    autumn: tuple[Practice, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    practice, text = autumn
    committed = _commit

    def interrupted(vault: object, *arguments: object) -> None:
        before = vault.state, vault.log.chain  # type: ignore[attr-defined]
        committed(vault, *arguments)  # type: ignore[arg-type]
        vault.state, vault.log.chain = before  # type: ignore[attr-defined]  # what the program knows at that instruction
        raise Interrupted

    monkeypatch.setattr("medcrypt_hsm.lifecycle.commit._commit", interrupted)
    with practice.open() as vault, pytest.raises(Interrupted):
        vault.months.shred([OCTOBER])
    monkeypatch.undo()
    with practice.open() as vault:
        assert vault.finished is not None
        assert vault.finished.value["subject"] == "2026-10"
        assert statuses(vault.decrypt(text, archive=True)) == ["shredded"]
        assert vault.log.verify().rows


def test_the_backup_that_a_rekey_made_of_itself_can_be_put_back(autumn: tuple[Practice, str]) -> None:
    """It was made before the old keys were destroyed; the certificate from then stays."""
    practice, text = autumn
    with practice.open() as vault:
        made = vault.months.shred([OCTOBER])
    files = [file.read_bytes() for file in made.files]
    practice.path.rename(practice.path.with_name("lost.db"))
    practice.restore(practice.path.with_name("vault.db-backup-2")).close()
    with practice.open() as vault:
        assert vault.log.verify().rows
        assert statuses(vault.decrypt(text, archive=True)) == ["shredded"]
        assert vault.status().generation == 2
    assert [file.read_bytes() for file in made.files] == files


def test_what_cannot_be_finished_does_not_keep_anybody_from_reading(autumn: tuple[Practice, str]) -> None:
    """Somebody's directory lies where the fresh backup is to be written, and cannot be moved away."""
    practice, _ = autumn
    with practice.open() as vault:
        (text,) = vault.encrypt("EXP-1", "noviembre")
    directory = practice.path.parent
    blocked = replace(practice)
    with blocked.open() as vault:
        target = beside(practice.path).certificate(2).with_name("vault.db-certificate-2.json.partial")
        target.mkdir()
        (target / "precious").write_text("x")
        made = vault.months.shred([OCTOBER])
    assert all(file.exists() for file in made.files)
    assert any((path / "precious").exists() for path in directory.glob("vault.db-certificate-2.json.partial*"))
    with practice.open() as vault:
        assert [message.text for message in vault.decrypt(text)] == ["noviembre"]
