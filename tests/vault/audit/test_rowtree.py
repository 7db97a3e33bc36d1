"""Roots over rows: what this program makes is what the one-file verifier makes, which shares no line with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.rowtree import LEAF, NOTHING, Group, bind_rows, check_roots, digest_of, roots_of
from medcrypt_hsm.vault.store.rows import Location, RecordRow, SealedRow
from medcrypt_hsm.vault.store.store import Store, create_store
from scripts.standalone import verify_audit
from tests.support.store import select, tamper


def fill(store: Store, count: int, *, alike: int = 0) -> None:
    """Rows of two purposes and months. ``alike``: how many bytes all their keys begin with."""
    random = Random(count)
    firsts = random.sample(range(256 if alike else 600), count)
    tails = [bytes([first % 256]) + random.randbytes(7) for first in firsts]
    keys = [bytes(alike) + tail[: 8 - alike] for tail in tails]
    assert len(set(keys)) == count
    for month in ("2026-10", "2026-11"):
        store.put_records(
            RecordRow("message", key, month, 7, random.randbytes(40), random.randbytes(32)) for key in keys
        )
    store.put_records([RecordRow("seen", b"", "", 1, random.randbytes(40), random.randbytes(32))])
    for number, key in enumerate(keys):
        lookup = bytes([number % 3]) * 32 if number % 2 else random.randbytes(32)
        store.put_sealed(SealedRow("patient", key, lookup, 9, random.randbytes(12), random.randbytes(90)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(create_store(Location.parse(tmp_path / "practice" / "vault.db"), ("vault", "", b"{}"))) as made:
        yield made


@pytest.mark.parametrize(
    ("count", "alike"), [(0, 0), (1, 0), (LEAF, 0), (LEAF + 1, 0), (300, 0), (LEAF + 1, 7), (40, 6)]
)
def test_both_readers_make_the_same_roots(store: Store, count: int, alike: int) -> None:
    with store.transaction():
        fill(store, count, alike=alike)
        bound = bind_rows(store)
    assert bound == dict(roots_of(store))
    with verify_audit.opened(Path(store.location.text)) as db:
        assert bound == {name: verify_audit.node(name, rows) for name, rows in verify_audit.grouped(db) if rows}
    check_roots(store, bound, 7)
    depths = {len(prefix) for (prefix,) in select(Path(store.location.text), "SELECT prefix FROM tree")}
    assert bool(depths) is (count > LEAF)
    assert (max(depths, default=0) >= 2 * alike) or count <= LEAF


def test_a_leaf_and_a_node_by_hand() -> None:
    """As docs/spec/vault.md says it, byte by byte."""

    def lp(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    rows = [RecordRow("chain", bytes([16 * n]) + bytes(7), "2026-11", n, bytes(40), bytes(32)) for n in range(13)]
    name = b"record:chain:2026-11"

    def leaf(prefix: bytes, *covered: RecordRow) -> bytes:
        parts = [lp(row.pairing, row.sequence.to_bytes(8, "big"), row.wrapped, row.mac) for row in covered]
        return sha256(lp(b"medcrypt/rows", name, prefix) + b"".join(parts)).digest()

    assert digest_of(name.decode(), rows[:12]) == leaf(b"", *rows[:12])
    children = [leaf(b"%x" % n, rows[n]) for n in range(13)] + [NOTHING] * 3
    assert digest_of(name.decode(), rows) == sha256(lp(b"medcrypt/rows/node", name, b"", b"".join(children))).digest()
    assert digest_of(name.decode(), []) == NOTHING


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE purpose = 'seen'",
        "UPDATE records SET sequence = 8 WHERE month = '2026-10'",
        "UPDATE records SET month = '2026-12' WHERE month = '2026-11'",
        "UPDATE sealed SET lookup = x'00' WHERE purpose = 'patient'",
        "UPDATE sealed SET purpose = 'qr' WHERE pairing = (SELECT max(pairing) FROM sealed)",
        "INSERT INTO sealed VALUES ('qr', x'0102030405060708', x'', 1, x'00', x'00')",
    ],
)
def test_any_row_that_is_another_is_found(store: Store, statement: str) -> None:
    with store.transaction():
        fill(store, 30)
        bound = bind_rows(store)
    tamper(Path(store.location.text), statement)
    with pytest.raises(AuditBroken, match="are not those that audit entry 7 binds"):
        check_roots(store, bound, 7)


def test_a_group_is_read_by_the_beginning_of_its_keys(store: Store) -> None:
    with store.transaction():
        fill(store, 300)
    group = Group("record", "message", "2026-11")
    every = group.rows(store)
    for prefix in ("", "0", "f", "ff", "a7", "a7c"):
        expected = [row for row in every if isinstance(row, RecordRow) and row.pairing.hex().startswith(prefix)]
        assert group.rows(store, prefix) == expected
        assert group.rows(store, prefix, 2) == expected[:2]
