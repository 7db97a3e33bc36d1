"""Whole vaults and trust states forged by somebody who has the file and no token: refused before any unwrap.

The token is a real one that counts its calls (tests/support/watched_token.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import AuditBroken, MedcryptError, TokenUnfit, VaultError, VaultRolledBack
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name, kek_name
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.inspection import status_of_file
from medcrypt_hsm.vault.unlock import unlock
from tests.support.added_token import vault_id
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import by_hand, fold, open_at, rows
from tests.support.vault_builder import SoftToken, VaultBuilder, canonical, ctx, sha256, u64
from tests.support.watched_token import WatchedToken


def refused(practice: Practice, error: type[VaultError], match: str | None = None) -> None:
    """By ``unlock``, with the vault's own token, before the one call that must not happen, and the file untouched."""
    before = practice.path.read_bytes()
    with WatchedToken.open(practice.uri) as token:
        file = open_at(practice.path)
        try:
            with pytest.raises(error, match=match) as caught:
                unlock(file, token, "doctor", actor="mara", clock=practice.clock)
        finally:
            file.close()
    assert caught.value.exit_code == 7
    assert "unwrap_keyset" not in token.calls
    assert "put_object" not in token.calls
    assert practice.path.read_bytes() == before


def accepted(practice: Practice) -> WatchedToken:
    with WatchedToken.open(practice.uri) as token:
        file = open_at(practice.path)
        log.verify(unlock(file, token, "doctor", actor="mara", clock=practice.clock))
        file.close()
    return token


def trust_of(path: Path) -> dict[tuple[str, str], Any]:
    return {(kind, name): json.loads(value) for kind, name, value in rows(path, "trust")}


def append_forged(path: Path, stored: bytes, forger: SoftToken, signer: bytes) -> None:
    """One more entry after the file's newest: its hash follows, its trust digest is that of the rows."""
    builder = VaultBuilder(vault=bytes.fromhex(status_of_file(path).vault_id))
    builder.trust = {(kind, name): value for kind, name, value in rows(path, "trust")}
    before, trust = rows(path, "entries")[-1], builder.trust_digest()
    sequence = before[0] + 1
    hash_ = sha256(ctx("medcrypt/audit/entry", before[2], u64(sequence), trust, signer, stored))
    signature = forger.sign(ctx("medcrypt/head", builder.vault, u64(sequence), hash_, trust))
    with by_hand(path) as db:
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", (sequence, stored, hash_, trust, signer, signature))


@pytest.fixture
def victim(practice: Practice) -> Practice:
    with practice.open() as vault:
        practice.pair(vault, "EXP-1")
        vault.encrypt("EXP-1", "x")
    fold(practice.path)
    return practice


def test_the_genuine_vault_costs_one_unwrap(victim: Practice) -> None:
    calls = accepted(victim).calls
    assert calls.count("unwrap_keyset") == 1
    assert calls.index("read_objects") < calls.index("unwrap_keyset")


