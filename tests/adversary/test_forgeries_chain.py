"""What the walk along the chain refuses at unlock, one check each: nothing else would have found these files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import pytest

from medcrypt_hsm.errors import AuditBroken, VaultRolledBack
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.vault.anchoring import put_anchor
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.store.rows import EntryRow
from tests.support.added_token import vault_id
from tests.support.practice import Practice, pin, unlocked
from tests.support.softhsm import SoftHsm
from tests.support.store import by_hand, rows
from tests.support.vault_builder import SoftToken, VaultBuilder, canonical, ctx, sha256, u64

RESTORED: dict[str, object] = {"abandoned_sequence": 1, "abandoned_hash": "00" * 32}


@pytest.fixture(scope="module")
def spare_uri(softhsm: SoftHsm, token_uri: str) -> str:
    return softhsm.make_token()


@pytest.fixture
def two(practice: Practice, spare_uri: str) -> Practice:
    practice.add("spare", spare_uri)
    return practice


class Signs(Protocol):
    def sign(self, data: bytes) -> bytes: ...


@dataclass
class AuditKey:
    """The true one of this vault, on an open token."""

    token: Token
    vault: bytes

    def sign(self, data: bytes) -> bytes:
        return self.token.sign(audit_key_name(self.vault), data)


class Continued:
    """The file's log continued by hand, in memory until ``write``. ``signer`` is who an entry says has signed it."""

    def __init__(self, practice: Practice) -> None:
        self.path = practice.path
        self.builder = VaultBuilder(vault=vault_id(practice))
        self.builder.trust = {(kind, name): value for kind, name, value in rows(practice.path, "trust")}
        self.ids = {token.name: token.id for token in practice.status().tokens}
        self._before: Any = rows(practice.path, "entries")[-1]
        self._new: list[Any] = []

    def append(self, stored: bytes, by: Signs, signer: bytes) -> None:
        sequence, trust = self._before[0] + 1, self.builder.trust_digest()
        hash_ = sha256(ctx("medcrypt/audit/entry", self._before[2], u64(sequence), trust, signer, stored))
        signature = by.sign(ctx("medcrypt/head", self.builder.vault, u64(sequence), hash_, trust))
        self._before = (sequence, stored, hash_, trust, signer, signature)
        self._new.append(self._before)

    def write(self) -> None:
        trust = [(*key, value) for key, value in self.builder.trust.items()]
        with by_hand(self.path) as db:
            db.executemany("INSERT OR REPLACE INTO trust VALUES (?, ?, ?)", trust)
            db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", self._new)


def later(row: Any, **members: object) -> bytes:
    """An entry of a builder's, of a time after everything in the practice's log."""
    return b"\0" + canonical(json.loads(row.stored[1:]) | {"time": "2026-11-22T12:00:00Z"} | members)


def test_an_introduction_that_nobody_signed(practice: Practice) -> None:
    """With the file alone: a key of one's own is introduced in the doctor's name, and signs the newest head.

    That head is good if the introduction counts, so the introduction's own head is looked at.
    """
    intruder, log, made = SoftToken("intruder"), Continued(practice), VaultBuilder()
    log.builder.add_token_row(intruder)
    introduction = later(made.introduce(intruder, intruder), token="doctor")
    log.append(introduction, intruder, log.ids["doctor"])
    log.append(later(made.clear("vault.restore", RESTORED, intruder)), intruder, intruder.id)
    log.write()
    at = rows(practice.path, "entries")[-2][0]
    with pytest.raises(AuditBroken, match=f"the head of audit entry {at} does not verify"):
        practice.open()


def test_a_log_that_begins_with_another_key_than_the_token_remembers(practice: Practice) -> None:
    """A token whose anchor is of the very beginning remembers no entry, but it remembers its key.

    Everything in the file is the forger's, but for the token's row and its keyset.
    """
    forger, genuine = SoftToken("forger"), {(k, n): v for k, n, v in rows(practice.path, "trust")}
    (doctor,) = practice.status().tokens
    beginning = Chain(vault_id(practice), 0, entries.genesis(vault_id(practice)), {doctor.id: doctor.audit_key})
    with open_token(practice.uri, pin) as token:
        put_anchor(token, doctor.id, beginning, practice.clock())
    practice.open().close()  # the genuine file is accepted by this anchor
    with open_token(practice.uri, pin) as token:
        put_anchor(token, doctor.id, beginning, practice.clock())

    built = VaultBuilder(vault=vault_id(practice))
    built.trust = genuine
    built.introduce(forger, forger, row=False)
    built.clear("vault.restore", RESTORED, forger)
    built.write(practice.path)
    with pytest.raises(AuditBroken, match="begins with another key than the token remembers"):
        practice.open()


