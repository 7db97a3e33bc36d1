"""Files of an open vault's patients: there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.api.files import Files
from medcrypt_hsm.errors import Malformed, NotAuthentic, UsageError
from tests.support.practice import Practice

CONTENT = b"%PDF-1.7\n" + bytes(70_000)


def test_there_and_back(practice: Practice, tmp_path: Path) -> None:
    source, sealed, to = tmp_path / "análisis.pdf", tmp_path / "sealed", tmp_path / "to"
    source.write_bytes(CONTENT)
    to.mkdir()
    told: list[tuple[int, int]] = []
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        done = vault.files.encrypt("EXP-1", source, sealed, lambda *much: told.append(much))
        assert (done.path, done.patient, done.month, done.size) == (sealed, "EXP-1", "2026-11", len(CONTENT))
        assert told[-1] == (len(CONTENT), len(CONTENT))
        vault.files.check_decrypt(sealed, to)
        back = vault.files.decrypt(sealed, to)
        assert (back.name, back.media_type, back.sender) == ("análisis.pdf", "application/pdf", "d")
        assert back.path.read_bytes() == CONTENT
        assert CONTENT[:9] not in sealed.read_bytes()

        altered = tmp_path / "altered"
        altered.write_bytes(sealed.read_bytes()[:-1])
        with pytest.raises(NotAuthentic):
            vault.files.decrypt(altered, to)
        assert list(to.iterdir()) == [back.path]


def test_what_is_known_without_a_vault(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"no file of ours")
    with pytest.raises(UsageError, match="exists already"):
        Files.check_encrypt(there, there)
    with pytest.raises(UsageError):
        Files.check_encrypt(tmp_path / "none", tmp_path / "new")
    with pytest.raises(Malformed):
        Files.check_decrypt(there, tmp_path)
    assert list(tmp_path.iterdir()) == [there]