class TestWholeVaults:
    """Built by the spec, every hash and signature right, under keys of the forger's own."""

    def forge(
        self, victim: Practice, *, token_row: SoftToken | None, keyset: Callable[[Any], Any] = lambda true: true
    ) -> tuple[VaultBuilder, SoftToken]:
        true = trust_of(victim.path)
        forger = SoftToken("doctor")
        builder = VaultBuilder(vault=vault_id(victim))
        builder.set_trust("vault", "", true["vault", ""])
        builder.set_trust("keyset", "1:doctor", keyset(true["keyset", "1:doctor"]))
        builder.set_trust("month", "2026-11", true["month", "2026-11"])
        if token_row is None:  # the true token's row, which the forger's log introduces
            builder.set_trust("token", "doctor", true["token", "doctor"])
        builder.introduce(forger, forger, row=token_row is not None)
        if token_row is not None:
            mine = json.loads(builder.trust["token", "doctor"])
            builder.set_trust("token", "doctor", mine | {"uri": true["token", "doctor"]["uri"]})
        builder.sealed(forger)
        return builder, forger

    def test_own_keys_and_the_true_keyset(self, victim: Practice) -> None:
        builder, _ = self.forge(victim, token_row=SoftToken("doctor"))
        builder.write(victim.path)
        refused(victim, VaultRolledBack, "does not hold the audit key")

    def test_own_keys_and_an_own_keyset(self, victim: Practice) -> None:
        builder, _ = self.forge(
            victim, token_row=SoftToken("doctor"), keyset=lambda true: true | {"wrapped": os.urandom(120).hex()}
        )
        builder.write(victim.path)
        refused(victim, VaultRolledBack, "does not hold the audit key")

    def test_own_log_and_the_true_tokens_row(self, victim: Practice) -> None:
        builder, _ = self.forge(victim, token_row=None)
        builder.write(victim.path)
        refused(victim, VaultRolledBack)

    def test_longer_than_the_true_one(self, victim: Practice) -> None:
        builder, forger = self.forge(victim, token_row=None)
        for _ in range(20):
            builder.sealed(forger)
        builder.write(victim.path)
        refused(victim, VaultRolledBack, "departs")

    @pytest.mark.parametrize(("claims", "why"), [("token", "does not verify"), ("forger", "unknown key")])
    def test_the_true_log_continued_by_the_forger(self, victim: Practice, claims: str, why: str) -> None:
        """In the true token's name, and in the forger's own."""
        forger, true = SoftToken("x"), rows(victim.path, "entries")[-1][4]
        stored = b"\x01\x00\x00\x00\x01" + os.urandom(60)
        append_forged(victim.path, stored, forger, true if claims == "token" else forger.id)
        refused(victim, AuditBroken, why)

    def test_an_introduction_appended_by_the_forger(self, victim: Practice) -> None:
        forger, builder = SoftToken("intruder"), VaultBuilder()
        stored = builder.introduce(forger, forger).stored
        with by_hand(victim.path) as db:
            db.execute("INSERT INTO trust VALUES ('token', 'intruder', ?)", (builder.trust["token", "intruder"],))
        append_forged(victim.path, stored, forger, forger.id)
        refused(victim, AuditBroken, "unknown key")

    def test_another_vault_of_the_same_token_under_this_ones_id(self, victim: Practice) -> None:
        """Made with the same token, so its signatures are right: but not for this vault's id, nor its KEK."""
        other = Practice(victim.path.with_name("other.db"), victim.uri, victim.clock)
        other.create().close()
        mine = trust_of(other.path)["vault", ""]
        with by_hand(other.path) as db:
            changed = canonical(mine | {"id": vault_id(victim).hex()})
            db.execute("UPDATE trust SET value = ? WHERE kind = 'vault'", (changed,))
        victim.path = other.path
        refused(victim, VaultRolledBack)


class TestTrustState:
    """One row changed, and not one signature made."""

    @pytest.mark.parametrize(("kind", "name", "change"), [
        ("policy", "", {"grace_days": 365}),
        ("policy", "", {"retain_months": 0}),
        ("vault", "", {"log_key": 2}),
        ("vault", "", {"generation": 2}),
        ("vault", "", {"created": "2020-01-01T00:00:00Z"}),
        ("month", "2026-11", {"opened": "2020-01-01T00:00:00Z"}),
        ("token", "doctor", {"label": "another"}),
        ("token", "doctor", {"profile": "another"}),
        ("keyset", "1:doctor", {"wrapped": "00" * 120}),
        ("keyset", "1:doctor", {"token": "00" * 32}),
        ("keyset", "1:doctor", {"kek": 2}),
        ("month", "2026-11", {"shredded": "2026-11-30T00:00:00Z"}),
    ])  # fmt: skip
    def test_a_value_changed(self, victim: Practice, kind: str, name: str, change: dict[str, object]) -> None:
        value = canonical(trust_of(victim.path)[kind, name] | change)
        with by_hand(victim.path) as db:
            db.execute("UPDATE trust SET value = ? WHERE kind = ? AND name = ?", (value, kind, name))
        refused(victim, VaultError, "trust state|keyset on record")

    @pytest.mark.parametrize("row", [
        ("month", "2026-12", {"opened": "2026-12-01T00:00:00Z", "shredded": ""}),
        ("month", "2099-12", {"opened": "2026-12-01T00:00:00Z", "shredded": ""}),
        ("keyset", "2:doctor", {"kek": 2, "token": "00" * 32, "wrapped": "00" * 120}),
    ])  # fmt: skip
    def test_a_row_added(self, victim: Practice, row: tuple[str, str, object]) -> None:
        with by_hand(victim.path) as db:
            db.execute("INSERT INTO trust VALUES (?, ?, ?)", (row[0], row[1], canonical(row[2])))
        refused(victim, AuditBroken, "trust state")

    def test_the_tokens_row_replaced_by_ones_own(self, victim: Practice) -> None:
        forger, true = SoftToken("doctor"), trust_of(victim.path)["token", "doctor"]
        mine = canonical(true | {"audit_key": forger.spki.hex(), "id": forger.id.hex()})
        with by_hand(victim.path) as db:
            db.execute("UPDATE trust SET value = ? WHERE kind = 'token'", (mine,))
        refused(victim, VaultRolledBack, "does not hold the audit key")

    def test_a_second_token_registered(self, victim: Practice) -> None:
        forger, true = SoftToken("zz"), trust_of(victim.path)["token", "doctor"]
        mine = canonical(true | {"audit_key": forger.spki.hex(), "id": forger.id.hex()})
        with by_hand(victim.path) as db:
            db.execute("INSERT INTO trust VALUES ('token', 'zz', ?)", (mine,))
        refused(victim, AuditBroken, "trust state")

    @pytest.mark.parametrize("while_open", ["encrypt", "rotate"])
    def test_exchanged_while_a_session_is_open(self, victim: Practice, while_open: str) -> None:
        """A change of the trust state would sign for rows that nobody verified; other entries keep the old digest."""
        with victim.open() as vault:
            with by_hand(victim.path) as db:
                db.execute("UPDATE trust SET value = CAST(replace(value, ':7,', ':70,') AS BLOB) WHERE kind = 'policy'")
            if while_open == "encrypt":
                vault.encrypt("EXP-1", "x")
            else:
                victim.clock.set("2026-12-01")
                with pytest.raises(AuditBroken, match="exchanged"):
                    vault.months.open()
        refused(victim, AuditBroken, "trust state")


