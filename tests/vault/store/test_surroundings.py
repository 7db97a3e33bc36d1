"""What is kept beside a vault: names, a lock, notes. What a kill does to a note: tests/vault/test_notes.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medcrypt_hsm.errors import VaultBusy, VaultError
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.surroundings import Surroundings, surroundings_of

HASH = bytes(range(32))


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    path = tmp_path / "practice" / "vault[1].db"  # with what a pattern would take for one
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    return path


@pytest.fixture
def beside(vault: Path) -> Surroundings:
    return surroundings_of(Location.parse(vault))


def names(vault: Path) -> list[str]:
    return sorted(path.name.removeprefix(vault.name) for path in vault.parent.iterdir())


def test_everything_has_a_name_that_begins_with_the_vaults(beside: Surroundings, vault: Path) -> None:
    there = [beside.draft("creating"), beside.backup(3), beside.certificate(12)]
    wanted = ["-creating", "-backup-3", "-certificate-12"]
    assert there == [vault.with_name(vault.name + name) for name in wanted]
    assert names(vault) == [""], "to name it is not to make it"


@pytest.mark.parametrize(("name", "generation"), [
    ("vault[1].db-backup-3", 3), ("vault[1].db-backup-12", 12), ("vault[1].db-backup-", None), ("backup-3", None),
    ("vault[1].db-backup-3.partial", None), ("vault1.db-backup-3", None), ("vault[1].db-certificate-3", None),
    ("my-vault[1].db-backup-3", None),
])  # fmt: skip
def test_a_backup_is_known_by_its_name(beside: Surroundings, name: str, generation: int | None) -> None:
    assert beside.generation_of(name) == generation


class TestTheDirectory:
    def test_it_is_made_for_this_user_alone(self, tmp_path: Path) -> None:
        beside = surroundings_of(Location.parse(tmp_path / "a" / "vault.db"))
        assert not beside.vault_exists
        beside.make()
        beside.make()
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
        assert list((tmp_path / "a").iterdir()) == []

    def test_it_is_known_by_every_path(self, beside: Surroundings, vault: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(vault.parent)
        assert beside.lie_in(vault.parent)
        assert beside.lie_in(tmp_path / "link")
        assert not beside.lie_in(vault.parent.parent)
        assert not beside.lie_in(tmp_path / "not there")

    def test_one_command_at_a_time(self, beside: Surroundings, vault: Path) -> None:
        neighbour = surroundings_of(Location.parse(vault.with_name("another.db")))
        with beside.alone():
            with pytest.raises(VaultBusy, match="another command") as caught, neighbour.alone():
                raise AssertionError("two at work")
            assert str(vault.parent) in caught.value.message
            assert "wait for it" in caught.value.hint
            assert names(vault) == [""]
        with neighbour.alone():
            pass

    @pytest.mark.parametrize(("file", "directory"), [
        (0o600, 0o700), (0o640, 0o700), (0o602, 0o700), (0o600, 0o710), (0o600, 0o705), (0o666, 0o777),
    ])  # fmt: skip
    def test_what_is_open_to_others(self, beside: Surroundings, vault: Path, file: int, directory: int) -> None:
        vault.chmod(file)
        vault.parent.chmod(directory)
        assert beside.file_open_to_others() == (None if file == 0o600 else vault)
        assert beside.directory_open_to_others() == (None if directory == 0o700 else vault.parent)


class TestNotes:
    def lines(self, beside: Surroundings) -> list[tuple[bytes | None, list[bytes]]]:
        with beside.notes.files() as files:
            return [(file.entry, list(file.lines(100))) for file in files]

    def test_they_are_kept_in_order(self, beside: Surroundings, vault: Path) -> None:
        assert not beside.notes.pending()
        for line in (b"one", b"two"):
            beside.notes.add(line)
        assert beside.notes.pending()
        assert names(vault) == ["", "-notes"]
        assert beside.draft("notes").stat().st_mode & 0o777 == 0o600
        assert self.lines(beside) == [(None, [b"one\n", b"two\n"])]

    def test_a_file_is_named_by_its_entry_and_removed(self, beside: Surroundings, vault: Path) -> None:
        beside.notes.add(b"one")
        with beside.notes.files() as files:
            (file,) = files
            file.name_by(HASH)
            assert (file.entry, list(file.lines(100))) == (HASH, [b"one\n"])
            assert names(vault) == ["", f"-notes-{HASH.hex()}"]
        assert beside.notes.pending()
        beside.notes.add(b"two")  # a new file: nobody adds to one that has its entry
        assert self.lines(beside) == [(HASH, [b"one\n"]), (None, [b"two\n"])]
        with beside.notes.files() as files:
            for file in files:
                file.remove()
        assert names(vault) == [""]
        assert not beside.notes.pending()

    def test_others_files_are_none_of_ours(self, beside: Surroundings, vault: Path) -> None:
        for name in (HASH.hex()[:-1], HASH.hex() + "0", HASH.hex().upper(), "x" * 64):
            vault.with_name(f"{vault.name}-notes-{name}").touch()
        vault.with_name(f"{vault.name}-notes-{bytes(32).hex()}").symlink_to(vault)
        vault.with_name(f"vault1.db-notes-{HASH.hex()}").touch()
        vault.with_name(f"{vault.name}-notes-{(b'x' * 32).hex()}").mkdir()
        assert not beside.notes.pending()

    def test_a_long_line_is_cut(self, beside: Surroundings) -> None:
        beside.notes.add(b"x" * 1000)
        beside.notes.add(b"y")
        assert self.lines(beside) == [(None, [b"x" * 100, b"y\n"])]

    @pytest.mark.parametrize("make", [
        lambda path: path.mkdir(), lambda path: path.symlink_to("elsewhere"), os.mkfifo,
    ], ids=["directory", "link", "pipe"])  # fmt: skip
    def test_what_is_no_file_is_refused(self, beside: Surroundings, vault: Path, make: object) -> None:
        make(vault.with_name(vault.name + "-notes"))  # type: ignore[operator]
        with pytest.raises(VaultError, match=r"cannot be opened|is not a file"):
            beside.notes.add(b"x")
        assert not (vault.parent / "elsewhere").exists()
