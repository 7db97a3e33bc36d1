"""Restoring backups, at library level on a real token."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import (
    TokenRemoved,
    UsageError,
    VaultError,
    VaultForeign,
    VaultMissing,
    VaultRolledBack,
)
from medcrypt_hsm.lifecycle import restore
from medcrypt_hsm.lifecycle.restore import Loss
from medcrypt_hsm.vault.store.rows import Location
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import rows, tamper
from tests.support.watched_token import WatchedToken

BOTH_PROFILES = True


class Stopped(Exception):
    """A person said no."""


def stop(loss: Loss) -> None:
    raise Stopped


def agree(loss: Loss) -> None: ...


class TestRestore:
    def test_what_would_be_lost_is_said_first(self, practice: Practice, saved: Path) -> None:
        losses: list[Loss] = []
        ends, begins = len(rows(practice.path, "entries")), len(rows(saved, "entries"))
        with practice.restore(saved, losses=losses) as vault:
            vault.log.verify()
        [loss] = losses
        assert (loss.backup_ends, loss.vault_ends, loss.common) == (begins, ends, begins)
        assert (loss.entries_lost, len(loss.lost), loss.departs) == (ends - begins, ends - begins, False)

    def test_saying_no_changes_nothing(self, practice: Practice, saved: Path) -> None:
        before = practice.path.read_bytes()
        with pytest.raises(Stopped):
            Vault.restore(practice.path, saved, pin=pin, agree=stop, clock=practice.clock)
        assert practice.path.read_bytes() == before
        assert not list(practice.path.parent.glob("*-restoring*"))
        with practice.open() as vault:
            vault.log.verify()

    def test_the_entry_names_what_was_abandoned(self, practice: Practice, saved: Path) -> None:
        newest = rows(practice.path, "entries")[-1]
        with practice.restore(saved) as vault:
            (restored,) = [e for _, e in vault.log.entries() if e.action == "vault.restore"]
        assert restored.detail == {"abandoned_sequence": newest[0], "abandoned_hash": newest[2].hex()}

    def test_the_practice_goes_on_and_the_abandoned_file_is_refused(self, practice: Practice, saved: Path) -> None:
        abandoned = practice.copy("abandoned.db")
        with practice.restore(saved) as vault:
            assert statuses(vault.decrypt(vault.encrypt("EXP-1", "sigue")[0])) == ["ok"]
        with pytest.raises(VaultRolledBack):
            practice.open(abandoned)
        with practice.open() as vault:
            vault.log.verify()

    def test_the_backup_itself_is_untouched_and_can_be_restored_again(self, practice: Practice, saved: Path) -> None:
        before = saved.read_bytes()
        for _ in range(2):
            with practice.restore(saved) as vault:
                vault.encrypt("EXP-1", "y otra vez")
                vault.log.verify()
        assert saved.read_bytes() == before

    @pytest.mark.parametrize("content", [b"", b"not a database", bytes(8192)])
    def test_in_the_place_of_a_file_that_cannot_be_read(self, practice: Practice, saved: Path, content: bytes) -> None:
        practice.path.write_bytes(content)
        practice.path.with_name("vault.db-wal").write_bytes(b"a log of the old file")
        with practice.restore(saved) as vault:
            vault.log.verify()

    def test_in_the_place_of_no_file(self, practice: Practice, saved: Path) -> None:
        practice.path.unlink()
        losses: list[Loss] = []
        with practice.restore(saved, losses=losses) as vault:
            vault.log.verify()
        assert losses[0].vault_ends is None

    def test_changed_while_a_person_thinks_about_the_loss(self, practice: Practice, saved: Path) -> None:
        """What is restored is what was verified, not what lies at the source by then."""

        def agree(loss: Loss) -> None:
            tamper(saved, "DELETE FROM seen", "DELETE FROM entries WHERE sequence > 4")

        with Vault.restore(practice.path, saved, pin=pin, agree=agree, clock=practice.clock) as vault:
            assert vault.log.verify().sequence == len(rows(practice.path, "entries"))
            assert len(rows(practice.path, "entries")) > 5

    @pytest.mark.parametrize("statement", [
        "UPDATE entries SET stored = zeroblob(80) WHERE sequence = 2",
        "DELETE FROM entries WHERE sequence = 2",
        "UPDATE trust SET value = CAST(replace(value, ':7,', ':70,') AS BLOB) WHERE kind = 'policy'",
        "DELETE FROM entries",
    ])  # fmt: skip
    def test_a_backup_that_does_not_verify(self, practice: Practice, saved: Path, statement: str) -> None:
        tamper(saved, statement)
        before = practice.path.read_bytes()
        with pytest.raises(VaultError):
            practice.restore(saved)
        assert practice.path.read_bytes() == before
        assert not list(practice.path.parent.glob("*-restoring*"))

    def test_of_another_vault(self, practice: Practice, saved: Path) -> None:
        other = Practice(practice.path.with_name("other.db"), practice.uri)
        other.create().close()
        before = practice.path.read_bytes()
        with pytest.raises(VaultForeign, match="another vault"):
            practice.restore(other.path)
        assert practice.path.read_bytes() == before

    def test_with_a_token_that_was_never_registered(self, practice: Practice, saved: Path, other_uri: str) -> None:
        with pytest.raises(UsageError, match="has no token"):
            Vault.restore(practice.path, saved, pin=pin, agree=agree, token=other_uri, clock=practice.clock)

    def test_from_before_a_re_key(self, practice: Practice, saved: Path) -> None:
        """The token's root KEK is another by then: nothing is replaced."""
        before = practice.path.read_bytes()
        with WatchedToken.open(practice.uri) as token:
            (kek,) = [n for n in token.names() if n.startswith(f"medcrypt kek {vault_id(practice)}")]
            token.destroy(kek)
            token.make_kek(kek, "aes-kw")
        with pytest.raises(VaultError, match="before a re-key"):
            practice.restore(saved)
        assert practice.path.read_bytes() == before

    def test_nothing(self, practice: Practice) -> None:
        with pytest.raises(VaultMissing):
            practice.restore(practice.path.with_name("none.db"))

    def test_itself(self, practice: Practice) -> None:
        with practice.restore(practice.path) as vault:
            vault.log.verify()


