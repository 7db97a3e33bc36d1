"""A YubiKey that is made ready for vaults, for tests; and one small program that holds a card as others do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from medcrypt_hsm.tokens import TokenInfo, Touch, no_touch
from medcrypt_hsm.tokens.provision import initialize
from medcrypt_hsm.tokens.yubikey.token import YubikeyToken, open_yubikey
from tests.support.yubikey import VirtualYubiKey

PIN, PUK, WRONG = "424242", "87654321", "999999"
KEK, OTHER, AUDIT, ANCHOR = "medcrypt kek 00 1", "medcrypt kek 00 2", "medcrypt audit 00", "medcrypt anchor 00"
YKMAN = str(Path(sys.executable).parent / "ykman")
SELECT_PIV = bytes.fromhex("00a4040005a000000308")

# Another program with the card: it says so, and keeps it until its stdin ends.
_HOLDER = """
import sys
from smartcard import scard
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
mode = scard.SCARD_SHARE_EXCLUSIVE if sys.argv[2] == "exclusive" else scard.SCARD_SHARE_SHARED
result, card, protocol = scard.SCardConnect(context, sys.argv[1], mode, scard.SCARD_PROTOCOL_T1)
assert result == scard.SCARD_S_SUCCESS, scard.SCardGetErrorMessage(result)
for line in sys.stdin:
    result, answer = scard.SCardTransmit(card, scard.SCARD_PCI_T1, list(bytes.fromhex(line)))
    print(bytes(byte & 0xFF for byte in answer).hex(), flush=True)
"""


def ready(key: VirtualYubiKey) -> VirtualYubiKey:
    """Factory state to PIN and PUK of these tests."""
    initialize(key.uri, None, PUK, PIN)
    return key


def pin(info: TokenInfo) -> str:
    return PIN


def never(info: TokenInfo) -> str:
    raise AssertionError("asked for a PIN")


def opened(key: VirtualYubiKey, *, touch: Touch = no_touch, **options: Any) -> YubikeyToken:
    return open_yubikey(key.serial, pin, last_try=False, touch=touch, **options)


def some_key() -> bytes:
    """A P-256 private key, PKCS #8 in DER, as the virtual card keeps them."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class OtherProgram:
    """Another process that is connected to the card, and sends it what it is told to."""

    def __init__(self, key: VirtualYubiKey, mode: str = "exclusive", *, select: bool = True) -> None:
        """``select``: the PIV application, anew; without it the card is as whoever had it left it."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, key.reader_name, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.id = self._process.pid
        self.send(SELECT_PIV if select else b"\0\0\0\0")  # either way it has the card when it answers

    def send(self, apdu: bytes) -> str:
        """The answer, in hex."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(apdu.hex() + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> OtherProgram:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()


class Watched:
    """A ``Touch`` that counts."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, info: TokenInfo) -> AbstractContextManager[object]:
        return self._entered()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        self.asked += 1
        yield
