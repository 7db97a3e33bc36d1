"""Roots over the rows of ``records`` and ``sealed``: what a head binds of them (docs/spec/vault.md, "Bound rows").

    group         one purpose and month of ``records``, one purpose of ``sealed``, or the index of patients' lookups
    leaf          the rows of a group whose keys begin with the same hex digits: a dozen at most
    inner node    sixteen digests, one for each next digit; they lie in table ``tree``, which nobody has to trust

In: a store, and roots that a signed head vouches for. Out: roots made anew and compared, by anybody who can read the
file. Not here: the path of a single row, and what a change does to a tree (bound.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.notation import ctx, lp, u64
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.rows import LookupRow, RecordRow, SealedRow

if TYPE_CHECKING:
    from medcrypt_hsm.vault.store.store import Store

LEAF = 12  # rows; a node of more has sixteen children
NOTHING = bytes(32)  # in the place of the digest of no rows
LOOKUP = "lookup"
_EIGHT = (8).to_bytes(4, "big")

Row: TypeAlias = RecordRow | SealedRow | LookupRow
Keep: TypeAlias = Callable[[str, bytes], object]


class Group(NamedTuple):
    """Which rows a root is over. ``table``: record, sealed or lookup."""

    table: str
    purpose: str = ""
    month: str = ""

    @property
    def name(self) -> str:
        """As trust rows and table ``tree`` have it."""
        return {"record": f"record:{self.purpose}:{self.month}", "sealed": f"sealed:{self.purpose}"}.get(
            self.table, LOOKUP
        )

    def rows(self, file: Store, prefix: str = "", most: int = -1) -> Sequence[Row]:
        """Those whose keys begin with these hex digits, in order; ``most`` below zero: all of them."""
        odd = len(prefix) % 2
        low = bytes.fromhex(prefix + "0" * odd)
        high = bytes.fromhex(prefix + "f" * odd) + b"\xff" * 40
        if self.table == "record":
            return file.records_between(self.purpose, self.month, low, high, most)
        if self.table == "sealed":
            return file.sealed_between(self.purpose, low, high, most)
        return file.lookups_between(low, high, most)


def groups_of(file: Store) -> list[Group]:
    """Those of which there are rows."""
    return [
        *(Group("record", *group) for group in file.record_groups()),
        *(Group("sealed", purpose) for purpose in file.sealed_purposes()),
        *([Group(LOOKUP)] if Group(LOOKUP).rows(file, most=1) else []),
    ]


def key_of(row: Row) -> str:
    """The hex digits by which a row has its place."""
    return (row.lookup if isinstance(row, LookupRow) else row.pairing).hex()


def _content(row: Row) -> bytes:
    if isinstance(row, RecordRow):
        return lp(row.pairing) + _EIGHT + u64(row.sequence) + lp(row.wrapped) + lp(row.mac)
    if isinstance(row, SealedRow):
        return lp(row.pairing) + lp(row.lookup) + _EIGHT + u64(row.sequence) + lp(row.nonce) + lp(row.body)
    return lp(row.lookup) + lp(row.purpose.encode()) + lp(row.pairing)


def leaf_digest(name: str, prefix: str, rows: Sequence[Row]) -> bytes:
    return sha256(ctx("medcrypt/rows", name, prefix) + b"".join(map(_content, rows))).digest() if rows else NOTHING


def node_digest(name: str, prefix: str, digests: bytes) -> bytes:
    return sha256(ctx("medcrypt/rows/node", name, prefix, digests)).digest()


def is_leaf(prefix: str, rows: Sequence[Row]) -> bool:
    """``rows``: all of a node, or more than a dozen of them. Digits that are used up part nothing any more."""
    return len(rows) <= LEAF or len(key_of(rows[0])) <= len(prefix)


def digest_of(name: str, rows: Sequence[Row], keep: Keep = lambda prefix, digests: None, prefix: str = "") -> bytes:
    """Of the node that covers just these rows, which are in order. ``keep`` gets each inner node below, and itself."""
    if is_leaf(prefix, rows):
        return leaf_digest(name, prefix, rows)
    digests, start, depth = [NOTHING] * 16, 0, len(prefix)
    digits = [key_of(row)[depth] for row in rows]
    for end in range(1, len(rows) + 1):
        if end == len(rows) or digits[end] != digits[start]:
            digit = digits[start]
            digests[int(digit, 16)] = digest_of(name, rows[start:end], keep, prefix + digit)
            start = end
    joined = b"".join(digests)
    keep(prefix, joined)
    return node_digest(name, prefix, joined)


def roots_of(file: Store) -> Iterator[tuple[str, bytes]]:
    """Made anew from every row."""
    for group in groups_of(file):
        yield group.name, digest_of(group.name, group.rows(file))


def check_roots(file: Store, roots: Mapping[str, bytes], at: int) -> None:
    """Each row is the one that the head of entry ``at`` binds, and none is missing. Raises AuditBroken."""
    found = dict(roots_of(file))
    for name in sorted(found.keys() | roots.keys()):
        if found.get(name) != roots.get(name):
            raise not_bound(name, at)


def not_bound(name: str, at: int) -> AuditBroken:
    what = t("the rows of {group} are not those that audit entry {entry} binds", group=name, entry=at)
    return AuditBroken(what, at=at)


def bind_rows(file: Store) -> dict[str, bytes]:
    """Every root, made anew with the whole of table ``tree``. Inside a transaction."""
    file.clear_tree()
    found = {}
    for group in groups_of(file):
        nodes: list[tuple[str, bytes]] = []
        found[group.name] = digest_of(group.name, group.rows(file), lambda *node, to=nodes: to.append(node))
        file.put_nodes(group.name, nodes)
    return found
