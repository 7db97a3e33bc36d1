"""A vault's name: as it was given, and equal where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medcrypt_hsm.vault.store.rows import Location


@pytest.mark.parametrize(("given", "text"), [
    ("vault.db", "vault.db"), ("./vault.db", "vault.db"), ("a//b/vault.db", "a/b/vault.db"),
    ("../vault.db", "../vault.db"), ("/srv/práctica/vault.db", "/srv/práctica/vault.db"), ("dir/", "dir"),
    (Path("a", "b"), "a/b"), ("vault 1.db", "vault 1.db"), (os.fsdecode(b"v\xff.db"), os.fsdecode(b"v\xff.db")),
])  # fmt: skip
def test_messages_call_it_as_it_was_given(given: str | Path, text: str) -> None:
    location = Location.parse(given)
    assert f"the vault {location} is busy" == f"the vault {text} is busy" == f"the vault {Path(given)} is busy"
    assert Location.parse(location) is location


def test_names_are_equal_where_their_texts_are() -> None:
    assert Location.parse("./a") == Location.parse(Path("a"))
    assert len({Location.parse("a"), Location.parse("a/"), Location.parse("b")}) == 2


def test_its_last_part_and_its_absolute_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    location = Location.parse("practice/vault.db")
    assert location.name == "vault.db"
    assert location.absolute() == Location.parse(tmp_path / "practice" / "vault.db")
    assert location.absolute().absolute() == location.absolute()
