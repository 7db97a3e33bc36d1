"""What a vault asks of the file system, each as an operator would come upon it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medcrypt_hsm.errors import VaultError
from medcrypt_hsm.vault.store.surroundings import (
    clear_the_way,
    files_of,
    nobody_writes,
    refuse_network_file_system,
    refuse_planted,
    remove_files,
)

MAGIC = bytes.fromhex("d9d505f920a163d7")


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    path = tmp_path / "vault.db"
    path.write_bytes(b"a database")
    return path


def test_a_database_goes_after_what_lies_beside_it(vault: Path) -> None:
    """A log that outlived its database would be replayed into the next one of that name."""
    beside = [vault.with_name(f"vault.db{suffix}") for suffix in ("-wal", "-shm", "-journal")]
    for file in beside:
        file.write_bytes(b"")
    assert files_of(vault) == (*beside, vault)
    remove_files(vault)
    remove_files(vault)  # what is not there is no matter
    assert list(vault.parent.iterdir()) == []


class TestPlanted:
    def test_what_sqlite_leaves_is_no_matter(self, vault: Path) -> None:
        refuse_planted(vault)
        for suffix in ("-wal", "-shm", "-journal"):
            vault.with_name(f"vault.db{suffix}").write_bytes(os.urandom(100))
        vault.with_name("vault.db-wal").write_bytes(MAGIC)  # it is only of a journal that it means something
        refuse_planted(vault)

    def test_a_journal_that_names_another_file(self, vault: Path) -> None:
        vault.with_name("vault.db-journal").write_bytes(b"/etc/passwd" + MAGIC)
        with pytest.raises(VaultError, match=r"vault\.db-journal names another file"):
            refuse_planted(vault)

    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
    def test_a_link_or_a_pipe(self, vault: Path, suffix: str) -> None:
        beside = vault.with_name(f"vault.db{suffix}")
        for plant in (lambda: beside.symlink_to(vault), lambda: os.mkfifo(beside), beside.mkdir):
            plant()
            with pytest.raises(VaultError, match=rf"vault\.db{suffix} is not a file of its own"):
                refuse_planted(vault)
            beside.rmdir() if beside.is_dir() and not beside.is_symlink() else beside.unlink()


class TestInTheWay:
    """Where the program is about to put a file that it names by itself."""

    def test_its_own_file_is_removed(self, vault: Path) -> None:
        clear_the_way(vault, ours=True)
        clear_the_way(vault, ours=True)
        assert list(vault.parent.iterdir()) == []

    def test_anybody_elses_is_kept_under_another_name(self, vault: Path) -> None:
        clear_the_way(vault, ours=False)
        vault.write_bytes(b"another")
        clear_the_way(vault, ours=False)
        found = {path.name: path.read_bytes() for path in vault.parent.iterdir()}
        assert found == {"vault.db-found-1": b"a database", "vault.db-found-2": b"another"}

    def test_a_link_is_not_followed_though_it_be_called_ours(self, vault: Path) -> None:
        link = vault.with_name("link")
        link.symlink_to(vault)
        clear_the_way(link, ours=True)
        assert vault.read_bytes() == b"a database"
        assert vault.with_name("link-found-1").is_symlink()


def test_a_local_disk_is_no_network(vault: Path) -> None:
    refuse_network_file_system(vault)


def test_where_this_user_writes_somebody_does(vault: Path) -> None:
    assert not nobody_writes(vault)
    vault.with_name("vault.db-wal").write_bytes(b"")
    assert not nobody_writes(vault)
