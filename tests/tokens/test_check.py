"""A token proves a profile by real operations: what it lacks, and what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.errors import TokenRemoved
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, check
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.check import NO_PROFILE, check_token
from tests.support.command_line import CommandLine
from tests.support.pkcs11_token import directory_of
from tests.support.practice import pin
from tests.support.softhsm import SoftHsm


def test_a_token_that_lacks_aes_is_proven_for_p256(tmp_path: Path, own_softhsm: SoftHsm) -> None:
    uri = own_softhsm.make_token("card")
    with own_softhsm.conf.open("a") as conf:
        conf.write("slots.mechanisms = -CKM_AES_KEY_WRAP,CKM_AES_GCM,CKM_AES_KEY_GEN\n")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    report = CommandLine(home, own_softhsm)("--json", "token", "check", uri).json
    assert report["ok"]
    assert report["profile"] == P256_HPKE
    assert len(report["steps"]) == 8


def test_a_token_that_offers_no_profile_is_told_what_it_lacks_for_each(tmp_path: Path, own_softhsm: SoftHsm) -> None:
    uri = own_softhsm.make_token("card")
    with own_softhsm.conf.open("a") as conf:
        conf.write("slots.mechanisms = -CKM_EC_KEY_PAIR_GEN,CKM_EC_KEY_PAIR_GEN\n")  # the first of a list is not heeded
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    report = CommandLine(home, own_softhsm)("--json", "token", "check", uri, code=3).json
    assert (report["ok"], report["profile"]) == (False, NO_PROFILE)
    assert report["missing"] == [
        "for aes-kw: generating P-256 key pairs (CKM_EC_KEY_PAIR_GEN)",
        "for p256-hpke: generating P-256 key pairs (CKM_EC_KEY_PAIR_GEN)",
    ]
    assert [step["ok"] for step in report["steps"]] == [True, True]  # signing and a small object, tried all the same


def test_a_step_that_fails_has_words_and_the_others_go_on(softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token whose AES-GCM is another: told by the host's, which is right by the published vectors."""
    with open_token(softhsm.make_token(), pin) as token:
        monkeypatch.setattr(check, "_host_gcm", lambda *arguments: b"")
        report = check_token(token, profile=AES_KW)
    failed = {step.name: step.words for step in report.steps if not step.ok}
    assert failed == {"AES-GCM: seals and opens with associated data": "the result is not AES-256-GCM"}
    assert not report.ok
    assert len(report.steps) == 9


def test_a_token_that_is_taken_away_is_no_step(softhsm: SoftHsm, tmp_path: Path) -> None:
    with open_token(softhsm.make_token(), pin) as token:
        home, away = directory_of(softhsm, token.info.label), tmp_path / "away"

        def pulled_meanwhile(count: int) -> bytes:
            if home.exists():
                home.rename(away)
            return bytes(count)

        try:
            with pytest.raises(TokenRemoved):
                check_token(token, profile=AES_KW, random=pulled_meanwhile)
        finally:
            away.rename(home)
