"""The management key (9B): mutual and single authentication (SP 800-73-4 part 2, 3.2.4 and appendix A.1), SET
MANAGEMENT KEY.

yubikit and yubico-piv-tool authenticate mutually: the card's witness, encrypted, comes back deciphered together with a
challenge, which the card encrypts.
"""

from __future__ import annotations

import hmac
import os

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from tests.support.virtual_yubikey.apdu import (
    SECURITY_STATUS,
    WRONG_DATA,
    WRONG_P1P2,
    Command,
    Refused,
    tlv,
    tlv_dict,
    tlvs,
)
from tests.support.virtual_yubikey.finger import Finger
from tests.support.virtual_yubikey.firmware import TRIPLE_DES
from tests.support.virtual_yubikey.references import Session
from tests.support.virtual_yubikey.store import ManagementKey, Store

DYNAMIC, WITNESS, CHALLENGE, RESPONSE = 0x7C, 0x80, 0x81, 0x82
CARD_MANAGEMENT = 0x9B


class Administration:
    def __init__(self, store: Store, finger: Finger) -> None:
        self._store, self._state, self._finger = store, store.state, finger
        self._expected: tuple[int, bytes] | None = None  # which tag has to come, with what in it

    def forget(self) -> None:
        self._expected = None

    def authenticate(self, command: Command, session: Session) -> bytes:
        key = self._state.management
        if command.p1 != key.algorithm:
            raise Refused(WRONG_DATA)
        outer = tlv_dict(command.data)
        if set(outer) != {DYNAMIC}:
            raise Refused(WRONG_DATA)
        parts = tlv_dict(outer[DYNAMIC])
        expected, self._expected = self._expected, None
        session.administrator = False
        if parts == {WITNESS: b""}:
            return self._ask(WITNESS, key)
        if parts == {CHALLENGE: b""}:
            return self._ask(RESPONSE, key)
        if expected is None:
            raise Refused(SECURITY_STATUS)
        tag, value = expected
        if not hmac.compare_digest(parts.get(tag, b""), value):
            raise Refused(SECURITY_STATUS)
        if key.touch and not self._finger.wait():
            raise Refused(SECURITY_STATUS)
        answer = b""
        if tag == WITNESS:
            challenge = parts.get(CHALLENGE, b"")
            if len(challenge) != len(value):
                raise Refused(WRONG_DATA)
            answer = tlv(DYNAMIC, tlv(RESPONSE, _ciphered(_cipher(key).encryptor(), challenge)))
        session.administrator = True
        return answer

    def set_key(self, command: Command, session: Session) -> None:
        """P1 FF, P2 FF or, for a key that wants a touch, FE; the algorithm, then the key in tag 9B."""
        if not session.administrator:
            raise Refused(SECURITY_STATUS)
        if command.p1 != 0xFF or command.p2 not in (0xFF, 0xFE):
            raise Refused(WRONG_P1P2)
        algorithm, fields = command.data[:1], list(tlvs(command.data[1:]))
        if not algorithm or len(fields) != 1 or fields[0][0] != CARD_MANAGEMENT:
            raise Refused(WRONG_DATA)
        value = fields[0][1]
        if self._state.firmware.management_keys.get(algorithm[0]) != len(value):
            raise Refused(WRONG_DATA)
        self._state.management = ManagementKey(algorithm[0], value, command.p2 == 0xFE)
        self._store.save()

    def _ask(self, comes_back: int, key: ManagementKey) -> bytes:
        """A witness is sent encrypted and comes back plain; a challenge is sent plain and comes back encrypted."""
        plain = os.urandom(8 if key.algorithm == TRIPLE_DES else 16)
        ciphered = _ciphered(_cipher(key).encryptor(), plain)
        if comes_back == WITNESS:
            self._expected = (WITNESS, plain)
            return tlv(DYNAMIC, tlv(WITNESS, ciphered))
        self._expected = (RESPONSE, ciphered)
        return tlv(DYNAMIC, tlv(CHALLENGE, plain))


def _cipher(key: ManagementKey) -> Cipher[modes.ECB]:
    algorithm = TripleDES(key.value) if key.algorithm == TRIPLE_DES else AES(key.value)
    return Cipher(algorithm, modes.ECB())  # noqa: S305 - one block, as the standard has it


def _ciphered(context: CipherContext, data: bytes) -> bytes:
    return context.update(data) + context.finalize()
