"""Outside witnesses of a vault's keys on a YubiKey: ykman, yubico-piv-tool, and ykcs11 through pkcs11-tool.

They see both keys by their names, can sign with the audit key once they have the PIN, and cannot take either key out.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.tokens.names import audit_key_name, kek_name
from tests.project.test_virtual_yubikey_witness import piv_tool, run, ykcs11, ykcs11_module, ykman
from tests.support.ready_yubikey import PIN, pin, ready
from tests.support.yubikey import FIRMWARES, VirtualYubiKey

AUDIT_ID = "06"  # ykcs11's id of the retired slot 83

TAKE_OUT = """
import sys
import pkcs11
module, pin = sys.argv[1:]
token = next(pkcs11.lib(module).get_tokens())
with token.open(user_pin=pin) as session:
    for id in (b"\\x05", b"\\x06"):
        private = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, id=id)
        try:
            print(private[pkcs11.Attribute.VALUE].hex())
        except (pkcs11.PKCS11Error, NotImplementedError):
            print("refused")
"""


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_they_see_the_keys_use_the_audit_key_and_take_none_out(
    firmware: str, yubikey: Callable[..., VirtualYubiKey], tmp_path: Path
) -> None:
    ready(yubikey(firmware))
    uri = "yubikey:12345678"
    with Vault.create(tmp_path / "vault.db", token="doctor", uri=uri, pin=pin) as vault:
        vault_id = bytes.fromhex(vault.status().vault_id)
        public = tmp_path / "audit.pem"
        public.write_text(vault.log.public_keys()["doctor"])
    names = kek_name(vault_id, 1), audit_key_name(vault_id)

    shown = ykman("piv", "info")
    assert all(f"CN={name}" in shown for name in names)
    assert "Slot 82" in shown
    assert "Slot 83" in shown
    assert not any(f"Slot {slot}" in shown for slot in ("9A", "9C", "9D", "9E"))
    status = piv_tool("-a", "status")
    assert all(f"CN={name}" in status for name in names)

    login = ["--login", "--pin", PIN]
    objects = ykcs11("-O", *login)
    for number in ("1", "2"):
        private = objects[objects.index(f"Private key for Retired Key {number}") :]
        assert "sensitive, always sensitive, never extractable, local" in private[:400]
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"message")
    sign = ["--sign", "-m", "ECDSA-SHA256", "-f", "openssl", "--id", AUDIT_ID, "-i", message, "-o", signature]
    ykcs11(*sign, code=1)  # without the PIN
    ykcs11(*login, *sign)
    verified = run("openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, message)
    assert verified == "Verified OK\n"
    taken = subprocess.run([sys.executable, "-c", TAKE_OUT, str(ykcs11_module()), PIN], capture_output=True, text=True)
    assert taken.stdout == "refused\nrefused\n", taken.stderr
