"""The audit log through the library, and the files in which an officer keeps its keys and checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm import EntryFilter, read_checkpoint, read_public_keys, verify_file
from medcrypt_hsm.errors import Malformed, UsageError
from tests.support.practice import Practice
from tests.support.vault_builder import SoftToken

ONE, TWO = SoftToken("doctor"), SoftToken("spare")


def test_what_an_officer_keeps_verifies_the_log_elsewhere(practice: Practice, tmp_path: Path) -> None:
    pem, note = tmp_path / "doctor.pem", tmp_path / "checkpoint"
    with practice.open() as vault:
        pem.write_text(vault.log.public_keys()["doctor"])
        note.write_text(vault.log.checkpoint())
        assert vault.log.anchor() == vault.status().entries == vault.status().anchor
    since = read_checkpoint(note)
    assert verify_file(practice.path, read_public_keys(pem), [since]).checkpoints == (since.sequence,)


def test_reading_the_log_is_recorded_in_it(practice: Practice) -> None:
    with practice.open() as vault:
        where = EntryFilter(action="vault.create")
        assert [(sequence, entry.action) for sequence, entry in vault.log.entries(where)] == [(2, "vault.create")]
        sequence, read = vault.log.entries()[2]
        assert (sequence, read.action, read.detail) == (3, "audit.show", where.told())


def test_public_keys_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(b"of the practice\n" + ONE.pem() + TWO.pem())
    assert read_public_keys(path) == [ONE.spki, TWO.spki]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no public key in PEM"),
        (ONE.spki, "holds no public key in PEM"),
        (ONE.pem() + ONE.pem().replace(b"MFkw", b"MFkx"), "holds something that is no public key in PEM"),
    ],
    ids=["absent", "empty", "der", "altered"],
)
def test_no_public_keys_in_a_file(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "keys.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        read_public_keys(path)
    assert caught.value.hint == "save it with 'medcrypt audit public-key'"


def test_a_file_in_which_a_key_could_be_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.pem"
    path.write_bytes(ONE.pem().ljust(1 << 20, b"\n") + TWO.pem())
    with pytest.raises(UsageError, match="more than 1,048,576 bytes"):
        read_public_keys(path)


def test_no_checkpoint_in_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_checkpoint(tmp_path / "none")
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    with pytest.raises(Malformed):
        read_checkpoint(tmp_path / "large")
