"""Taking a token away, and bringing tokens up to date that were away: with several tokens of both profiles."""

from __future__ import annotations

import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from medcrypt_hsm.errors import Refused, TokenAbsent, TokenUnfit, UsageError, VaultError, VaultForeign
from medcrypt_hsm.lifecycle.enroll import PROFILES, TokenOptions
from medcrypt_hsm.lifecycle.others import OtherTokens
from medcrypt_hsm.messages import wire
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.keyset import MESSAGE
from medcrypt_hsm.vault.unlock import open_keyset
from tests.support.added_token import on_token, vault_id
from tests.support.practice import Phone, Practice, pin, statuses
from tests.support.softhsm import SoftHsm, see_new_tokens
from tests.support.store import open_at

AES, P256 = PROFILES
EVERYBODY = OtherTokens(pin)
AWAY = OtherTokens(pin, without=("spare",))  # left out by name, which is as good as in a safe elsewhere
OCTOBER = Month.parse("2026-10")


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    return {name: softhsm.make_token() for name in ("doctor", "spare")}


def practice_with(tmp_path: Path, uris: dict[str, str], spare: str) -> tuple[Practice, str]:
    """Two tokens, two months, a patient, a text of October, and a backup from before anything else."""
    made = Practice(tmp_path / "practice" / "vault.db", uris["doctor"])
    made.clock.set("2026-10-20")
    with made.create() as vault:
        made.pair(vault, "EXP-1")
        (text,) = vault.encrypt("EXP-1", "octubre")
    made.add("spare", uris["spare"], options=TokenOptions(spare))
    made.clock.set("2026-11-20")
    with made.open(token="doctor") as vault:
        vault.months.open()
        vault.backup(tmp_path / "before.db")
    return made, text


def keks(practice: Practice, uri: str) -> list[str]:
    """The generations of this vault's root keys on the token."""
    prefix = f"medcrypt kek {vault_id(practice).hex()} "
    with open_token(uri, pin) as token:
        return [name.removeprefix(prefix) for name in token.names() if name.startswith(prefix)]


def read_copy(path: Path, uri: str, name: str, text: str) -> str:
    """As somebody would who has a copy of the file, a token and its PIN, and heeds nothing else. Raises KeyError."""
    (message,) = wire.find(text)
    assert isinstance(message, wire.MessageV2)
    file = open_at(path)
    with closing(file), open_token(uri, pin) as token:
        state = peek(file)
        keyset = open_keyset(token, state, state.tokens[name])
        row = file.record(MESSAGE, message.pairing, str(message.month))
        assert row is not None
        return keyset.aead_key(row).open(message.nonce, message.sealed, message.aad).decode()


@pytest.mark.parametrize("spare", PROFILES)
def test_every_token_that_is_there_gets_a_new_root_key(tmp_path: Path, uris: dict[str, str], spare: str) -> None:
    practice, text = practice_with(tmp_path, uris, spare)
    with practice.open(token="spare") as vault:
        vault.months.shred([OCTOBER], EVERYBODY)
    for name in ("doctor", "spare"):
        with practice.open(token=name) as vault:
            assert statuses(vault.decrypt(text, archive=True)) == ["shredded"]
            vault.encrypt("EXP-1", "con la nueva")
            assert vault.log.verify().keys == ("doctor", "spare")
        assert keks(practice, uris[name]) == ["2"]
        with pytest.raises(VaultError, match="before a re-key"):
            replace(practice, path=tmp_path / "elsewhere" / "vault.db").restore(tmp_path / "before.db", token=name)


@pytest.mark.parametrize("spare", PROFILES)
def test_a_token_that_was_away_still_opens_old_copies_until_it_is_synced(
    tmp_path: Path, uris: dict[str, str], spare: str
) -> None:
    practice, text = practice_with(tmp_path, uris, spare)
    with practice.open(token="doctor") as vault:
        made = vault.months.shred([OCTOBER], AWAY)
        assert "removed token" not in str(vault.status().problems)
        assert any("token spare still holds root key 1" in problem for problem in vault.status().problems)
    # The certificate says who can still open the backup, and that is so.
    assert [(b["name"], b["opened_by"]) for b in made.value["backups"]] == [("before.db", ["spare"])]
    assert read_copy(tmp_path / "before.db", uris["spare"], "spare", text) == "octubre"
    if spare == P256:
        with practice.open(token="spare") as vault:
            assert statuses(vault.decrypt(text, archive=True)) == ["shredded"]
    else:
        with pytest.raises(TokenUnfit, match="re-keyed"):
            practice.open(token="spare")

    with practice.open(token="doctor") as vault:
        synced = vault.tokens.sync(EVERYBODY)
        assert (synced.renewed, synced.destroyed, synced.left) == (("spare",), ("1:spare",), ())
        assert not [problem for problem in vault.status().problems if "spare" in problem]
    assert keks(practice, uris["spare"]) == ["2"]
    with practice.open(token="spare") as vault:
        vault.encrypt("EXP-1", "otra vez")
        assert vault.log.verify().keys == ("doctor", "spare")
    with pytest.raises(KeyError):
        read_copy(tmp_path / "before.db", uris["spare"], "spare", text)
    with pytest.raises(VaultError, match="before a re-key"):
        replace(practice, path=tmp_path / "elsewhere" / "vault.db").restore(tmp_path / "before.db", token="spare")