class TestAnchor:
    """What somebody can do who has the token's PIN as well, and what somebody with another token can."""

    def objects(self, practice: Practice) -> list[bytes]:
        with WatchedToken.open(practice.uri) as token:
            return list(token.read_objects(anchor_name(vault_id(practice))))

    def put_beside(self, practice: Practice, value: bytes) -> None:
        """A second object of that name, as another PKCS#11 program would make it."""
        import pkcs11

        with WatchedToken.open(practice.uri) as token:
            token._session.create_object({
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA,
                pkcs11.Attribute.LABEL: anchor_name(vault_id(practice)),
                pkcs11.Attribute.APPLICATION: "medcrypt", pkcs11.Attribute.PRIVATE: True,
                pkcs11.Attribute.TOKEN: True, pkcs11.Attribute.VALUE: value,
            })  # fmt: skip

    def replace(self, practice: Practice, value: bytes | None) -> None:
        with WatchedToken.open(practice.uri) as token:
            token.destroy(anchor_name(vault_id(practice)))
        if value is not None:
            self.put_beside(practice, value)

    def test_deleted(self, victim: Practice) -> None:
        self.replace(victim, None)
        refused(victim, VaultRolledBack, "holds no anchor")

    @pytest.mark.parametrize("value", [b"", b"\x00" * 4, b"\xff" * 200, b"{}"])
    def test_replaced_by_anything(self, victim: Practice, value: bytes) -> None:
        self.replace(victim, value)
        refused(victim, VaultRolledBack, "holds no anchor")

    @pytest.mark.parametrize("at", [5, 60, -1])
    def test_one_bit_of_it(self, victim: Practice, at: int) -> None:
        (value,) = self.objects(victim)
        changed = bytearray(value)
        changed[at] ^= 1
        self.replace(victim, bytes(changed))
        refused(victim, VaultRolledBack, "holds no anchor")

    def test_of_another_vault_on_the_same_token(self, victim: Practice) -> None:
        other = Practice(victim.path.with_name("other.db"), victim.uri, victim.clock)
        other.create().close()
        self.replace(victim, self.objects(other)[0])
        refused(victim, VaultRolledBack, "holds no anchor")

    def test_of_another_token(self, victim: Practice, softhsm: SoftHsm) -> None:
        other = Practice(victim.path.with_name("other.db"), softhsm.make_token(), victim.clock)
        other.create().close()
        self.replace(victim, self.objects(other)[0])
        refused(victim, VaultRolledBack, "holds no anchor")

    def test_of_somebodys_own_key_in_this_tokens_name(self, victim: Practice) -> None:
        (value,) = self.objects(victim)
        data = value[4 : 4 + int.from_bytes(value[:4], "big")]
        forged = len(data).to_bytes(4, "big") + data + SoftToken("x").sign(ctx("medcrypt/anchor", data))
        self.replace(victim, forged)
        refused(victim, VaultRolledBack, "holds no anchor")

    def test_an_older_one_beside_the_newer(self, victim: Practice) -> None:
        old_file, (old,) = victim.copy("old.db"), self.objects(victim)
        with victim.open() as vault:
            vault.encrypt("EXP-1", "y")
            vault.log.anchor()
        self.put_beside(victim, old)
        assert len(self.objects(victim)) == 2
        victim.path = old_file
        refused(victim, VaultRolledBack, "older than the token remembers")

    def test_an_older_one_in_its_place_is_the_limit_of_what_a_token_can_know(self, victim: Practice) -> None:
        """Token, PIN and file together: docs/spec/audit.md leaves this to the checkpoints kept elsewhere."""
        old_file, (old,) = victim.copy("old.db"), self.objects(victim)
        with victim.open() as vault:
            vault.encrypt("EXP-1", "y")
            vault.log.anchor()
        self.replace(victim, old)
        victim.path = old_file
        accepted(victim)

    def test_nothing_is_restored_without_one(self, victim: Practice) -> None:
        self.replace(victim, None)
        before = victim.path.read_bytes()
        with pytest.raises(VaultRolledBack):
            victim.restore(victim.path)
        assert victim.path.read_bytes() == before


