"""A vault in a SQLite file, with one row in each table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import create_store
from tests.vault.store.rows_contract import FIRST, ONE, entry, record, sealed, seen


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location.parse(tmp_path / "practice" / "vault.db")


@pytest.fixture
def file(location: Location) -> Path:
    """With one row in each table."""
    with closing(create_store(location, FIRST)) as store, store.transaction():
        store.append(entry(1))
        store.put_records([record("chain", ONE, "2026-11")])
        store.put_sealed(sealed("patient", ONE, lookup=b"L"))
        store.put_seen(ONE, "2026-11", seen(1))
    return Path(location.text)
