"""What only PKCS#11 can show of two programs on one token: handles that are found, and gone before they are used."""

from __future__ import annotations

import subprocess
import sys

from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import open_token
from tests.support.softhsm import USER_PIN, SoftHsm

AUDIT = "medcrypt audit 00"
ANCHOR = "medcrypt anchor 00"


def pin(info: TokenInfo) -> str:
    return USER_PIN


def test_objects_that_another_program_destroys_meanwhile_are_not_found(softhsm: SoftHsm) -> None:
    """Between its being found and being looked at, an object can go: another command's re-key takes old keys away."""
    uri = softhsm.make_token()
    make_and_destroy = (
        "from medcrypt_hsm.tokens.access import open_token\n"
        f"with open_token({uri!r}, lambda info: {USER_PIN!r}) as token:\n"
        "    print('ready', flush=True)\n"
        "    for number in range(400):\n"
        f"        token.put_object({ANCHOR!r}, b'x' * 16 + number.to_bytes(2, 'big'))\n"
        f"    token.make_signing_key({AUDIT!r})\n"
    )
    with (
        open_token(uri, pin) as token,
        subprocess.Popen([sys.executable, "-c", make_and_destroy], stdout=subprocess.PIPE, text=True) as other,
    ):
        token.put_object(ANCHOR, b"first")
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        looked = 0
        while other.poll() is None:
            assert token.read_objects(ANCHOR)
            assert set(token.names()) <= {ANCHOR, AUDIT}
            looked += 1
    assert other.returncode == 0
    assert looked > 10