class TestRestoreEntries:
    """The one entry that lets a file depart from the anchor must be the token's own."""

    def departed(self, victim: Practice) -> tuple[Path, tuple[Any, ...]]:
        """An older copy of the file, and the newest entry of the true one, which the anchor names."""
        old = victim.copy("old.db")
        with victim.open() as vault:
            vault.encrypt("EXP-1", "y")
            vault.log.anchor()
        return old, rows(victim.path, "entries")[-1]

    @pytest.mark.parametrize("claims", ["forger", "token"])
    def test_signed_by_another_key(self, victim: Practice, claims: str) -> None:
        old, abandoned = self.departed(victim)
        forger = SoftToken("doctor")
        detail = {"abandoned_hash": abandoned[2].hex(), "abandoned_sequence": abandoned[0]}
        stored = VaultBuilder().clear("vault.restore", detail, forger).stored
        append_forged(old, stored, forger, forger.id if claims == "forger" else abandoned[4])
        victim.path = old
        refused(victim, VaultRolledBack if claims == "forger" else AuditBroken)

    def test_a_true_one_of_an_earlier_restore_names_another_anchor(self, victim: Practice) -> None:
        saved = victim.copy("saved.db")
        with victim.open() as vault:
            vault.encrypt("EXP-1", "y")
            vault.log.anchor()
        victim.restore(saved).close()
        restored = victim.copy("restored.db")
        with victim.open() as vault:
            vault.encrypt("EXP-1", "z")
            vault.log.anchor()
        victim.path = restored
        refused(victim, VaultRolledBack, "older than the token remembers")


class TestKeysOnTheToken:
    @pytest.mark.parametrize("name", [audit_key_name, lambda vault: kek_name(vault, 1)])
    def test_destroyed_is_an_error_of_ours(self, victim: Practice, name: Callable[[bytes], str]) -> None:
        with WatchedToken.open(victim.uri) as token:
            token.destroy(name(vault_id(victim)))
        with pytest.raises((VaultError, TokenUnfit)):
            victim.open()

    def test_another_kek_under_its_name_opens_nothing(self, victim: Practice) -> None:
        with WatchedToken.open(victim.uri) as token:
            token.destroy(kek_name(vault_id(victim), 1))
            token.make_kek(kek_name(vault_id(victim), 1), "aes-kw")
        with pytest.raises(MedcryptError):
            victim.open()

    def test_two_sessions_of_two_vaults_do_not_mix(self, victim: Practice) -> None:
        other = Practice(victim.path.with_name("other.db"), victim.uri, victim.clock)
        other.create().close()
        with other.open() as vault:
            other.pair(vault, "EXP-1")
            (text,) = vault.encrypt("EXP-1", "x")
        with victim.open() as vault:
            assert statuses(vault.decrypt(text)) == ["unknown-pairing"]


def test_a_vault_stays_usable_behind_every_refusal(victim: Practice) -> None:
    whole = victim.path.read_bytes()
    with by_hand(victim.path) as db:
        db.execute("DELETE FROM trust WHERE kind = 'policy'")
    with pytest.raises(VaultError):
        victim.open()
    victim.path.write_bytes(whole)
    with Vault.open(victim.path, pin=pin, clock=victim.clock) as vault:
        assert unlocked(vault).log.sequence == len(rows(victim.path, "entries"))
        vault.log.verify()
