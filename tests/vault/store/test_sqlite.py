"""A vault in a SQLite file keeps the contract; and what only a file can show.

What lies in a file that somebody made or changed: tests/vault/store/test_file.py, and the attacks.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.errors import VaultBusy, VaultDamaged
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
from tests.support.store import select, tamper
from tests.vault.store.rows_contract import content
from tests.vault.store.store_contract import StoreContract


class TestSqlite(StoreContract): ...


def test_a_trigger_that_comes_while_it_is_open_writes_nothing_along(file: Path, location: Location) -> None:
    with closing(open_store(location)) as store:
        before = content(store)
        tamper(file, "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM trust; END")
        with pytest.raises(VaultDamaged, match="foreign schema"), store.transaction():
            raise AssertionError("it was let in")
        assert select(file, "SELECT * FROM trust") == before[0]


def test_a_file_that_took_its_place_is_not_written_to(file: Path, location: Location, tmp_path: Path) -> None:
    with closing(open_store(location)) as store:
        store.copy_to(Location.parse(tmp_path / "copy"))
        (tmp_path / "copy").replace(file)
        with pytest.raises(VaultBusy, match="restored meanwhile"), store.transaction():
            raise AssertionError("it was let in")


def test_opening_to_read_leaves_the_file_as_it_is(file: Path, location: Location) -> None:
    before = file.read_bytes()
    with closing(open_store(location)) as store:
        content(store)
    assert file.read_bytes() == before


def test_nothing_lies_beside_it_that_was_not_asked_for(file: Path, location: Location) -> None:
    assert [path.name for path in file.parent.iterdir()] == ["vault.db"]
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
