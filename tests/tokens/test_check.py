"""A token proves a profile by real operations: what it lacks, and what went wrong."""

from __future__ import annotations

from pathlib import Path

from medcrypt_hsm.tokens import P256_HPKE
from tests.support.command_line import CommandLine
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