def test_a_p256_token_that_was_away_can_sync_itself(tmp_path: Path, uris: dict[str, str]) -> None:
    practice, _ = practice_with(tmp_path, uris, P256)
    with practice.open(token="doctor") as vault:
        vault.months.shred([OCTOBER], AWAY)
    with practice.open(token="spare") as vault:
        synced = vault.tokens.sync(OtherTokens(pin, without=("doctor",)))
        assert synced.renewed == ("spare",)
        vault.encrypt("EXP-1", "x")
        vault.log.verify()
    assert keks(practice, uris["spare"]) == ["2"]


@pytest.mark.parametrize("spare", PROFILES)
def test_a_token_that_is_there_is_removed_and_emptied(tmp_path: Path, uris: dict[str, str], spare: str) -> None:
    practice, text = practice_with(tmp_path, uris, spare)
    with practice.open(token="doctor") as vault:
        made = vault.tokens.remove("spare", EVERYBODY)
        assert made is not None
        assert all(token["destroyed"] for token in made.value["tokens"])
        assert not [p for p in vault.status().problems if "followed" in p or "root key" in p]
        assert vault.log.verify().keys == ("doctor",)
        assert [m.text for m in vault.decrypt(text, archive=True)] == ["octubre"]
    assert on_token(practice, uris["spare"]) == []
    with pytest.raises(VaultForeign, match="token spare was removed from this vault"):
        practice.open(token="spare")


@pytest.mark.parametrize("spare", PROFILES)
def test_a_token_that_is_lost_leaves_pairings_compromised_until_they_are_repaired(
    tmp_path: Path, uris: dict[str, str], spare: str
) -> None:
    practice, _ = practice_with(tmp_path, uris, spare)
    with practice.open(token="doctor") as vault:
        made = vault.tokens.remove("spare", AWAY)
        assert made is not None
        assert [b["opened_by"] for b in made.value["backups"] if b["name"] == "before.db"] == [["spare"]]
        assert [pairing.compromised for pairing in vault.patients.list()] == [True]
        assert any("1 pairing could be followed" in problem for problem in vault.status().problems)
    with pytest.raises(UsageError, match="this token was spare"):  # its old keys could not be shown to be gone any more
        practice.add("third", uris["spare"], using="doctor")
    with practice.open(token="doctor") as vault:
        new = vault.patients.repair("EXP-1")
        practice.clock.forward(minutes=1)
        vault.patients.confirm("EXP-1", Phone.scan(new.payload, practice.clock).check_code)
        assert [pairing.compromised for pairing in vault.patients.list()] == [False, False]
        assert not [problem for problem in vault.status().problems if "followed" in problem]
        vault.log.verify()
    # It is found again: what it holds of the vault goes, and the list with it.
    with practice.open(token="doctor") as vault:
        assert vault.tokens.sync(EVERYBODY).destroyed == ("1:spare",)
        assert not [problem for problem in vault.status().problems if "spare" in problem]
        vault.log.verify()
    assert on_token(practice, uris["spare"]) == []


def test_what_a_removed_token_signed_still_counts(tmp_path: Path, uris: dict[str, str]) -> None:
    practice, _ = practice_with(tmp_path, uris, AES)
    with practice.open(token="spare") as vault:
        vault.encrypt("EXP-1", "x")
    with practice.open(token="doctor") as vault:
        vault.tokens.remove("spare", EVERYBODY)
        vault.log.verify()
    practice.add("third", uris["spare"])
    with practice.open(token="third") as vault:
        assert vault.log.verify().keys == ("doctor", "third")


def test_the_last_token_and_the_one_in_use_stay(tmp_path: Path, uris: dict[str, str]) -> None:
    practice, _ = practice_with(tmp_path, uris, AES)
    with practice.open(token="doctor") as vault:
        with pytest.raises(Refused, match="in use"):
            vault.tokens.remove("doctor", EVERYBODY)
        vault.tokens.remove("spare", EVERYBODY)
        with pytest.raises(Refused, match="only token"):
            vault.tokens.remove("doctor", EVERYBODY)


def test_an_absent_aes_token_is_not_left_out_unsaid(tmp_path: Path, uris: dict[str, str], softhsm: SoftHsm) -> None:
    gone = softhsm.make_token()
    practice, _ = practice_with(tmp_path, uris | {"spare": gone}, AES)
    label = gone.partition("token=")[2].partition("?")[0]
    subprocess.run(["softhsm2-util", "--delete-token", "--token", label], check=True, capture_output=True)
    see_new_tokens()
    with practice.open(token="doctor") as vault:
        with pytest.raises(TokenAbsent, match="token spare is needed"):
            vault.months.shred([OCTOBER], EVERYBODY)
        vault.months.shred([OCTOBER], AWAY)
