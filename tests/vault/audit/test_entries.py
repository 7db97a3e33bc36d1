"""The log's bytes: entries in the clear and sealed, and what their hashes and heads are over (docs/spec/audit.md)."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest

from medcrypt_hsm.crypto.handles import AeadKey
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.store.rows import EntryRow
from tests.support.vault_builder import SoftToken, VaultBuilder

TIME = "2026-11-22T12:00:00Z"
ENTRY = Entry(TIME, "mara", "doctor", "message.encrypt", "EXP-1", "done", {"messages": []})
RESTORE = Entry(TIME, "mara", "doctor", "vault.restore", "", "done", {})
VAULT = bytes(range(16))


def row(stored: bytes, sequence: int = 7) -> EntryRow:
    return EntryRow(sequence, stored, b"", b"", b"", b"")


@pytest.fixture
def log_key() -> AeadKey:
    wrapping, mac, sealing = (Secret(os.urandom(32)) for _ in range(3))
    return HostKeys().handles((wrapping, mac, sealing)).sealing


class TestEntry:
    def test_its_bytes(self) -> None:
        assert ENTRY.encode() == (
            b'{"action":"message.encrypt","actor":"mara","detail":{"messages":[]},"outcome":"done",'
            b'"subject":"EXP-1","time":"2026-11-22T12:00:00Z","token":"doctor"}'
        )
        assert Entry.decode(ENTRY.encode()) == ENTRY

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'"done"', b'"done" '),  # the same JSON in other bytes
            (b'"subject":"EXP-1",', b""),
            (b'"token":"doctor"', b'"token":"doctor","zeal":""'),
            (b'"mara"', b"7"),
            (b'{"messages":[]}', b"[]"),
            (b'{"messages":[]}', b'{"messages":7.0}'),
            (b'{"messages":[]}', b'{"messages":NaN}'),
            (b"T12:00:00Z", b"T12:00:00"),
            (b"2026-11-22", b"2026-11-31"),
        ],
    )
    def test_no_other_bytes_are_one(self, old: bytes, new: bytes) -> None:
        assert old in ENTRY.encode()
        with pytest.raises(ValueError):
            Entry.decode(ENTRY.encode().replace(old, new))


class TestInTheClear:
    def test_what_a_stranger_must_be_able_to_follow(self) -> None:
        assert entries.read_clear(row(entries.clear_entry(RESTORE))) == RESTORE

    def test_nothing_else(self) -> None:
        """Whoever could have an entry read in the clear that says "EXP-1" would tell the file's finder who that is."""
        for stored in (entries.clear_entry(ENTRY), b"\x00{}", b"\x02", b"", b"\x00" + b"[" * 5000):
            with pytest.raises(AuditBroken, match="audit entry 7 cannot be read") as caught:
                entries.read_clear(row(stored))
            assert caught.value.at == 7


class TestSealed:
    def test_it_opens_where_it_was_written(self, log_key: AeadKey) -> None:
        stored = entries.seal_entry(ENTRY, log_key, 3, bytes(12), VAULT, 7)
        assert stored[:5] == b"\x01\x00\x00\x00\x03"
        assert b"EXP-1" not in stored
        assert entries.read_clear(row(stored)) is None
        assert entries.log_key_number(row(stored)) == 3
        assert entries.open_entry(row(stored), log_key, VAULT) == ENTRY

    def test_it_opens_nowhere_else(self, log_key: AeadKey) -> None:
        stored = entries.seal_entry(ENTRY, log_key, 3, bytes(12), VAULT, 7)
        other = stored[:4] + b"\x04" + stored[5:]
        for where, vault in ((row(stored, 8), VAULT), (row(stored), bytes(16)), (row(other), VAULT)):
            with pytest.raises(AuditBroken, match="does not open under its log key") as caught:
                entries.open_entry(where, log_key, vault)
            assert caught.value.at == where.sequence

    def test_what_must_be_in_the_clear_is_not_hidden(self, log_key: AeadKey) -> None:
        stored = entries.seal_entry(RESTORE, log_key, 3, bytes(12), VAULT, 7)
        with pytest.raises(AuditBroken):
            entries.open_entry(row(stored), log_key, VAULT)

    @pytest.mark.parametrize("stored", [b"\x01" + bytes(32), b"\x01" + bytes(31), b"\x01"])
    def test_it_names_a_log_key(self, stored: bytes) -> None:
        with pytest.raises(AuditBroken, match="audit entry 7 is cut short, or names no log key"):
            entries.log_key_number(row(stored))


def test_hashes_and_heads_are_those_of_the_spec() -> None:
    """The builder's are written from the spec alone."""
    built, doctor = VaultBuilder(), SoftToken("doctor")
    built.introduce(doctor, doctor)
    first = built.rows[0]
    before = entries.genesis(built.vault)
    assert before == sha256(b"\0\0\0\x16medcrypt/audit/genesis\0\0\0\x10" + built.vault).digest()
    assert entries.entry_hash(before, 1, first.trust, doctor.id, first.stored) == first.hash
    head = entries.head_bytes(built.vault, 1, first.hash, first.trust)
    assert head.startswith(b"\0\0\0\x0dmedcrypt/head\0\0\0\x10" + built.vault)
    assert head.endswith(first.hash + b"\0\0\0\x20" + first.trust)
