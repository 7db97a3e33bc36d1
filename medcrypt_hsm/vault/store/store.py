"""``Store``: what a vault is kept in, as all above sees it; and the functions that open one, wherever it is.

In: a ``Location``, rows. Out: rows, as they were written. What a row means is not known here, and nothing is signed,
sealed or verified. Whoever keeps vaults in another way writes another class of these methods, adds it to the functions
at the end, and joins tests/vault/store/store_contract.py, which holds each of them to what is said here.

Every method may raise VaultDamaged (what lies there cannot be a vault, or a value is not of its column's type),
VaultBusy (others did not let go in time) and Failed (no room, no right to write, a disk that does not answer), and no
error of a library of its own. Order is that of bytes: of text, by its UTF-8. Rows that are put replace those of the
same key, unless the method says otherwise; deleting what is not there does nothing. Writing outside ``transaction`` is
a RuntimeError.

A backup is a vault too, and always a SQLite file: that is the form in which a vault leaves one store for another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from medcrypt_hsm.vault.store.rows import BUSY_SECONDS, EntryRow, Location, LookupRow, RecordRow, SealedRow, TrustRow

if TYPE_CHECKING:
    from medcrypt_hsm.vault.store.surroundings import Surroundings


class Store(Protocol):
    """One vault. Not thread safe."""

    @property
    def location(self) -> Location: ...

    @property
    def surroundings(self) -> Surroundings:
        """What is kept beside it."""

    def transaction(self) -> AbstractContextManager[None]:
        """The one way to write: everything in the block or, if it raises, nothing. On the disk when it has ended.

        One writer at a time, among all processes and computers: the block begins when the others are through, and what
        is read in it is the newest there is, never what was there while it waited. Readers are not disturbed. Raises
        VaultBusy, also where another vault took this one's place since it was opened.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Everything read in the block is of one moment. Not inside a transaction, which is that anyway."""

    def is_in_place(self) -> bool:
        """Is it still what is found at its location? Another vault may have taken its place since it was opened."""

    @property
    def steady(self) -> bool:
        """Inside a transaction or snapshot?"""

    @property
    def writing(self) -> bool:
        """Inside a transaction?"""

    def close(self) -> None:
        """Also twice."""

    # Trust state

    def trust_rows(self) -> list[TrustRow]:
        """In ascending order of (kind, name)."""

    def put_trust(self, kind: str, name: str, value: bytes) -> None: ...

    def delete_trust(self, kind: str, name: str) -> None: ...

    # Entries

    def newest(self) -> EntryRow | None: ...

    def entry(self, sequence: int) -> EntryRow | None: ...

    def entries(self, after: int = 0) -> Generator[EntryRow, None, None]:
        """In order, those after ``after``, one at a time: a log does not fit into memory."""

    def stored_after(self, sequence: int) -> int:
        """Bytes of the entries after this one, as they are stored."""

    def clear_entries(self) -> Iterator[EntryRow]:
        """In order, those that begin with 0x00, which says that they are not sealed."""

    def has_entry_hash(self, hash_: bytes) -> bool: ...

    def append(self, row: EntryRow) -> None:
        """Never over another: raises VaultDamaged where there is an entry of this sequence."""

    # Records

    def record(self, purpose: str, pairing: bytes, month: str) -> RecordRow | None: ...

    def records(self, purpose: str = "", pairing: bytes | None = None) -> list[RecordRow]:
        """In ascending order of (purpose, pairing, month). ``""`` and None: of every purpose, of every pairing."""

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        """Of one key that comes twice, the last counts."""

    def delete_record(self, purpose: str, pairing: bytes, month: str) -> None: ...

    # Sealed rows

    def sealed(self, purpose: str, pairing: bytes) -> SealedRow | None: ...

    def all_sealed(self, purpose: str = "") -> list[SealedRow]:
        """In ascending order of (sequence, purpose, pairing). ``""``: of every purpose."""

    def sealed_of(self, lookup: bytes) -> list[SealedRow]:
        """In the same order."""

    def written(self) -> Iterator[RecordRow | SealedRow]:
        """Every row that names the entry which wrote it, one at a time: records, then sealed, each by its key."""

    def count_pairings(self) -> int:
        """How many sealed rows are of a patient."""

    def put_sealed(self, row: SealedRow) -> None: ...

    def delete_sealed(self, purpose: str, pairing: bytes) -> None: ...

    # Rows by the digits of their keys, and the table of digests over them

    @property
    def has_tree(self) -> bool:
        """False for one of before (schema 1): what is in this part needs it."""

    def add_tree(self) -> None:
        """From now on it has one, which is empty."""

    def record_groups(self, purpose: str = "") -> list[tuple[str, str]]:
        """Purposes and months of which there are records, each once, in order. ``""``: of every purpose."""

    def sealed_purposes(self) -> list[str]:
        """Purposes of which there are sealed rows, each once."""

    def records_between(self, purpose: str, month: str, low: bytes, high: bytes, most: int = -1) -> list[RecordRow]:
        """In ascending order of pairing, from ``low`` to ``high``; ``most`` below zero: all of them."""

    def sealed_between(self, purpose: str, low: bytes, high: bytes, most: int = -1) -> list[SealedRow]:
        """Likewise."""

    def lookups_between(self, low: bytes, high: bytes, most: int = -1) -> list[LookupRow]:
        """Likewise, by (lookup, purpose, pairing); of sealed rows whose lookup is not empty."""

    def nodes(self, name: str, prefixes: Sequence[str]) -> dict[str, bytes]:
        """prefix → digests, of those that are there."""

    def put_nodes(self, name: str, nodes: Iterable[tuple[str, bytes]]) -> None:
        """Each node (prefix, digests)."""

    def delete_nodes(self, name: str, prefix: str) -> None:
        """Those of which the prefix begins with this one."""

    def clear_tree(self) -> None: ...

    # Seen messages

    def seen_among(self, pairing: bytes, month: str, nonces: Sequence[bytes]) -> dict[bytes, bytes]:
        """nonce → digest, of those that are there. A month may have millions of others."""

    def seen_count(self, pairing: bytes, month: str) -> int: ...

    def all_seen(self) -> Iterator[tuple[bytes, str, bytes, bytes]]:
        """Pairing, month, nonce and digest of each, one at a time, in any order."""

    def put_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Each row (nonce, digest): 16 bytes and 16 bytes. Of one nonce that comes twice, the last counts.

        In one statement: a chat brings ten thousand.
        """

    def put_new_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> bool:
        """Those rows, if none of their nonces is there and none comes twice; else none of them, and False.

        The transaction goes on in either case.
        """

    def delete_seen(self, pairing: bytes, month: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Those rows (nonce, digest), but not a row of another text with the same nonce."""

    def forget_month(self, month: str) -> None:
        """Every seen message of this month."""

    def forget_pairing(self, pairing: bytes) -> None:
        """Every seen message of this pairing."""

    # The store as a whole

    def write_nothing(self) -> None:
        """A write that changes nothing: its commit proves that the disk takes writes.

        It also overwrites a commit that failed half way, so that this one cannot come back.
        """

    def check_integrity(self) -> None:
        """Whether it is whole, as far as whoever keeps it can tell. Raises VaultDamaged."""

    def copy_to(self, target: Location) -> None:
        """A consistent copy in one SQLite file, on the disk when this returns, also while another process writes.

        Raises FileExistsError if there is a file of that name.
        """

    def compact(self) -> None:
        """Nothing of a deleted row stays where the store can reach. Raises VaultBusy while another process reads."""