def test_a_restore_by_another_token_that_names_this_ones_anchor_too(two: Practice) -> None:
    """Both tokens remember the same head. The spare's restore abandons it for the spare, and not for the doctor."""
    saved = two.path.with_name("saved.db")
    with two.open(token="doctor") as vault:
        vault.backup(saved)
    with two.open(token="doctor") as vault:
        vault.log.entries()
    for name in ("spare", "doctor"):
        with two.open(token=name) as vault:
            unlocked(vault).write_anchor()
    two.restore(saved, token="spare").close()
    with pytest.raises(VaultRolledBack, match="departs"):
        two.open(token="doctor")


class TestFromTheAnchor:
    """Signed by the spare token's true key, after the doctor's anchor: unlock does not wait for a verification."""

    def sign(self, two: Practice, uri: str, stored: bytes) -> None:
        log = Continued(two)
        with open_token(uri, pin) as token:
            log.append(stored, AuditKey(token, vault_id(two)), log.ids["spare"])
        log.write()

    def test_a_clear_entry_in_another_tokens_name(self, two: Practice, spare_uri: str) -> None:
        restore = VaultBuilder().clear("vault.restore", RESTORED, SoftToken("spare"))
        self.sign(two, spare_uri, later(restore, token="doctor"))
        with pytest.raises(AuditBroken, match="names token 'doctor', but 'spare' signed it"):
            two.open(token="doctor")

    def test_a_name_that_is_introduced_again(self, two: Practice, spare_uri: str) -> None:
        built, again = VaultBuilder(), SoftToken("doctor")
        stored = later(built.introduce(again, SoftToken("spare")))
        self.sign(two, spare_uri, stored)
        with pytest.raises(AuditBroken, match="introduces a key or a name twice"):
            two.open(token="doctor")

    def test_a_time_before_another_clear_entrys(self, two: Practice, spare_uri: str) -> None:
        restore = VaultBuilder().clear("vault.restore", RESTORED, SoftToken("spare"))
        self.sign(two, spare_uri, later(restore))
        self.sign(two, spare_uri, later(restore, time="2026-11-22T11:59:59Z"))
        with pytest.raises(AuditBroken, match="is older than the one before it"):
            two.open(token="doctor")


class TestIntroductions:
    """The chain by itself refuses them: an unlock does not compare an introduction with the token's row."""

    HPKE = MappingProxyType({"profile": "p256-hpke", "kek": SoftToken("kek").spki.hex()})

    def extend(self, **changed: object) -> Chain:
        doctor, spare, built = SoftToken("doctor"), SoftToken("spare"), VaultBuilder()
        told = {name: value(spare) if callable(value) else value for name, value in changed.items()}
        rows = [built.introduce(doctor, doctor), built.introduce(spare, doctor, **told)]
        chain = Chain(built.vault, 0, entries.genesis(built.vault), {})
        for row in rows:
            chain.extend(EntryRow(*(getattr(row, column) for column in EntryRow._fields)), check_head=True)
        return chain

    @pytest.mark.parametrize("honest", [{}, HPKE, {"attestation": "device-attested"}, {"writes": []}])
    def test_honest(self, honest: dict[str, object]) -> None:
        assert sorted(self.extend(**honest).names.values()) == ["doctor", "spare"]

    @pytest.mark.parametrize("changed", [
        {"audit_key": lambda spare: spare.spki.hex().upper()}, {"audit_key": lambda spare: spare.spki.hex() + " "},
        {"audit_key": 7}, {"audit_key": "zz"}, {"audit_key": ""}, {"id": lambda spare: spare.id.hex().upper()},
        {"id": "00" * 32}, {"name": 7}, {"serial": 1}, {"model": None}, {"kek": None}, {"kek": "00"},
        {"profile": "p256-hpke"}, {"profile": "p256-hpke", "kek": "00" * 91}, HPKE | {"kek": HPKE["kek"].upper()},
        {"profile": "rot13"}, {"profile": ["aes-kw"]}, {"attestation": "excellent"},
    ])  # fmt: skip
    def test_of_no_usable_token(self, changed: dict[str, object]) -> None:
        with pytest.raises(AuditBroken, match="audit entry 2 introduces no usable token"):
            self.extend(**changed)
