"""PC/SC: one connection for this program alone, reset on leaving; and a service that refuses."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from smartcard import scard

from medcrypt_hsm.tokens.yubikey import pcsc
from tests.support.ready_yubikey import AUDIT, PIN, SELECT_PIV, OtherProgram, opened, ready
from tests.support.yubikey import YubiKeys


def test_a_service_that_refuses_this_user() -> None:
    """polkit asks who sits at the machine; the tests' own pcscd has none, so only its answer is given here."""
    from smartcard import scard

    error = pcsc.connecting(pcsc.PcscError(scard.SCARD_W_SECURITY_VIOLATION), "the list of readers")
    assert "may not use the smart card service" in error.message
    assert "polkit" in error.hint


def test_nobody_else_has_the_card_while_its_pin_is_given(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
        _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
        for mode in (scard.SCARD_SHARE_EXCLUSIVE, scard.SCARD_SHARE_SHARED):
            result, *_ = scard.SCardConnect(context, key.reader_name, mode, scard.SCARD_PROTOCOL_T1)
            assert result == scard.SCARD_E_SHARING_VIOLATION
        scard.SCardReleaseContext(context)
        assert len(token.sign(AUDIT, b"head")) == 64
    with OtherProgram(key, "shared") as other:  # as soon as it is let go
        assert other.send(SELECT_PIV).endswith("9000")


@pytest.mark.parametrize("ending", ["left", "killed"])
def test_no_other_program_inherits_the_pin(yubikey: YubiKeys, ending: str) -> None:
    """Against this, a program that leaves the card as it is: the next one can sign."""
    key = ready(yubikey())
    with opened(key) as token:
        token.make_signing_key(AUDIT)
    if ending == "left":
        with opened(key) as token:
            token.sign(AUDIT, b"head")
    else:
        program = (
            "from tests.support.ready_yubikey import *; import sys, time; key = open_yubikey(int(sys.argv[1]), pin, "
        )
        program += (
            "last_try=False, touch=no_touch); key.sign(AUDIT, b'head'); print('open', flush=True); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", program, str(key.serial)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    sign = bytes.fromhex("00871182267c24 8200 8120".replace(" ", "")) + bytes(32)
    with OtherProgram(key, select=False) as other:
        assert not other.send(sign).endswith("9000")
        other.send(SELECT_PIV)
        assert other.send(sign) == "6982"
        verify = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
        assert other.send(verify) == "9000"
        assert other.send(sign).endswith("9000")  # the same command, once the PIN is given
