"""New files: made by nobody else, whole or not there. What a kill leaves of them: tests/kills/test_files.py."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

import medcrypt_hsm
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.vault.store import atomic


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_new_file_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    before = os.umask(0)
    try:
        with atomic.new_file(tmp_path / "new", mode) as file:
            file.write(b"x")
            atomic.write_through(file)
    finally:
        os.umask(before)
    assert (tmp_path / "new").read_bytes() == b"x"
    assert (tmp_path / "new").stat().st_mode & 0o777 == mode


def test_a_new_file_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    for name in ("file", "link", "dangling"):
        with pytest.raises(FileExistsError):
            atomic.new_file(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"precious"
    assert not (tmp_path / "none").exists()


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def write() -> None:
        with atomic.written_whole(target) as partial:
            partial.write_bytes(b"ours")
            target.write_bytes(b"somebody's")

    with pytest.raises(UsageError, match="exists already"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_bytes() == b"somebody's"


def test_what_failed_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with atomic.written_whole(tmp_path / "target") as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_whole_file_at_once(tmp_path: Path) -> None:
    target = tmp_path / "target"
    atomic.partial_of(target).write_bytes(b"of a run that was killed")
    atomic.write_new(target, b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("target", b"whole")]
    with pytest.raises(UsageError, match="exists already"):
        atomic.write_new(target, b"another")
    for wrong, words in ((tmp_path / "none" / "target", "no directory"), (Path(), "is a directory")):
        with pytest.raises(UsageError, match=words):
            atomic.check_new(wrong)


def test_files_are_made_in_one_place() -> None:
    """O_EXCL anywhere else would be another writer, with its own idea of modes and links."""
    package = Path(medcrypt_hsm.__file__).parent
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(
            isinstance(node, ast.Attribute) and node.attr == "O_EXCL" for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    assert found == ["vault/store/atomic.py"]
