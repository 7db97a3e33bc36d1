"""How a vault's SQLite file comes to be where another one is, or something that is no vault."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.errors import UsageError, VaultError
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_draft, open_store
from tests.vault.store.rows_contract import content


class TestPlaces:
    """That no draft is made for."""

    @pytest.fixture
    def backup(self, file: Path) -> Location:
        return Location.parse(file.rename(file.with_name("backup.db")))

    def test_a_link(self, backup: Location, location: Location) -> None:
        Path(location.text).symlink_to("elsewhere")
        with closing(open_store(backup)) as source, pytest.raises(VaultError, match="symbolic link"):
            open_draft(location, source)

    def test_a_directory(self, backup: Location, location: Location) -> None:
        Path(location.text).mkdir()
        with closing(open_store(backup)) as source, pytest.raises(UsageError, match="is a directory"):
            open_draft(location, source)

    @pytest.mark.parametrize("content_there", [b"", b"not a database", bytes(8192)])
    def test_what_cannot_be_read_is_replaced(self, backup: Location, location: Location, content_there: bytes) -> None:
        Path(location.text).write_bytes(content_there)
        Path(location.text + "-wal").write_bytes(b"a log of the old file")
        with closing(open_store(backup)) as source:
            open_draft(location, source).take_place(lambda newest: None)
            with closing(open_store(location)) as restored:
                assert content(restored) == content(source)
