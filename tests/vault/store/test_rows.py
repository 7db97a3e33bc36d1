"""The rows of a vault, and how audit entries name them (docs/spec/vault.md)."""

from __future__ import annotations

from medcrypt_hsm.vault.store.rows import RecordRow, SealedRow, record_ref, sealed_ref

PAIRING = bytes.fromhex("c0ffee0123456789")


def test_a_record_is_named_by_its_purpose_pairing_and_month() -> None:
    row = RecordRow("message", PAIRING, "2026-11", 7, bytes(40), bytes(32))
    assert row.ref == record_ref("message", PAIRING, "2026-11") == "record:message:c0ffee0123456789:2026-11"
    assert RecordRow("log", b"", "00000001", 1, bytes(40), bytes(32)).ref == "record:log::00000001"


def test_a_sealed_row_by_its_purpose_and_pairing() -> None:
    row = SealedRow("patient", PAIRING, bytes(32), 7, bytes(12), b"sealed")
    assert row.ref == sealed_ref("patient", PAIRING) == "sealed:patient:c0ffee0123456789"


def test_a_name_says_nothing_of_what_is_in_the_row() -> None:
    one = SealedRow("patient", PAIRING, b"", 7, bytes(12), b"one")
    assert one.ref == one._replace(lookup=b"another", sequence=8, nonce=bytes(range(12)), body=b"two").ref
