"""What a cold ``decrypt`` costs a YubiKey: commands to the card, and operations with its private keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from tests.support.ready_yubikey import pin, ready
from tests.support.yubikey import FIRMWARES, YubiKeys

AUTHENTICATE, MANAGEMENT = 0x87, 0x9B


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_a_cold_decrypt_takes_twenty_commands_and_two_private_key_operations(
    yubikey: YubiKeys, tmp_path: Path, firmware: str
) -> None:
    key, path = ready(yubikey(firmware)), tmp_path / "practice" / "vault.db"
    path.parent.mkdir(mode=0o700)
    with Vault.create(path, token="doctor", uri=key.uri, pin=pin) as vault:
        vault.patients.add("EXP-1", unconfirmed=True)
        (text,) = vault.encrypt("EXP-1", "Tome 5 mg")
    key.log()
    with Vault.open(path, pin=pin) as vault:
        assert [message.text for message in vault.decrypt(text)] == ["Tome 5 mg"]
    sent = key.log()
    used = [entry for entry in sent if entry["ins"] == AUTHENTICATE and entry["p2"] != MANAGEMENT]
    assert len(sent) <= 20
    assert len(used) == 2  # the agreement that opens the keyset, the signature of the entry
