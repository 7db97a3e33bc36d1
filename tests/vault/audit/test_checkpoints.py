"""Checkpoints read back: the strict parser, and logs that continue a checkpoint or do not.

The notes are made from the spec by tests/support/vault_builder.py. That the independent verifier says the same is in
tests/two_readers/test_logs.py.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from medcrypt_hsm.errors import AuditBroken, Malformed, MedcryptError, NotAuthentic, VaultForeign
from medcrypt_hsm.vault.audit.checkpoints import LARGEST, Checkpoint
from medcrypt_hsm.vault.inspection import verify_file
from tests.support.checkout import ROOT
from tests.support.practice import Practice, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import tamper
from tests.support.vault_builder import SoftToken, VaultBuilder

DOCTOR = SoftToken("doctor")
BUILT = VaultBuilder()
BUILT.set_trust("month", "2026-11", {"opened": BUILT.now(), "shredded": ""})
BUILT.introduce(DOCTOR, DOCTOR)
NOTE = BUILT.checkpoint(DOCTOR)
LINES = NOTE.decode().split("\n")


class TestParser:
    def test_what_it_reads_it_writes(self) -> None:
        note = Checkpoint.parse(NOTE)
        assert (note.vault_id, note.sequence) == (BUILT.vault, 1)
        assert (note.hash, note.trust, note.time) == (BUILT.rows[0].hash, BUILT.rows[0].trust, BUILT.rows[0].time)
        assert note.encode().encode() == NOTE
        note.verify([SoftToken("other").spki, DOCTOR.spki])

    def test_a_signature_of_nobody_here(self) -> None:
        with pytest.raises(NotAuthentic, match="not signed by a token of this log"):
            Checkpoint.parse(NOTE).verify([SoftToken("other").spki])

    def test_the_key_id_alone_proves_nothing(self) -> None:
        """4 bytes of a fingerprint can be met by trying: the key id only says which key to try."""
        note = Checkpoint.parse(NOTE)
        twin = replace(note, key_id=(other := SoftToken("other")).id[:4])
        with pytest.raises(NotAuthentic):
            twin.verify([other.spki])
        with pytest.raises(NotAuthentic):
            twin.verify([DOCTOR.spki])

    @pytest.mark.parametrize(
        "change",
        [
            {"sequence": "01"},
            {"sequence": 0},
            {"sequence": -1},
            {"sequence": "+1"},
            {"sequence": 1 << 63},
            {"sequence": "9" * 5000},
            {"sequence": "١"},
            {"hash": ""},
            {"hash": base64.b64encode(bytes(31)).decode()},
            {"hash": base64.b64encode(bytes(33)).decode()},
            {"hash": base64.b64encode(bytes(32)).decode().rstrip("=")},
            {"hash": "A" * 42 + "B="},
            {"hash": base64.urlsafe_b64encode(b"\xff" * 32).decode()},
            {"trust": "A" * 42 + "B="},
            {"trust": " " + base64.b64encode(bytes(32)).decode()},
            {"time": "2026-11-31T09:00:00Z"},
            {"time": "2026-11-01T09:00:00+00:00"},
            {"time": "2026-11-01T09:00:00Z "},
            {"time": "2026-11-01T09:00:00Z\nmore"},
            {"origin": "example.com/log"},
            {"origin": "medcrypt/" + "AB" * 16},
            {"origin": f"medcrypt/{BUILT.vault.hex()}00"},
        ],
    )
    def test_signed_all_the_same_but_not_of_the_form(self, change: dict[str, object]) -> None:
        with pytest.raises(Malformed):
            Checkpoint.parse(BUILT.checkpoint(DOCTOR, None, **change))

    @pytest.mark.parametrize(
        "note",
        [
            b"",
            b"\n",
            NOTE[:-1],
            NOTE + b"\n",
            NOTE + NOTE,
            NOTE + LINES[6].encode() + b"\n",
            b"\xef\xbb\xbf" + NOTE,
            b"\xff" + NOTE,
            NOTE.replace(b"\n", b"\r\n"),
            NOTE.replace("—".encode(), b"-"),
            NOTE.replace(b"\n\n", b"\n"),
            NOTE.replace(b"\n\n", b"\n\n\n"),
            NOTE.decode().encode("utf-16"),
            NOTE + bytes(LARGEST),
        ],
    )
    def test_other_bytes(self, note: bytes) -> None:
        with pytest.raises(Malformed):
            Checkpoint.parse(note)

    @pytest.mark.parametrize(
        "der",
        [
            b"",
            b"\x30\x00",
            encode_dss_signature(0, 1),
            encode_dss_signature(1, 0),
            encode_dss_signature(1 << 256, 1),
            encode_dss_signature(1, 1) + b"\0",
            b"\x30\x81\x06\x02\x01\x01\x02\x01\x01",
            b"\x30\x07\x02\x02\x00\x01\x02\x01\x01",
            b"\x30\x06\x02\x01\xff\x02\x01\x01",
            b"\x30\x06\x02\x01\x01",
        ],
    )
    def test_a_signature_in_another_form(self, der: bytes) -> None:
        signed = base64.b64encode(DOCTOR.id[:4] + der).decode()
        with pytest.raises(Malformed):
            Checkpoint.parse("\n".join([*LINES[:6], " ".join([*LINES[6].split(" ")[:2], signed]), ""]).encode())

    @settings(max_examples=500)
    @given(st.data())
    def test_mutations_are_refused_or_read_as_they_are(self, data: st.DataObject) -> None:
        note = bytearray(NOTE)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, 400)) % (len(note) + 1)  # a signature in DER has one of several lengths
            length = data.draw(st.integers(0, 4))
            note[at : at + length] = data.draw(st.one_of(st.binary(max_size=4), st.sampled_from([b"\n", b"=", b"A"])))
        try:
            parsed = Checkpoint.parse(bytes(note))
        except Malformed:
            return
        assert parsed.encode().encode() == bytes(note)
        try:
            parsed.verify([DOCTOR.spki])
        except NotAuthentic:
            return
        assert parsed.text == Checkpoint.parse(NOTE).text

    @given(st.binary(max_size=600))
    def test_anything(self, note: bytes) -> None:
        with pytest.raises(Malformed):
            Checkpoint.parse(note)


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
        """After the anchor the token has forgotten nothing; before it, only a checkpoint tells."""
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


_PEAK = """
import re, sys
from pathlib import Path
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.inspection import verify_file
verify_file(sys.argv[1], [public_key_der(Path(sys.argv[2]).read_text())])
print(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """200,000 records held at once would be 80 MiB. A long log of entries is measured by scripts/bench."""
    key = tmp_path / "doctor.pem"
    key.write_bytes(DOCTOR.pem())

    def peak(records: int) -> int:
        BUILT.records = [("message", n.to_bytes(8, "big"), "2026-11", 1) for n in range(records)]
        path = BUILT.write(tmp_path / "vault.db")
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(path), str(key)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    try:
        assert peak(200_000) - peak(2_000) < 4 << 10
    finally:
        BUILT.records = []
