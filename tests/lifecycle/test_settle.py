"""The ends of a re-key: what was cut off comes to the one end or the other, and keeps nobody from reading."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medcrypt_hsm.errors import VaultBusy
from medcrypt_hsm.lifecycle import settle
from medcrypt_hsm.lifecycle.commit import _commit
from medcrypt_hsm.lifecycle.others import own
from medcrypt_hsm.month import Month
from medcrypt_hsm.vault.audit.actions import MONTH_SHRED, SHRED, VAULT_REKEY
from medcrypt_hsm.vault.unlocked import Unlocked
from tests.support.practice import Practice, statuses, unlocked
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


def intend(opened: Unlocked) -> None:
    """As a shredding does: what it is for, sealed, and the intent of a re-key in the clear."""
    with opened.change(MONTH_SHRED, "2026-10", outcome="intended") as change:
        pass
    settle.begin(opened, VAULT_REKEY, SHRED, 2, change.sequence)


def test_one_rekey_at_a_time_and_none_is_finished_that_was_not_committed(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        opened = unlocked(vault)
        with pytest.raises(RuntimeError, match="no re-key was committed"):
            settle.finish(opened)
        intend(opened)
        with pytest.raises(VaultBusy, match="another command is re-keying the vault"):
            settle.begin(opened, VAULT_REKEY, SHRED, 2)
        with pytest.raises(RuntimeError, match="no re-key was committed"):
            settle.finish(opened)
        settle.roll_back(opened, [own(opened)], "interrupted")
        assert opened.state.rekey is None
        before = opened.log.sequence
        settle.roll_back(opened, [own(opened)], "interrupted")  # there is nothing to take back
        assert opened.log.sequence == before


def test_an_intent_that_was_interrupted_is_taken_back_at_the_next_unlock(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        intend(unlocked(vault))
    with shared_practice.open() as vault:
        assert (vault.finished, unlocked(vault).unsettled) == (None, "")
        assert (unlocked(vault).state.rekey, vault.status().generation) == (None, 1)
        told = [(entry.action, entry.outcome) for _, entry in vault.log.entries()][-5:-1]
        assert told == [(MONTH_SHRED, "intended"), (VAULT_REKEY, "intended"),
                        (VAULT_REKEY, "undone"), (MONTH_SHRED, "interrupted")]  # fmt: skip
        vault.log.verify()


def test_where_nothing_is_left_nothing_is_done(shared_practice: Practice) -> None:
    with shared_practice.open() as vault:
        before = unlocked(vault).log.sequence
        assert settle.settle(unlocked(vault)) is None
        assert unlocked(vault).log.sequence == before
