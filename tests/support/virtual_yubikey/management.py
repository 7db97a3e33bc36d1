"""The Management application (device info) and, for the YubiKey 4, of the OTP application what tells the serial.

Device info as yubikit.management.DeviceInfo reads it: one length byte and TLVs, since 5.7 in pages.
"""

from __future__ import annotations

from tests.support.virtual_yubikey.apdu import NO_INSTRUCTION, WRONG_DATA, Command, Refused, tlv
from tests.support.virtual_yubikey.store import Store

READ_CONFIG, OTP_REQUEST = 0x1D, 0x01
OTP_SERIAL = 0x10  # P1 of OTP_REQUEST
PIV = 0x10  # the capability: of all of a YubiKey's applications this card has PIV
CCID_ONLY_OTP = 0x01


class Management:
    aid = bytes.fromhex("a000000527471117")

    def __init__(self, store: Store) -> None:
        self._state = store.state

    def select(self) -> bytes:
        return f"Virtual mgr - FW version {self._state.firmware}".encode()

    def forget(self) -> None:
        """Nothing is remembered between commands."""

    def handle(self, command: Command) -> bytes:
        if command.ins != READ_CONFIG or not self._state.firmware.since(4, 1):
            raise Refused(NO_INSTRUCTION)
        pages = self._pages()
        if command.p1 >= len(pages):
            raise Refused(WRONG_DATA)
        page = pages[command.p1]
        return bytes([len(page)]) + page

    def _pages(self) -> list[bytes]:
        serial = tlv(0x02, self._state.serial.to_bytes(4))
        firmware = self._state.firmware
        if firmware.major < 5:
            return [tlv(0x01, bytes([PIV | CCID_ONLY_OTP])) + serial + tlv(0x03, bytes([PIV | CCID_ONLY_OTP]))]
        capabilities = PIV.to_bytes(2)
        first = (
            tlv(0x01, capabilities)
            + serial
            + tlv(0x03, capabilities)
            + tlv(0x04, bytes([self._state.form_factor]))
            + tlv(0x05, bytes(firmware))
            + tlv(0x06, bytes(2))
            + tlv(0x07, bytes([15]))
            + tlv(0x08, bytes(1))
            + tlv(0x0A, bytes(1))
        )
        if not firmware.since(5, 7):
            return [first]
        second = tlv(0x14, bytes(2)) + tlv(0x15, bytes(2)) + tlv(0x16, bytes(1)) + tlv(0x18, bytes(2))
        return [first + tlv(0x10, b"\x01"), second]


class Otp:
    """YubiKey 4: ``yubico-piv-tool`` asks here for the serial, which its PIV application does not tell."""

    aid = bytes.fromhex("a000000527200101")

    def __init__(self, store: Store) -> None:
        self._state = store.state

    def select(self) -> bytes:
        return bytes(self._state.firmware) + bytes(4)  # no slot programmed

    def forget(self) -> None:
        """Nothing is remembered between commands."""

    def handle(self, command: Command) -> bytes:
        if command.ins != OTP_REQUEST:
            raise Refused(NO_INSTRUCTION)
        if command.p1 != OTP_SERIAL:
            raise Refused(WRONG_DATA)
        return self._state.serial.to_bytes(4)
