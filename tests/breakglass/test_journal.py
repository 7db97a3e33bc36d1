"""The journal on a custodian's own machine: signed lines that name each other, before a statement leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from medcrypt_hsm.breakglass.approve import sign
from medcrypt_hsm.breakglass.journal import Journal
from medcrypt_hsm.crypto.p256 import fingerprint, verify_signature
from medcrypt_hsm.errors import Failed
from medcrypt_hsm.notation import ctx
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.audit.statements import Drill, Signed
from tests.support.practice import pin
from tests.support.softhsm import SoftHsm

KEY = "medcrypt approval 00 00"
VAULT, OTHER = bytes(16), b"\1" * 16
TIME = "2026-11-22T12:00:00Z"


@pytest.fixture(scope="module")
def token(softhsm: SoftHsm) -> Iterator[Token]:
    with open_token(softhsm.make_token(), pin) as token:
        token.make_signing_key(KEY)
        yield token


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "home" / "journal")


def enter(journal: Journal, token: Token, history: int = 0, vault: bytes = VAULT) -> Signed[Drill]:
    told = Drill(vault, bytes(6), "ana", 1, bytes(32), "Ana Ejemplo", TIME, sha256(b"").digest())
    signed = sign(token, KEY, told)
    journal.enter(token, KEY, signed, "breakglass.drill", "Ana Ejemplo", TIME, history)
    return signed


def test_each_line_is_signed_and_names_the_one_before(journal: Journal, token: Token) -> None:
    statements = [enter(journal, token, history) for history in (3, 5)]
    first, second = journal.path.read_bytes().splitlines()
    entries = []
    for line in (first, second):
        body, _, signature = line.rpartition(b" ")
        verify_signature(token.public_key(KEY), bytes.fromhex(signature.decode()), ctx("medcrypt/journal", body))
        entries.append(json.loads(body))
    assert entries[1] == {
        "action": "breakglass.drill", "actor": "Ana Ejemplo", "ceremony": "00" * 6, "history": 5,
        "previous": sha256(first).hexdigest(), "sequence": 2, "signer": fingerprint(token.public_key(KEY)).hex(),
        "statement": statements[1].id.hex(), "time": TIME, "vault": VAULT.hex(),
    }  # fmt: skip
    assert (entries[0]["sequence"], entries[0]["previous"]) == (1, sha256(b"").hexdigest())
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_line_that_was_cut_off_stays_and_the_next_one_names_it(journal: Journal, token: Token) -> None:
    enter(journal, token)
    cut = journal.path.read_bytes()[:-40]
    journal.path.write_bytes(cut)
    enter(journal, token)
    assert journal.path.read_bytes().startswith(cut + b"\n")
    assert sha256(cut).hexdigest().encode() in journal.path.read_bytes().splitlines()[-1]


def test_the_highest_entry_is_of_one_vault_and_anything_may_stand_between(journal: Journal, token: Token) -> None:
    assert journal.highest(VAULT) == 0, "nothing was written yet"
    enter(journal, token, 7)
    enter(journal, token, 9, vault=OTHER)
    with journal.path.open("ab") as file:
        file.write(b"\xff no line of ours\n[1] x\n")
    enter(journal, token, 4)
    assert (journal.highest(VAULT), journal.highest(OTHER), journal.highest(b"\2" * 16)) == (7, 9, 0)


def test_where_no_line_can_be_written_nothing_may_leave(journal: Journal, token: Token, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"somebody's")
    journal.path.parent.mkdir()
    journal.path.symlink_to(elsewhere)
    with pytest.raises(Failed, match=rf"the journal {journal.path} cannot be written") as failed:
        enter(journal, token)
    assert failed.value.hint == "make room, or see who owns it: nothing is approved that is not entered"
    assert elsewhere.read_bytes() == b"somebody's"
