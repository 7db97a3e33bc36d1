"""The whole log, verified with the token: also that it continues what was kept elsewhere."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import AuditBroken, MedcryptError, NotAuthentic, VaultForeign
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.inspection import verify_file
from tests.support.practice import Practice, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import tamper


class TestWithTheToken:
    """A real log on a real token; what sealed entries say counts too."""

    def note(self, practice: Practice) -> Checkpoint:
        with practice.open() as vault:
            return Checkpoint.parse(vault.log.checkpoint().encode())

    def public_keys(self, practice: Practice) -> list[bytes]:
        with practice.open() as vault:
            return [token.audit_key for token in vault.status().tokens]

    def refused(self, practice: Practice, note: Checkpoint, kind: type[MedcryptError]) -> MedcryptError:
        """With the token and with public keys, in the same words."""
        keys = self.public_keys(practice)
        with pytest.raises(kind) as by_keys:
            verify_file(practice.path, keys, [note])
        with practice.open() as vault, pytest.raises(kind) as by_token:
            vault.log.verify([note])
        assert by_keys.value.message == by_token.value.message
        assert by_keys.value.hint
        return by_keys.value

    def test_a_log_that_goes_on(self, practice: Practice) -> None:
        notes = []
        for number in range(3):
            notes.append(self.note(practice))
            with practice.open() as vault:
                practice.pair(vault, f"EXP-{number}")
        ends = tuple(note.sequence for note in notes)
        with practice.open() as vault:
            assert vault.log.verify(notes).checkpoints == ends
            assert vault.log.verify().checkpoints == ()
        assert verify_file(practice.path, self.public_keys(practice), notes).checkpoints == ends

    def test_a_log_that_ends_there(self, practice: Practice) -> None:
        note = self.note(practice)
        with practice.open() as vault:
            assert vault.log.verify([note]).sequence == note.sequence

    def test_of_another_vault(self, practice: Practice) -> None:
        other = Practice(practice.path.with_name("other.db"), practice.uri, practice.clock)
        other.create().close()
        error = self.refused(practice, self.note(other), VaultForeign)
        assert "of another vault" in error.message
        assert error.exit_code == 7

    def test_ahead_of_a_log_that_was_cut(self, practice: Practice) -> None:
        """Behind the anchor the token has forgotten nothing; before it, only a checkpoint tells."""
        with practice.open() as vault:
            vault.patients.list()
            vault.patients.list()
        note = self.note(practice)
        tamper(practice.path, f"DELETE FROM entries WHERE sequence = {note.sequence}")
        error = self.refused(practice, note, AuditBroken)
        assert f"of audit entry {note.sequence}, and this log ends at entry {note.sequence - 1}" in error.message
        assert "restore" not in error.message
        assert error.exit_code == 7

    def test_a_log_that_was_rewritten(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.patients.list()
        note = self.note(practice)
        tamper(practice.path, f"DELETE FROM entries WHERE sequence = {note.sequence}")
        with practice.open() as vault:
            vault.patients.list()
            vault.patients.list()
        error = self.refused(practice, note, AuditBroken)
        assert f"departs from the checkpoint at or before audit entry {note.sequence}" in error.message
        assert "restore" not in error.message
        assert isinstance(error, AuditBroken)
        assert error.at == note.sequence

    def test_an_altered_note(self, practice: Practice) -> None:
        note = self.note(practice)
        with practice.open() as vault:
            vault.patients.list()
        text = note.encode().replace(note.time, "2020-01-01T00:00:00Z")
        error = self.refused(practice, Checkpoint.parse(text.encode()), NotAuthentic)
        assert "not signed by a token of this log" in error.message
        assert error.exit_code == 5

    def test_a_token_that_lied_of_the_time(self, practice: Practice) -> None:
        """Signed by the very token: only who opens the entry sees it."""
        with practice.open() as vault:
            vault.patients.list()
            note = Checkpoint.parse(vault.log.checkpoint().encode())
            opened = unlocked(vault)
            text = note.text.replace(note.time, "2026-11-22T13:00:00Z").encode()
            signature = opened.token.sign(f"medcrypt audit {note.vault_id.hex()}", text)
        lie = Checkpoint(
            note.vault_id, note.sequence, note.hash, note.trust, "2026-11-22T13:00:00Z", note.key_id, signature
        )
        assert verify_file(practice.path, self.public_keys(practice), [lie]).checkpoints == (note.sequence,)
        with practice.open() as vault, pytest.raises(AuditBroken, match="says 2026-11-22T13:00:00Z of audit entry"):
            vault.log.verify([lie])

    @pytest.mark.parametrize("more", [0, 5])
    def test_given_up_by_a_restore(self, practice: Practice, more: int) -> None:
        """The restore is named, whether the log has come as far again or not; and it is still refused."""
        backup = practice.path.with_name("backup.db")
        with practice.open() as vault:
            vault.backup(backup)
            for _ in range(3):
                vault.patients.list()
        note = self.note(practice)
        practice.clock.forward(minutes=1)
        with practice.restore(backup) as vault:
            for _ in range(more):
                vault.patients.list()
        error = self.refused(practice, note, AuditBroken)
        restored = note.sequence - 2
        assert f"entry {restored} is a restore, which gave up what stood there" in error.message
        later = self.note(practice)
        with practice.open() as vault:
            vault.patients.list()
            assert vault.log.verify([later]).checkpoints == (later.sequence,)

    def test_a_restore_is_no_excuse_for_what_came_after_it(self, practice: Practice) -> None:
        backup = practice.path.with_name("backup.db")
        with practice.open() as vault:
            vault.backup(backup)
        practice.restore(backup).close()
        practice.clock.forward(minutes=1)
        with practice.open() as vault:
            vault.patients.list()
        note = self.note(practice)
        tamper(practice.path, f"DELETE FROM entries WHERE sequence = {note.sequence}")
        assert "restore" not in self.refused(practice, note, AuditBroken).message

    def test_signed_by_a_token_that_this_file_does_not_know(self, practice: Practice, spare: str) -> None:
        """An older file than the one in which the spare was added: the checkpoint is no less evidence."""
        older = practice.copy("older.db")
        practice.add("spare", spare)
        with practice.open(token="spare") as vault:
            vault.patients.list()
            note = Checkpoint.parse(vault.log.checkpoint().encode())
        keys = self.public_keys(practice)[:1]
        older.chmod(0o600)
        with pytest.raises(AuditBroken, match="whose signature is of no token in this log") as raised:
            verify_file(older, keys, [note])
        assert "look for the newer one" in raised.value.hint

    @pytest.fixture
    def spare(self, softhsm: SoftHsm, token_uri: str) -> str:
        return softhsm.make_token()
