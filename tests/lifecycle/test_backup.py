"""Backups, at library level on a real token."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.errors import AuditBroken, UsageError
from medcrypt_hsm.vault.inspection import verify_file
from tests.support.practice import Practice
from tests.support.store import tamper

BOTH_PROFILES = True


class TestBackup:
    def test_it_is_one_verified_private_file(self, practice: Practice) -> None:
        target = practice.path.with_name("backup.db")
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            verified = vault.backup(target)
            keys = [token.audit_key for token in vault.status().tokens]
        assert target.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in sorted(practice.path.parent.iterdir())] == ["backup.db", "vault.db"]
        assert verify_file(target, keys).sequence == verified.sequence

    def test_it_holds_its_own_entry_and_the_token_remembers_it(self, practice: Practice) -> None:
        target = practice.path.with_name("backup.db")
        with practice.open() as vault:
            assert vault.backup(target).sequence == vault.status().anchor
        with practice.open(target) as vault:
            assert vault.log.entries()[-2][1].action == "vault.backup"
            vault.log.verify()

    def test_never_over_a_file(self, practice: Practice, saved: Path) -> None:
        before = saved.read_bytes()
        with practice.open() as vault, pytest.raises(UsageError, match="exists already"):
            vault.backup(saved)
        assert saved.read_bytes() == before

    def test_into_no_directory(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(UsageError, match="no directory"):
            vault.backup(practice.path.parent / "none" / "backup.db")

    def test_while_another_process_writes(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            others = practice.start_elsewhere("for i in range(20): vault.encrypt('EXP-1', f'nota {i}')")
            copies = []
            while others.poll() is None and len(copies) < 5:
                copies.append(practice.path.with_name(f"backup-{len(copies)}.db"))
                vault.backup(copies[-1])
            _, said = others.communicate()
            assert others.returncode == 0, said
            vault.log.verify()
            keys = [token.audit_key for token in vault.status().tokens]
        ends = [verify_file(copy, keys).sequence for copy in copies]
        assert ends
        assert ends == sorted(ends)

    def test_a_vault_that_is_broken_is_not_saved_as_a_backup(self, practice: Practice) -> None:
        target = practice.path.with_name("backup.db")
        tamper(practice.path, "UPDATE entries SET signature = zeroblob(64) WHERE sequence = 1")
        with practice.open() as vault, pytest.raises(AuditBroken):
            vault.backup(target)
        assert not list(practice.path.parent.glob("backup*"))
