"""scripts/standalone/verify_audit.py: one fault in a log per test, and for each what is said about it; and what it
cannot see.

The practice is that of tests/support/audited_practice.py. Files that are no vault:
tests/standalone/test_verify_audit_files.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts.standalone import verify_audit
from tests.support.audited_practice import Practice, make_practice, run
from tests.support.store import by_hand, tamper
from tests.support.vault_builder import Row, SoftToken, VaultBuilder, canonical


def flip(row: Row, column: str) -> None:
    value = bytearray(getattr(row, column))
    value[-1] ^= 1
    setattr(row, column, bytes(value))


@pytest.fixture
def practice(tmp_path: Path) -> Practice:
    return make_practice(tmp_path)


class TestVerified:
    def test_says_what_was_verified(self, practice: Practice) -> None:
        said = practice.verified()
        assert "6 entries, 2 tokens introduced" in said
        assert "newest head: entry 6, time unknown (sealed)" in said
        assert f"token 'praxis' {practice.praxis.id.hex()}: introduced by entry 1, signed 4 entries" in said
        assert f"token 'reserve' {practice.reserve.id.hex()}: introduced by entry 3, signed 2 entries" in said
        assert "that nothing is missing at the end is not shown" in said

    def test_trust_may_begin_at_the_newest_heads_signer(self, practice: Practice) -> None:
        practice.verified(practice.reserve)

    def test_both_keys_given(self, practice: Practice) -> None:
        practice.verified(practice.praxis, practice.reserve)

    def test_checkpoints_that_the_log_continues(self, practice: Practice) -> None:
        notes = tuple(practice.built.checkpoint(practice.praxis, practice.built.rows[i]) for i in (1, 4, 5))
        assert "checkpoints that the log continues: 2, 5, 6" in practice.verified(notes=notes)

    def test_a_restore_is_shown(self, practice: Practice) -> None:
        detail = {"abandoned_hash": "ab" * 32, "abandoned_sequence": 41}
        row = practice.built.clear("vault.restore", detail, practice.praxis)
        said = practice.verified()
        assert "entry 7 abandoned what followed up to entry 41" in said
        assert f"newest head: entry 7, time {row.time}" in said

    def test_json(self, practice: Practice) -> None:
        key = practice.directory / "key.pem"
        key.write_bytes(practice.praxis.pem())
        file = practice.file()
        code, said = run(str(file), "--public-key", str(key), "--json")
        assert (code, json.loads(said)["newest"]["sequence"]) == (0, 6)
        tamper(file, "UPDATE entries SET hash = zeroblob(32) WHERE sequence = 4")
        code, said = run(str(file), "--public-key", str(key), "--json")
        assert code == 5
        assert json.loads(said).items() >= {"verified": False, "entry": 4}.items()

    def test_as_a_program_without_the_package(self, practice: Practice) -> None:
        key = practice.directory / "key.pem"
        key.write_bytes(practice.praxis.pem())
        command = [sys.executable, "-I", verify_audit.__file__, str(practice.file()), "--public-key", str(key)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        assert subprocess.run(command[:4], capture_output=True, check=False).returncode == 2
        assert "medcrypt_hsm" not in Path(verify_audit.__file__).read_text()

    def test_a_backup_in_a_directory_that_nothing_may_be_created_in(self, practice: Practice) -> None:
        file = tamper(practice.file(), "PRAGMA journal_mode = WAL")
        before = file.read_bytes()
        file.chmod(0o400)
        practice.verified(file=file)  # writes the PEM, while it still can
        practice.directory.chmod(0o500)
        try:
            code, said = run(str(file), "--public-key", str(practice.directory / f"{practice.praxis.id.hex()}.pem"))
        finally:
            practice.directory.chmod(0o700)
        assert code == 0, said
        assert file.read_bytes() == before
        assert not list(practice.directory.glob("*-wal")) + list(practice.directory.glob("*-shm"))

    def test_what_is_only_in_the_wal_counts(self, practice: Practice) -> None:
        """A vault in use: read with immutable=1, its newest entries would be silently missing."""
        file = tamper(practice.file(), "PRAGMA journal_mode = WAL")
        with by_hand(file) as db:
            r = practice.built.sealed(practice.praxis)
            row = (r.sequence, r.stored, r.hash, r.trust, r.signer, r.signature)
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
            db.commit()
            assert "7 entries" in practice.verified(file=file)


class TestEntries:
    @pytest.mark.parametrize(("column", "why"), [
        ("stored", "does not follow"), ("hash", "does not follow"), ("signature", "signature is not that of"),
        ("trust", "does not follow"), ("signer", "does not follow"),
    ])  # fmt: skip
    @pytest.mark.parametrize("at", [1, 2, 4, 6])
    def test_flipped_bit(self, practice: Practice, column: str, why: str, at: int) -> None:
        flip(practice.built.rows[at - 1], column)
        practice.refused(why, entry=at)

    @pytest.mark.parametrize(("column", "why"), [
        ("stored", "signature is not that of"), ("trust", "signature is not that of"),
        ("signer", "was not introduced before"),
    ])  # fmt: skip
    @pytest.mark.parametrize("at", [2, 4, 6])
    def test_flipped_bit_and_every_hash_behind_it_made_again(
        self, practice: Practice, column: str, why: str, at: int
    ) -> None:
        """Hashes need no key: anybody can make them follow. The signature over them is what cannot be made."""
        flip(practice.built.rows[at - 1], column)
        practice.built.rehash(at)
        practice.refused(why, entry=at)

    @pytest.mark.parametrize(("column", "why"), [
        ("trust", "signature is not that of"), ("signer", "does not introduce the token that signed it"),
    ])  # fmt: skip
    def test_flipped_bit_in_the_first_entry_and_every_hash_made_again(
        self, practice: Practice, column: str, why: str
    ) -> None:
        flip(practice.built.rows[0], column)
        practice.built.rehash(1)
        practice.refused(why, entry=1)

    def test_signed_by_one_token_and_said_to_be_another(self, practice: Practice) -> None:
        practice.built.rows[5].signer = practice.praxis.id
        practice.built.rehash(6)
        practice.refused("signature is not that of token 'praxis'", entry=6)

    def test_cut_in_the_middle(self, practice: Practice) -> None:
        del practice.built.rows[3]
        practice.refused("entry 4 is missing", entry=4)

    def test_cut_in_the_middle_and_renumbered(self, practice: Practice) -> None:
        del practice.built.rows[3]
        for row in practice.built.rows[3:]:
            row.sequence -= 1
        practice.refused("does not follow", entry=4)

    def test_cut_at_the_start(self, practice: Practice) -> None:
        del practice.built.rows[0]
        practice.refused("entry 1 is missing", entry=1)

    def test_swapped(self, practice: Practice) -> None:
        rows = practice.built.rows
        rows[4].sequence, rows[5].sequence = 6, 5
        practice.refused("does not follow", entry=5)

    def test_empty(self, practice: Practice) -> None:
        practice.built.rows.clear()
        practice.refused("the log is empty")

    def test_resigned_by_an_unknown_key(self, practice: Practice) -> None:
        practice.built.rows.pop()
        practice.built.sealed(SoftToken("reserve"))
        practice.refused("was not introduced before", entry=6)

    def test_resigned_by_an_unknown_key_in_anothers_name(self, practice: Practice) -> None:
        practice.built.rows.pop()
        practice.built.append(b"\x01" + bytes(60), SoftToken("x"), claims=practice.praxis.id)
        practice.refused("log key 0", entry=6)
        practice.built.rows.pop()
        practice.built.append(b"\x01" + bytes(3) + b"\x01" + bytes(60), SoftToken("x"), claims=practice.praxis.id)
        practice.refused("signature is not that of token 'praxis'", entry=6)

    def test_signature_of_zeros(self, practice: Practice) -> None:
        practice.built.rows[5].signature = bytes(64)
        practice.refused("signature is not that of", entry=6)

    def test_signature_moved_to_another_vault(self, practice: Practice) -> None:
        other = VaultBuilder()
        other.introduce(practice.praxis, practice.praxis)
        practice.built.rows[0].signature = other.rows[0].signature
        practice.refused("signature is not that of", entry=1)

    @pytest.mark.parametrize(("stored", "why"), [
        (b"\x02\x00\x00\x00\x01" + bytes(60), "first byte is 0x02"),
        (b"\xff\x00\x00\x00\x01" + bytes(60), "first byte is 0xff"),
        (b"\x00\x00\x00\x00\x01" + bytes(60), "clear entry is not canonical JSON"),
        (b"\x01\x00\x00\x00\x01" + bytes(27), "too short"),
        (b"\x01", "too short"), (b"\x00", "clear entry is not canonical JSON"), (b"", "empty"),
    ])  # fmt: skip
    def test_sealed_with_a_wrong_leading_byte_or_length(self, practice: Practice, stored: bytes, why: str) -> None:
        practice.built.append(stored, practice.praxis)
        practice.refused(why, entry=7)

    def test_sealed_under_a_log_key_that_does_not_exist(self, practice: Practice) -> None:
        practice.built.sealed(practice.praxis, log_key=2)
        practice.refused("log key 2; the newest is 1")

    @pytest.mark.parametrize("json_bytes", [
        b"", b"[]", b"null", b"{}", b'{"a":1,"a":1}', b'{ "a":1}', b'{"a":1.0}', b'{"a":NaN}', b'{"a":"\\ud800"}',
        b"\xff", b"[" * 100_000, b"9" * 100_000, b'{"a":1}\n',
    ])  # fmt: skip
    def test_clear_but_not_an_entry(self, practice: Practice, json_bytes: bytes) -> None:
        practice.built.append(b"\x00" + json_bytes, practice.praxis)
        practice.refused("clear entry", entry=7)

    @pytest.mark.parametrize(("members", "why"), [
        ({"action": "message.decrypt"}, "not one that may be in the clear"),
        ({"action": "token.retire"}, "not one that may be in the clear"),
        ({"extra": 1}, "other members"),
        ({"actor": None}, "is not text"),
        ({"detail": []}, "other members"),
        ({"time": "2026-11-03"}, "not a UTC time"),
        ({"time": "2026-13-03T09:00:00Z"}, "not a UTC time"),
        ({"time": "2026-11-01T08:00:00Z"}, "before an earlier entry's"),
        ({"token": "reserve"}, "'praxis' signed it"),
        ({"detail": {"abandoned_hash": "ab" * 32, "abandoned_sequence": 10**400}}, "not a number in range"),
        ({"detail": {"abandoned_hash": "AB" * 32, "abandoned_sequence": 1}}, "lower-case hex"),
        ({"detail": {"abandoned_hash": "ab" * 32, "abandoned_sequence": True}}, "not a number in range"),
    ])  # fmt: skip
    def test_clear_with_a_wrong_member(self, practice: Practice, members: dict[str, object], why: str) -> None:
        detail = {"abandoned_hash": "ab" * 32, "abandoned_sequence": 9}
        practice.built.clear("vault.restore", detail, practice.praxis, **members)
        practice.refused(why, entry=7)


class TestTailCut:
    """What is seen of a cut at the end, and what is not: said exactly, for the guide must not promise more."""

    def test_without_a_checkpoint_not_seen_while_the_trust_state_is_the_same(self, practice: Practice) -> None:
        practice.built.rows.pop()
        assert "5 entries" in practice.verified()

    def test_seen_by_a_checkpoint(self, practice: Practice) -> None:
        note = practice.built.checkpoint(practice.reserve)
        practice.built.rows.pop()
        practice.refused("ahead of the log, which ends at 5", entry=6, notes=(note,))

    def test_seen_by_the_trust_digest_across_a_change(self, practice: Practice) -> None:
        del practice.built.rows[4:]
        practice.refused("not the one that the newest head signed", entry=4)

    def test_across_a_change_not_seen_with_the_old_rows(self, practice: Practice) -> None:
        """That is an older copy of the file: it was true once."""
        del practice.built.rows[4:]
        del practice.built.trust["month", "2026-11"]
        practice.verified()

    def test_seen_by_a_row_that_a_cut_entry_wrote(self, practice: Practice) -> None:
        practice.built.records.append(("message", bytes(8), "2026-11", 6))
        practice.verified()
        practice.built.rows.pop()
        practice.refused("was written by an entry that the log does not have")

    def test_back_to_the_first_token_seen_if_the_second_key_is_given(self, practice: Practice) -> None:
        del practice.built.rows[2:]
        del practice.built.trust["month", "2026-11"]
        del practice.built.trust["token", "reserve"]
        practice.verified()
        practice.refused("does not occur in the log", practice.praxis, practice.reserve)


class TestIntroductions:
    def test_signature_from_a_key_introduced_later(self, practice: Practice) -> None:
        built = VaultBuilder()
        built.introduce(practice.praxis, practice.praxis)
        built.sealed(practice.reserve)
        built.introduce(practice.reserve, practice.praxis)
        practice.built = built
        practice.refused("was not introduced before", entry=2)

    def test_forged_by_an_unknown_key(self, practice: Practice) -> None:
        forger = SoftToken("forger")
        practice.built.introduce(forger, forger)
        practice.refused("was not introduced before", entry=7)

    def test_forged_in_a_known_tokens_name(self, practice: Practice) -> None:
        forger = SoftToken("forger")
        row = practice.built.introduce(forger, forger)
        row.signer = practice.praxis.id
        practice.refused("does not follow", entry=7)
        practice.built.rehash(7)
        practice.refused("signature is not that of token 'praxis'", entry=7)

    def test_first_entry_signed_by_another(self, practice: Practice) -> None:
        practice.built = VaultBuilder()
        practice.built.introduce(practice.praxis, practice.reserve)
        practice.refused("does not introduce the token that signed it", entry=1)

    def test_first_entry_introduces_nobody(self, practice: Practice) -> None:
        practice.built = VaultBuilder()
        practice.built.sealed(practice.praxis)
        practice.refused("does not introduce the token that signed it", entry=1)

    def test_an_intent_is_not_told_in_the_clear(self, practice: Practice) -> None:
        entry = json.loads(practice.built.rows[2].stored[1:]) | {"outcome": "intended"}
        del practice.built.rows[2:]
        practice.built.append(b"\x00" + canonical(entry), practice.praxis)
        practice.refused("which token.introduce has not in the clear", entry=3)

    @pytest.mark.parametrize(("key", "why"), [
        ("00", "is not a public key"), ("zz", "lower-case hex"), ("", "lower-case hex"), (7, "is not text"),
    ])  # fmt: skip
    def test_not_an_audit_key(self, practice: Practice, key: object, why: str) -> None:
        practice.built.introduce(SoftToken("third"), practice.praxis, audit_key=key)
        practice.refused(why, entry=7)

    def test_an_audit_key_in_other_bytes(self, practice: Practice) -> None:
        """The compressed point is the same key: it could be introduced again as another token."""
        third = SoftToken("third")
        point = third.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        compressed = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
        practice.built.introduce(third, practice.praxis, audit_key=compressed.hex())
        practice.refused("not encoded as the spec says", entry=7)

    def test_an_audit_key_on_another_curve(self, practice: Practice) -> None:
        public = ec.generate_private_key(ec.SECP384R1()).public_key()
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
        practice.built.introduce(SoftToken("third"), practice.praxis, audit_key=spki)
        practice.refused("is not a P-256 key", entry=7)

    def test_id_of_another_key(self, practice: Practice) -> None:
        practice.built.introduce(SoftToken("third"), practice.praxis, id="00" * 32)
        practice.refused("id is not its audit key's fingerprint", entry=7)

    @pytest.mark.parametrize(
        "changed",
        [
            {"profile": "rot13"},
            {"attestation": "certainly"},
            {"attestation": 1},
            {"kek": "00"},
            {"kek": None},
            {"profile": "p256-hpke"},
            {"profile": "p256-hpke", "kek": "00" * 91},
        ],
    )
    def test_of_a_token_that_cannot_be(self, practice: Practice, changed: dict[str, object]) -> None:
        practice.built.introduce(SoftToken("third"), practice.praxis, **changed)
        practice.refused("the introduction", entry=7)

    def test_introduced_twice(self, practice: Practice) -> None:
        practice.built.introduce(practice.reserve, practice.praxis)
        practice.refused("was introduced before", entry=7)

    def test_a_name_used_again(self, practice: Practice) -> None:
        practice.built.introduce(SoftToken("reserve"), practice.praxis)
        practice.refused("was introduced before", entry=7)

    def test_a_name_cannot_steer_the_terminal(self, practice: Practice) -> None:
        practice.built.introduce(SoftToken("\x1b[2Jverified"), practice.praxis)
        assert "\x1b" not in practice.verified()


class TestTrustState:
    def test_changed_row(self, practice: Practice) -> None:
        practice.built.set_trust("policy", "", {"grace_days": 300, "require_attestation": "none", "retain_months": 60})
        practice.refused("not the one that the newest head signed", entry=6)

    def test_extra_row(self, practice: Practice) -> None:
        practice.built.open_month("2026-12")
        practice.refused("not the one that the newest head signed", entry=6)

    def test_removed_row(self, practice: Practice) -> None:
        del practice.built.trust["month", "2026-11"]
        practice.refused("not the one that the newest head signed", entry=6)

    def test_row_of_unknown_kind(self, practice: Practice) -> None:
        practice.built.set_trust("month ", "2026-12", {})
        practice.refused("unknown kind")

    def test_row_that_is_not_canonical(self, practice: Practice) -> None:
        practice.built.trust["policy", ""] = b'{ "grace_days":7}'
        practice.refused("not a canonical JSON object")

    # The next four are signed by a true key: the rule itself is what refuses them, not the digest.
    def test_removed_token_row(self, practice: Practice) -> None:
        del practice.built.trust["token", "reserve"]
        practice.built.sealed(practice.praxis)
        practice.refused("token 'reserve' is told of in the log but has no trust row")

    def test_token_row_without_introduction(self, practice: Practice) -> None:
        practice.built.add_token_row(SoftToken("third"))
        practice.built.sealed(practice.praxis)
        practice.refused("the log introduced no such token")

    def test_token_row_with_another_key(self, practice: Practice) -> None:
        practice.built.add_token_row(SoftToken("third"), name="reserve")
        practice.built.sealed(practice.praxis)
        practice.refused("another audit_key than the log introduced")

    def test_token_row_under_another_name(self, practice: Practice) -> None:
        practice.built.trust["token", "rescue"] = practice.built.trust.pop(("token", "reserve"))
        practice.built.sealed(practice.praxis)
        practice.refused("the log introduced no such token")

    @pytest.mark.parametrize(("change", "why"), [
        ({"profile": "p256-hpke"}, "another profile than"), ({"attestation": "device-attested"}, "another attestation"),
        ({"kek": SoftToken("kek").spki.hex()}, "another kek"), ({"kek": None}, "'kek' is not text"),
        ({"id": "00" * 32}, "another id"), ({"serial": "2"}, "another serial"), ({"model": "hard"}, "another model"),
    ])  # fmt: skip
    def test_a_token_row_that_tells_otherwise(self, practice: Practice, change: dict[str, object], why: str) -> None:
        practice.built.add_token_row(practice.reserve, **change)
        practice.built.sealed(practice.praxis)
        practice.refused(why)

    def test_a_kek_with_a_public_key(self, practice: Practice) -> None:
        third, kek = SoftToken("third"), SoftToken("kek").spki.hex()
        practice.built.add_token_row(third, profile="p256-hpke", kek=kek)
        practice.built.introduce(third, practice.praxis, row=False, profile="p256-hpke", kek=kek)
        practice.verified()

    def test_a_token_that_is_being_added(self, practice: Practice) -> None:
        row = {"begun": practice.built.now(), "serial": "1", "uri": "pkcs11:"}
        practice.built.set_trust("adding", "third", row)
        practice.built.sealed(practice.praxis)
        practice.verified()

    def test_a_keyset_that_is_wrapped_for_the_wrong_token(self, practice: Practice) -> None:
        for name, token, right in (("reserve", "reserve", True), ("reserve", "praxis", False), ("x", "praxis", False)):
            row = {"kek": 1, "token": getattr(practice, token).id.hex(), "wrapped": "00"}
            practice.built.trust = {k: v for k, v in practice.built.trust.items() if k[0] != "keyset"}
            practice.built.set_trust("keyset", f"1:{name}", row)
            practice.built.sealed(practice.praxis)
            if right:
                practice.verified()
            else:
                practice.refused("wrapped for no token of that name")

    def test_second_policy(self, practice: Practice) -> None:
        practice.built.set_trust(
            "policy", "other", {"grace_days": 300, "require_attestation": "none", "retain_months": 60}
        )
        practice.built.sealed(practice.praxis)
        practice.refused("may not exist")

    def test_foreign_vault_id(self, practice: Practice) -> None:
        row = json.loads(practice.built.trust["vault", ""])
        practice.built.set_trust("vault", "", row | {"id": "00" * 16})
        practice.refused("does not follow", entry=1)

    @pytest.mark.parametrize("change", [{"id": "00"}, {"id": None}, {"log_key": "1"}, {"log_key": 10**30}])
    def test_vault_row_of_wrong_form(self, practice: Practice, change: dict[str, object]) -> None:
        row = json.loads(practice.built.trust["vault", ""])
        practice.built.set_trust("vault", "", row | change)
        practice.refused("trust row vault")

    def test_no_vault_row(self, practice: Practice) -> None:
        del practice.built.trust["vault", ""]
        practice.refused("no vault row")

    def test_unfinished(self, practice: Practice) -> None:
        practice.built.rows.clear()
        practice.built.trust = {("vault", ""): canonical({"id": practice.built.vault.hex(), "unfinished": "pkcs11:"})}
        practice.refused("never finished")


class TestGivenKeys:
    def test_a_wrong_key(self, practice: Practice) -> None:
        practice.refused("does not occur in the log", SoftToken("praxis"))

    def test_a_right_one_beside_one_that_does_not_occur(self, practice: Practice) -> None:
        practice.refused("does not occur in the log", practice.praxis, SoftToken("x"))

    def test_neither_end_of_the_log(self, practice: Practice) -> None:
        practice.built.sealed(practice.praxis)
        practice.refused("neither the first token's key nor the newest head's", practice.reserve)

    def test_a_whole_log_by_a_forger_who_introduces_the_known_key(self, practice: Practice) -> None:
        """Everything in it verifies; only that our key is at neither end gives it away."""
        forger = SoftToken("forger")
        practice.built = VaultBuilder(practice.built.vault)
        practice.built.open_month("2026-11")
        practice.built.introduce(forger, forger)
        practice.built.introduce(practice.praxis, forger)
        practice.refused("neither the first token's key nor the newest head's")

    @pytest.mark.parametrize("pem", [b"", b"\xff" * 99, b"x" * 100_000, b"-----BEGIN PUBLIC KEY-----\n"])
    def test_not_a_key(self, practice: Practice, pem: bytes) -> None:
        path = practice.directory / "k"
        path.write_bytes(pem)
        assert run(str(practice.file()), "--public-key", str(path))[0] == 5

    def test_each_key_in_a_file_counts(self, practice: Practice) -> None:
        path = practice.directory / "k"
        for second, code in ((practice.praxis, 0), (SoftToken("forger"), 5)):
            path.write_bytes(practice.praxis.pem() + second.pem())
            assert run(str(practice.file()), "--public-key", str(path))[0] == code