class TestInterruptedRestore:
    """The kill between the new file and the token's new anchor: the next open finishes it."""

    def interrupt(self, practice: Practice, source: Path) -> None:
        with WatchedToken.open(practice.uri, unplugged_at="put_object") as token, pytest.raises(TokenRemoved):
            restore.restore(
                Location.parse(practice.path),
                Location.parse(source),
                token,
                "doctor",
                agree,
                actor="mara",
                clock=practice.clock,
            )

    def test_the_next_open_writes_the_anchor(self, practice: Practice, saved: Path) -> None:
        abandoned = practice.copy("abandoned.db")
        self.interrupt(practice, saved)
        with practice.open() as vault:
            assert vault.status().anchor == unlocked(vault).log.sequence
            vault.log.verify()
        with pytest.raises(VaultRolledBack):
            practice.open(abandoned)

    @pytest.mark.parametrize("more", [0, 1, 2, 5])
    def test_of_a_file_that_departs_and_is_longer_or_shorter_than_the_anchor(
        self, practice: Practice, saved: Path, more: int
    ) -> None:
        """Two histories, as after a mistaken restore: however their lengths compare, the named one is abandoned."""
        other = practice.copy("other.db")
        ends = len(rows(other, "entries"))
        with practice.restore(saved) as vault:
            while unlocked(vault).log.sequence < ends + more - 2:
                unlocked(vault).record("audit.show")
            vault.log.anchor()
        self.interrupt(practice, other)
        with practice.open() as vault:
            assert vault.status().anchor == unlocked(vault).log.sequence
            vault.log.verify()
        with practice.open() as vault:
            vault.encrypt("EXP-1", "sigue")

    def test_the_old_file_is_accepted_until_then(self, practice: Practice, saved: Path) -> None:
        old = practice.copy("old.db")
        self.interrupt(practice, saved)
        shutil.copy(old, practice.path)
        with practice.open() as vault:
            vault.log.verify()

    @pytest.mark.parametrize("call", ["read_objects", "unwrap_keyset"])
    def test_unplugged_before_the_new_file_is_in_place(self, practice: Practice, saved: Path, call: str) -> None:
        before = practice.path.read_bytes()
        with WatchedToken.open(practice.uri, unplugged_at=call) as token, pytest.raises(TokenRemoved):
            restore.restore(
                Location.parse(practice.path),
                Location.parse(saved),
                token,
                "doctor",
                agree,
                actor="mara",
                clock=practice.clock,
            )
        assert practice.path.read_bytes() == before
        assert not list(practice.path.parent.glob("*-restoring*"))
        with practice.open() as vault:
            vault.log.verify()


@pytest.fixture(scope="module")
def other_uri(softhsm: SoftHsm) -> str:
    return softhsm.make_token()


def vault_id(practice: Practice) -> str:
    return practice.status().vault_id
