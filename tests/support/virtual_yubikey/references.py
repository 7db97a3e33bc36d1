"""PIN and PUK: VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER (SP 800-73-4 part 2, 3.2.1 to 3.2.3) and
Yubico's SET PIN RETRIES."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.virtual_yubikey.apdu import (
    BLOCKED,
    NO_REFERENCE,
    SECURITY_STATUS,
    TRIES_LEFT,
    WRONG_DATA,
    WRONG_P1P2,
    Command,
    Refused,
)
from tests.support.virtual_yubikey.store import DEFAULT_PIN, DEFAULT_PUK, Reference, Store

PIN, PUK, FINGERPRINT = 0x80, 0x81, 0x96
SIZE, LEAST = 8, 6  # bytes; the rest of a short one is FF


@dataclass
class Session:
    """What is true until the card loses power, is reset, or another application is selected."""

    pin_verified: bool = False
    pin_just_verified: bool = False  # by the command before: for PIN policy "always"
    administrator: bool = False  # the management key has been proven


class References:
    def __init__(self, store: Store) -> None:
        self._store, self._state = store, store.state

    def verify(self, command: Command, session: Session) -> None:
        if command.p2 == FINGERPRINT:
            raise Refused(NO_REFERENCE)  # only a YubiKey Bio has one (yubikit: verify_uv)
        if command.p2 != PIN:
            raise Refused(NO_REFERENCE)
        if command.p1 == 0xFF and not command.data and self._state.firmware.can_forget_pin:
            session.pin_verified = False
            return
        if command.p1 != 0:
            raise Refused(WRONG_P1P2)
        if not command.data:  # the question how many tries are left costs none
            if not session.pin_verified:
                raise Refused(self._tries_left(self._state.pin))
            return
        session.pin_verified = False
        self._compare(self._state.pin, command.data)
        session.pin_verified = session.pin_just_verified = True

    def change(self, command: Command, session: Session) -> None:
        """The old value and the new one. A changed PIN is not verified: the stricter reading."""
        reference = {PIN: self._state.pin, PUK: self._state.puk}.get(command.p2)
        if reference is None:
            raise Refused(NO_REFERENCE)
        if command.p1 != 0:
            raise Refused(WRONG_P1P2)
        self._replace(reference, reference, command.data, session)

    def unblock(self, command: Command, session: Session) -> None:
        """The PUK and the new PIN."""
        if command.p2 != PIN:
            raise Refused(NO_REFERENCE)
        if command.p1 != 0:
            raise Refused(WRONG_P1P2)
        self._replace(self._state.puk, self._state.pin, command.data, session)

    def set_tries(self, command: Command, session: Session) -> None:
        """P1 for the PIN and P2 for the PUK; both take their factory values again (yubikit: set_pin_attempts)."""
        if not (session.administrator and session.pin_verified):
            raise Refused(SECURITY_STATUS)
        if not (command.p1 and command.p2):
            raise Refused(WRONG_DATA)
        self._state.pin = Reference(DEFAULT_PIN, command.p1, command.p1)
        self._state.puk = Reference(DEFAULT_PUK, command.p2, command.p2)
        session.pin_verified = False
        self._store.save()

    def _replace(self, proven: Reference, changed: Reference, data: bytes, session: Session) -> None:
        if len(data) != 2 * SIZE:
            raise Refused(WRONG_DATA)
        session.pin_verified = False
        self._compare(proven, data[:SIZE])
        new = data[SIZE:]
        if not _is_well_formed(new):
            raise Refused(WRONG_DATA)
        changed.value, changed.left = new, changed.total
        self._store.save()

    def _compare(self, reference: Reference, value: bytes) -> None:
        """Takes a try before it looks, as a card must that can lose power in between.

        Any 8 bytes count, also 8 times FF: yubikit's reset blocks PIN and PUK so.
        """
        if len(value) != SIZE:
            raise Refused(WRONG_DATA)
        if not reference.left:
            raise Refused(BLOCKED)
        reference.left -= 1
        self._store.save()
        if value != reference.value:
            raise Refused(TRIES_LEFT | min(reference.left, 15))  # at the last one 63C0; 6983 from then on
        reference.left = reference.total
        self._store.save()

    def _tries_left(self, reference: Reference) -> int:
        return TRIES_LEFT | min(reference.left, 15) if reference.left else BLOCKED


def _is_well_formed(value: bytes) -> bool:
    filled = value.rstrip(b"\xff")
    return LEAST <= len(filled) <= SIZE and b"\xff" not in filled
