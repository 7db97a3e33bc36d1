"""The virtual YubiKey in the reader of a real pcscd: pulled and put back, two at once, restarts, a late finger."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from smartcard import scard

from tests.support.checkout import ROOT
from tests.support.pcscd import Pcscd
from tests.support.yubikey import PIN, VirtualYubiKey

YubiKeys = Callable[..., VirtualYubiKey]

SELECT_PIV = bytes.fromhex("00a4040005a000000308")
VERIFY = bytes.fromhex("0020008008") + PIN.encode() + b"\xff\xff"
TRIES = bytes.fromhex("00200080")
WRONG_PIN = bytes.fromhex("0020008008") + b"99999999"
GET_SERIAL = bytes.fromhex("00f8000000")
OK, UNVERIFIED = b"\x90\x00", b"\x63\xc3"


class Connection:
    """PC/SC as C programs see it: results are numbers."""

    def __init__(self, key: VirtualYubiKey, share: int) -> None:
        self.result, self._context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
        if self.result == scard.SCARD_S_SUCCESS:
            protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
            self.result, self._card, self._protocol = scard.SCardConnect(
                self._context, key.reader_name, share, protocols
            )

    def transmit(self, command: bytes) -> tuple[int, bytes]:
        result, answer = scard.SCardTransmit(self._card, self._protocol, list(command))
        return result, bytes(answer)

    def ask(self, command: bytes) -> bytes:
        result, answer = self.transmit(command)
        assert result == scard.SCARD_S_SUCCESS, scard.SCardGetErrorMessage(result)
        return answer

    def close(self, disposition: int = scard.SCARD_LEAVE_CARD) -> None:
        if self.result == scard.SCARD_S_SUCCESS:
            scard.SCardDisconnect(self._card, disposition)
        scard.SCardReleaseContext(self._context)


@contextmanager
def connected(
    key: VirtualYubiKey, *, share: int = scard.SCARD_SHARE_SHARED, leave: int = scard.SCARD_LEAVE_CARD
) -> Iterator[Connection]:
    connection = Connection(key, share)
    assert connection.result == scard.SCARD_S_SUCCESS, scard.SCardGetErrorMessage(connection.result)
    try:
        yield connection
    finally:
        connection.close(leave)


def test_a_reset_on_leaving_forgets_the_pin_and_leaving_alone_does_not(yubikey: YubiKeys) -> None:
    key = yubikey()
    with connected(key) as stays, connected(key) as leaves:
        leaves.ask(SELECT_PIV)
        assert leaves.ask(VERIFY) == OK
        assert stays.ask(TRIES) == OK  # the PIN is the card's, not the program's
    with connected(key) as connection:
        assert connection.ask(TRIES) == OK  # a program that left it so: the next one has the PIN
    with connected(key, leave=scard.SCARD_RESET_CARD) as connection:
        assert connection.ask(TRIES) == OK
    with connected(key) as connection:
        assert connection.ask(TRIES) == b"\x6d\x00"  # not even PIV is selected
        connection.ask(SELECT_PIV)
        assert connection.ask(TRIES) == UNVERIFIED


def test_state_outlives_the_process_and_counters_too(yubikey: YubiKeys) -> None:
    key = yubikey()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        assert connection.ask(WRONG_PIN) == b"\x63\xc2"
    key.stop()
    assert key.state.pin.left == 2
    key.start()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        assert connection.ask(TRIES) == b"\x63\xc2"


def test_pulled_before_a_command_is_executed(yubikey: YubiKeys) -> None:
    key = yubikey()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        key.pull_at(2)
        assert connection.ask(TRIES) == UNVERIFIED
        assert connection.transmit(WRONG_PIN)[0] == scard.SCARD_E_NOT_TRANSACTED
        assert not key.inserted
        assert key.state.pin.left == 3
        assert connection.transmit(TRIES)[0] in (scard.SCARD_E_NOT_TRANSACTED, scard.SCARD_W_REMOVED_CARD)
        key.insert()
        assert connection.transmit(TRIES)[0] in (scard.SCARD_W_REMOVED_CARD, scard.SCARD_W_RESET_CARD)
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        assert connection.ask(TRIES) == UNVERIFIED


def test_pulled_after_a_command_is_executed_and_before_it_is_answered(yubikey: YubiKeys) -> None:
    key = yubikey()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        key.pull_at(1, executed=True)
        assert connection.transmit(WRONG_PIN)[0] == scard.SCARD_E_NOT_TRANSACTED
    assert key.state.pin.left == 2
    key.insert()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        assert connection.ask(TRIES) == b"\x63\xc2"


def test_a_pulled_card_is_gone_and_back(yubikey: YubiKeys) -> None:
    key = yubikey()
    key.pull()
    gone = Connection(key, scard.SCARD_SHARE_SHARED)
    assert gone.result in (scard.SCARD_E_NO_SMARTCARD, scard.SCARD_W_REMOVED_CARD)
    gone.close()
    key.insert()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        assert connection.ask(GET_SERIAL) == key.serial.to_bytes(4) + OK


def test_two_at_once_are_told_apart_by_serial(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    pcscd.stop()
    pcscd.start(readers=2)
    first, second = yubikey("5.4.3"), yubikey("5.7.4", serial=23456789)
    for key in (first, second):
        with connected(key) as connection:
            connection.ask(SELECT_PIV)
            assert connection.ask(GET_SERIAL) == key.serial.to_bytes(4) + OK
    first.pull()
    with connected(second) as connection:
        connection.ask(SELECT_PIV)
    first.insert()


def test_one_holds_it_alone(yubikey: YubiKeys) -> None:
    key = yubikey()
    with connected(key, share=scard.SCARD_SHARE_EXCLUSIVE):
        other = Connection(key, scard.SCARD_SHARE_SHARED)
        assert other.result == scard.SCARD_E_SHARING_VIOLATION
        other.close()
    with connected(key):
        pass


def test_pcscd_is_stopped_and_started_and_the_key_is_found_again(pcscd: Pcscd, yubikey: YubiKeys) -> None:
    key = yubikey()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        pcscd.stop()
        assert connection.transmit(TRIES)[0] in (scard.SCARD_F_COMM_ERROR, scard.SCARD_E_NO_SERVICE)
    nobody = Connection(key, scard.SCARD_SHARE_SHARED)
    assert nobody.result == scard.SCARD_E_NO_SERVICE
    pcscd.start()
    key.until_seen()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        assert connection.ask(TRIES) == UNVERIFIED


GENERATE_WITH_TOUCH = bytes.fromhex("004700820bac09800111aa0101ab0102")  # P-256, PIN never, touch always
SIGN = bytes.fromhex("00871182267c2482008120") + bytes(range(32))


def touch_key(key: VirtualYubiKey) -> None:
    """A key in 82 that wants a touch, made while the card is out."""
    from tests.support.virtual_yubikey.keys import encoded, generate
    from tests.support.virtual_yubikey.store import StoredKey

    key.stop()
    with key.tampering() as state:
        state.keys[0x82] = StoredKey(0x11, encoded(generate(0x11)), 1, 2, True)
    key.start()


def test_a_finger_late_absent_and_now(yubikey: YubiKeys) -> None:
    key = yubikey(touch_timeout=0.3)
    touch_key(key)
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        key.finger(0.1)
        begin = time.monotonic()
        assert connection.ask(SIGN)[-2:] == OK
        assert time.monotonic() - begin >= 0.1
        key.finger(None)
        assert connection.ask(SIGN) == b"\x69\x82"
        assert key.touches() == 2


def test_touched_and_pulled_while_it_waits(yubikey: YubiKeys) -> None:
    key = yubikey(touch_timeout=20)
    touch_key(key)
    key.finger(None)
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        answers: list[tuple[int, bytes]] = []
        for act in (key.touch, key.pull):
            thread = threading.Thread(target=lambda: answers.append(connection.transmit(SIGN)))
            thread.start()
            key.until_blinking()
            act()
            thread.join()
    assert answers[0][1][-2:] == OK
    assert answers[1][0] == scard.SCARD_E_NOT_TRANSACTED


def test_the_log_has_commands_and_no_pins(yubikey: YubiKeys) -> None:
    key = yubikey()
    key.log()
    with connected(key) as connection:
        for command in (SELECT_PIV, VERIFY, bytes.fromhex("00cb3fff055c035f4d00"), GET_SERIAL):
            connection.ask(command)
    log = key.log()
    assert [(entry["ins"], entry["sw"]) for entry in log] == [
        (0xA4, 0x9000),
        (0x20, 0x9000),
        (0xCB, 0x6A82),
        (0xF8, 0x9000),
    ]
    assert log[2]["object"] == 0x5F4D00
    assert PIN not in str(log)
    assert PIN.encode().hex() not in str(log)
    assert key.log() == []


def test_a_copy_is_a_twin(yubikey: YubiKeys, tmp_path: Path) -> None:
    key = yubikey()
    with connected(key) as connection:
        connection.ask(SELECT_PIV)
        connection.ask(WRONG_PIN)
    key.stop()
    twin = key.copy(tmp_path / "twin").start()
    try:
        with connected(twin) as connection:
            connection.ask(SELECT_PIV)
            assert connection.ask(GET_SERIAL) == key.serial.to_bytes(4) + OK
            assert connection.ask(TRIES) == b"\x63\xc2"
            assert connection.ask(VERIFY) == OK
    finally:
        twin.stop()
    assert key.state.pin.left == 2


ABANDONED = """
import sys, tempfile, time
from pathlib import Path
from tests.support.pcscd import Pcscd
from tests.support.yubikey import VirtualYubiKey
directory = Path(sys.argv[1])
pcscd = Pcscd(directory)
import os
os.environ |= pcscd.env
pcscd.start()
key = VirtualYubiKey.make(pcscd, directory / "card", serial=1, firmware="5.4.3").start()
print(pcscd._holder.pid, pcscd._daemon.pid, key._process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A socket's address has 107 bytes, which a test's own directory may fill."""
    with tempfile.TemporaryDirectory(prefix="medcrypt-pcscd-") as directory:
        yield Path(directory)


def test_nothing_outlives_a_killed_test_process(short_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", ABANDONED, str(short_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    processes = [int(number) for number in child.stdout.readline().split()]
    assert len(processes) == 3
    assert all(map(_alive, processes))
    child.kill()
    child.communicate()
    end = time.monotonic() + 10
    while any(map(_alive, processes)):
        assert time.monotonic() < end, "left behind"
        time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("readers", [1, 2])
def test_a_reader_is_one_yubikeys_reader(pcscd: Pcscd, readers: int) -> None:
    pcscd.stop()
    pcscd.start(readers=readers)
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
    try:
        _, names = scard.SCardListReaders(context, [])
        assert names == [f"Yubico YubiKey CCID 00 {number:02X}" for number in range(readers)]
    finally:
        scard.SCardReleaseContext(context)