class Draft(Store, Protocol):
    """A whole vault that nobody else knows yet, and that is to take a place: of another vault, or of none."""

    def take_place(self, check: Callable[[EntryRow | None], None]) -> None:
        """At once, or not at all; this store is closed then. An unreadable vault is replaced, a foreign file is not.

        ``check`` is shown the newest entry of the vault that goes, while nobody can write to it, and raises to stop; it
        is not asked where there is none that can be read. Raises VaultBusy, VaultForeign.
        """

    def discard(self) -> None:
        """Close it and remove it, if it has not taken its place."""


def open_store(
    location: Location, *, in_use: bool = True, busy_seconds: float = BUSY_SECONDS, as_found: bool = False
) -> Store:
    """Open to read. Raises VaultMissing, VaultForeign (another program's, or a newer schema), VaultDamaged, VaultError.

    A store that is not ``in_use``, such as a backup, may lie where its locks do not hold. ``as_found``: for readers
    without a key, by whom nothing is verified yet; what was interrupted there is refused, not ended.
    """
    from medcrypt_hsm.vault.store.sqlite import SqliteStore

    return SqliteStore.open(location, in_use=in_use, busy_seconds=busy_seconds, as_found=as_found)


def create_store(location: Location, first_row: TrustRow) -> Store:
    """A new one with ``first_row`` as its only row, whole or not there. Raises VaultError if there is one already."""
    from medcrypt_hsm.vault.store import sqlite_new

    return sqlite_new.create(location, first_row)


def remove_store(location: Location) -> None:
    """The vault, if it is there, with whatever its keeper has put beside it. What it holds is lost."""
    from medcrypt_hsm.vault.store.surroundings import remove_files

    remove_files(Path(location.text))


def open_draft(location: Location, source: Store, *, busy_seconds: float = BUSY_SECONDS) -> Draft:
    """A copy of ``source``, to take the place at ``location``. Where the caller is alone there.

    Raises VaultError and UsageError for a place that no vault can take.
    """
    from medcrypt_hsm.vault.store.sqlite_new import SqliteDraft

    return SqliteDraft.make(location, source.copy_to, busy_seconds)
