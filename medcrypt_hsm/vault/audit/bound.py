"""``BoundRows``: rows as the newest head binds them, read with their paths, and the roots after each change.

In: a store, and the roots of a verified trust state. Out: rows, or that there are none, each proven by its path from
the root down to its leaf; new roots. It costs the same however many rows there are. Table ``tree`` is not trusted: a
path that does not hold is looked at in the rows themselves, and the table made anew where they are right. Not here:
what the digests are (rowtree.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.rowtree import (
    LEAF,
    LOOKUP,
    NOTHING,
    Group,
    Row,
    bind_rows,
    check_roots,
    digest_of,
    is_leaf,
    key_of,
    leaf_digest,
    node_digest,
    not_bound,
)
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.store.rows import LookupRow, RecordRow, SealedRow
from medcrypt_hsm.vault.store.store import Store

Touched = Mapping[Group, Collection[bytes]]
"""Keys of rows that come, go or change."""
_MANY = 16  # keys of one group, from which on all of it is made anew


class Verified(Protocol):
    """Whose rows they are: an ``Unlocked``."""

    @property
    def file(self) -> Store: ...

    @property
    def state(self) -> TrustState: ...

    def catch_up(self) -> None: ...


class _Differs(Exception):
    """A path that does not lead to the rows: they were changed, or the table was, or another process writes."""


class BoundRows:
    """Reads as the store does. Every method raises AuditBroken for rows that are not the bound ones."""

    def __init__(self, vault: Verified) -> None:
        self._vault = vault
        self._new: dict[str, bytes] = {}  # roots within a change; ``NOTHING``: the group has no rows any more
        self._rewriting = False

    @property
    def _file(self) -> Store:
        return self._vault.file

    @property
    def bound(self) -> bool:
        """False for a vault of before, and while everything is written anew."""
        return bool(self._vault.state.roots) and not self._rewriting

    # Reading

    def record(self, purpose: str, pairing: bytes, month: str) -> RecordRow | None:
        if not self.bound:
            return self._file.record(purpose, pairing, month)
        found = self._leaf(Group("record", purpose, month), pairing)
        return next((row for row in found if isinstance(row, RecordRow) and row.pairing == pairing), None)

    def records_of(self, purpose: str, pairing: bytes) -> list[RecordRow]:
        """In the order of months."""
        if not self.bound:
            return self._file.records(purpose, pairing)
        found = (self.record(purpose, pairing, month) for month in self._months(purpose))
        return [row for row in found if row is not None]

    def all_records(self, purpose: str) -> list[RecordRow]:
        if not self.bound:
            return self._file.records(purpose)
        months = {*self._months(purpose), *(month for _, month in self._file.record_groups(purpose))}
        rows = (row for month in sorted(months) for row in self._whole(Group("record", purpose, month)))
        return [row for row in rows if isinstance(row, RecordRow)]

    def sealed(self, purpose: str, pairing: bytes) -> SealedRow | None:
        if not self.bound:
            return self._file.sealed(purpose, pairing)
        found = self._leaf(Group("sealed", purpose), pairing)
        return next((row for row in found if isinstance(row, SealedRow) and row.pairing == pairing), None)

    def all_sealed(self, purpose: str) -> list[SealedRow]:
        if not self.bound:
            return self._file.all_sealed(purpose)
        rows = [row for row in self._whole(Group("sealed", purpose)) if isinstance(row, SealedRow)]
        return sorted(rows, key=lambda row: (row.sequence, row.pairing))

    def sealed_of(self, lookup: bytes) -> list[SealedRow]:
        """All of them: one that was taken away is missed too."""
        if not self.bound:
            return self._file.sealed_of(lookup)
        try:
            return self._listed(lookup)
        except _Differs:
            if self._file.steady:
                raise self._not_bound(LOOKUP) from None
        with self._file.snapshot():  # another process wrote between the two reads
            self._vault.catch_up()
            return self.sealed_of(lookup)

    def _listed(self, lookup: bytes) -> list[SealedRow]:
        leaf = self._leaf(Group(LOOKUP), lookup)
        listed = [row for row in leaf if isinstance(row, LookupRow) and row.lookup == lookup]
        rows = [self.sealed(row.purpose, row.pairing) for row in listed]
        found = [row for row in rows if row is not None and row.lookup == lookup]
        if len(found) != len(listed):
            raise _Differs
        return sorted(found, key=lambda row: (row.sequence, row.purpose, row.pairing))

    def _months(self, purpose: str) -> list[str]:
        """Of which there are rows of this purpose."""
        beginning = f"record:{purpose}:"
        names = {**self._vault.state.roots, **self._new}
        return sorted(name.removeprefix(beginning) for name in names if name.startswith(beginning))

    def _root(self, name: str) -> bytes:
        return self._new.get(name) or self._vault.state.roots.get(name, NOTHING)

    def _leaf(self, group: Group, key: bytes) -> list[Row]:
        """Every row of the leaf in which one of this key is, or would be."""
        try:
            return self._path(group, key)
        except _Differs:
            if self._file.steady:
                return self._look_closely(group, key)
        with self._file.snapshot():
            self._vault.catch_up()
            try:
                return self._path(group, key)
            except _Differs:
                return self._look_closely(group, key)

    def _path(self, group: Group, key: bytes) -> list[Row]:
        name, digits, digest, prefix = group.name, key.hex(), self._root(group.name), ""
        if digest == NOTHING and group.rows(self._file, digits, 1):
            raise _Differs
        nodes = self._file.nodes(name, [digits[:depth] for depth in range(len(digits))])
        while digest != NOTHING and prefix in nodes:
            digests = nodes.pop(prefix)
            if node_digest(name, prefix, digests) != digest:
                raise _Differs
            start = 32 * int(digits[len(prefix)], 16)
            digest, prefix = digests[start : start + 32], digits[: len(prefix) + 1]
        if nodes:  # below a leaf: a later change would believe them
            raise _Differs
        if digest == NOTHING and not prefix:
            return []
        rows = group.rows(self._file, prefix)
        if leaf_digest(name, prefix, rows) != digest:
            raise _Differs
        return list(rows)

    def _whole(self, group: Group) -> list[Row]:
        """Every row of a group."""
        rows = group.rows(self._file)
        if digest_of(group.name, rows) == self._root(group.name):
            return list(rows)
        if self._file.steady:
            return self._look_closely(group)
        with self._file.snapshot():
            self._vault.catch_up()
            return self._look_closely(group)

    def _look_closely(self, group: Group, key: bytes | None = None) -> list[Row]:
        """The rows, where they are right and only the table is not; it is made anew in the next change."""
        rows = group.rows(self._file)
        nodes: list[tuple[str, bytes]] = []
        if digest_of(group.name, rows, lambda *node: nodes.append(node)) != self._root(group.name):
            raise self._not_bound(group.name)
        if self._file.writing:
            self._file.delete_nodes(group.name, "")
            self._file.put_nodes(group.name, nodes)
        return [row for row in rows if key is None or key_of(row) == key.hex()]

    def _newest(self) -> int:
        newest = self._file.newest()
        return 0 if newest is None else newest.sequence

    def _not_bound(self, name: str) -> AuditBroken:
        return not_bound(name, self._newest())

    # Writing, inside a change

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around a change, which may come to nothing."""
        try:
            yield
        finally:
            self._new.clear()
            self._rewriting = False

    def new_roots(self) -> Mapping[str, bytes]:
        """What the change has made of them, where that is another than before; ``NOTHING``: no rows any more."""
        before = self._vault.state.roots
        return {name: root for name, root in self._new.items() if before.get(name, NOTHING) != root}

    @contextmanager
    def touched(self, touched: Touched) -> Iterator[None]:
        """Around a write: the rows beside those that change are proven before it, and bound after it."""
        if not self.bound:
            yield
            return
        for group, keys in touched.items():
            if len(keys) >= _MANY:
                self._whole(group)
            else:
                for key in keys:
                    self._leaf(group, key)
        yield
        for group, keys in touched.items():
            if len(keys) >= _MANY:
                self._new[group.name] = self._build(group, "", group.rows(self._file))
            else:
                self._new[group.name] = self._renew(group, "", sorted(key.hex() for key in keys))

    def _renew(self, group: Group, prefix: str, keys: Collection[str]) -> bytes:
        """The node's new digest. Every path to these keys was proven before they changed."""
        rows = group.rows(self._file, prefix, LEAF + 1)
        there = self._file.nodes(group.name, [prefix]).get(prefix)
        if is_leaf(prefix, rows) or there is None:
            return self._build(group, prefix, rows if len(rows) <= LEAF else group.rows(self._file, prefix))
        digests, depth = [there[start : start + 32] for start in range(0, 512, 32)], len(prefix)
        for digit in {key[depth] for key in keys}:
            below = [key for key in keys if key[depth] == digit]
            digests[int(digit, 16)] = self._renew(group, prefix + digit, below)
        joined = b"".join(digests)
        self._file.put_nodes(group.name, [(prefix, joined)])
        return node_digest(group.name, prefix, joined)

    def _build(self, group: Group, prefix: str, rows: Collection[Row]) -> bytes:
        nodes: list[tuple[str, bytes]] = []
        digest = digest_of(group.name, list(rows), lambda *node: nodes.append(node), prefix)
        self._file.delete_nodes(group.name, prefix)
        self._file.put_nodes(group.name, nodes)
        return digest

    def gone(self, group: Group) -> None:
        """All of a group was deleted, after ``all_records`` had read it."""
        if self.bound:
            self._file.delete_nodes(group.name, "")
            self._new[group.name] = NOTHING

    @contextmanager
    def rewritten(self) -> Iterator[None]:
        """Around a write of everything: what is there is proven before it, if it is bound, and all of it bound after
        it."""
        if self.bound:
            check_roots(self._file, self._vault.state.roots, self._newest())
        self._rewriting = True
        yield
        if not self._file.has_tree:
            self._file.add_tree()
        self._new = dict.fromkeys(self._vault.state.roots, NOTHING) | bind_rows(self._file)
        self._rewriting = False
