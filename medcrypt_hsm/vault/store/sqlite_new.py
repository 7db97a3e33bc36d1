"""How a vault's SQLite file comes to be: empty but for its first row, or as a copy that takes another one's place.

In: a place, a first row or a copy. Out: the vault there, whole, or nothing. Not here: what is verified of a copy, and
who agreed to the loss (lifecycle/restore.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from medcrypt_hsm.errors import UsageError, VaultDamaged, VaultError, VaultMissing
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.atomic import new_file
from medcrypt_hsm.vault.store.rows import BUSY_SECONDS, EntryRow, Location, TrustRow
from medcrypt_hsm.vault.store.sqlite import SqliteStore, connect
from medcrypt_hsm.vault.store.sqlite_rows import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, TREE, sqlite_errors
from medcrypt_hsm.vault.store.surroundings import (
    files_of,
    refuse_network_file_system,
    remove_files,
    surroundings_of,
    sync_directory,
)


def create(location: Location, first_row: TrustRow) -> SqliteStore:
    """A file with ``first_row`` as its only row. Raises VaultError if there is one already."""
    path, surroundings = Path(location.text), surroundings_of(location)
    surroundings.make()
    refuse_network_file_system(path.parent)
    # Built under another name, so that whatever bears the vault's name is a whole vault file.
    draft = surroundings.draft("creating")
    remove_files(draft)
    new_file(draft).close()
    with sqlite_errors(location):
        db = connect(draft, "rw", BUSY_SECONDS)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA + TREE:
            db.execute(statement)
        db.execute("INSERT INTO trust VALUES (?, ?, ?)", first_row)
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
        db.close()
    try:
        os.link(draft, path)  # unlike a rename, refuses to replace a vault that appeared meanwhile
    except FileExistsError as exc:
        raise VaultError(t("there is a vault at {path} already", path=path), "name another file with --vault") from exc
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)
    return SqliteStore.open(location)


class SqliteDraft(SqliteStore):
    """A file beside the one whose name it is to take."""

    _place: Location

    @classmethod
    def make(cls, place: Location, copy_to: Callable[[Location], None], busy_seconds: float) -> SqliteDraft:
        """``copy_to``: of the store that it is to be a copy of."""
        path, surroundings = Path(place.text), surroundings_of(place)
        if path.is_symlink():
            raise VaultError(t("{path} is a symbolic link", path=path), "name the vault file itself")
        if path.is_dir():
            raise UsageError(t("{path} is a directory", path=path), "name the vault file with --vault")
        surroundings.make()
        draft = surroundings.draft("restoring")
        remove_files(draft)
        copy_to(Location.parse(draft))
        made = cls.open(Location.parse(draft), busy_seconds=busy_seconds)
        made._place = place
        return made

    def take_place(self, check: Callable[[EntryRow | None], None]) -> None:
        self._fold()
        self.close()
        path = Path(self._place.text)
        try:
            old = SqliteStore.open(self._place, busy_seconds=self._busy_seconds)
        except (VaultMissing, VaultDamaged):
            for leftover in files_of(path)[:-1]:  # of a file that cannot be read; it would be replayed into the new one
                leftover.unlink(missing_ok=True)
            self._path.replace(path)
            sync_directory(path.parent)
            return
        with contextlib.closing(old):
            old._give_way(self._path, check)

    def discard(self) -> None:
        self.close()
        remove_files(self._path)
