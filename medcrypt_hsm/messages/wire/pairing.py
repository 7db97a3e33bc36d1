"""The pairing QR of version 2 (docs/spec/messages.md, "Pairing QR"): ``PairingPayload`` ↔ ``MEDCRYPT:P2:…``.

What is not here: drawing the code, and the clock that decides whether it has expired.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import decode_base32, encode_base32

PREFIX = "MEDCRYPT:P2:"
CHARACTERS = 88
_VERSION = 1
_BYTES = 47
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_HINT = "scan the code again, or have a new one made"


@dataclass(frozen=True, slots=True)
class PairingPayload:
    """Pairing (8 bytes), month of pairing, expiry (UTC, to the minute, rounded down) and pairing secret (32 bytes).

    Raises ValueError for anything that the QR cannot carry.
    """

    pairing: bytes
    month: Month
    expiry: datetime
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.pairing) != 8 or len(self.secret) != 32:
            raise ValueError("a pairing is 8 bytes, and a pairing secret 32")
        if self.expiry.tzinfo is None or self.expiry < _EPOCH:
            raise ValueError("an expiry has a time zone and is not before 2000")
        # Rounded here, so that the value is the one that travels.
        object.__setattr__(self, "expiry", _EPOCH + (self.expiry - _EPOCH) // _MINUTE * _MINUTE)

    def encode(self) -> str:
        """88 characters. The text is the secret: it has no place in a log or an error."""
        minutes = (self.expiry - _EPOCH) // _MINUTE
        data = (
            bytes([_VERSION])
            + self.pairing
            + self.month.ordinal.to_bytes(2, "big")
            + minutes.to_bytes(4, "big")
            + self.secret
        )
        return PREFIX + encode_base32(data)

    @classmethod
    def parse(cls, text: str) -> PairingPayload:
        """Read a scanned code, nothing around it. Raises Malformed. Whether it has expired is the caller's to ask."""
        if not text.startswith(PREFIX):
            raise Malformed("this is not a MedCrypt pairing code", hint=_HINT)
        if len(text) != CHARACTERS:
            raise Malformed("the pairing code is not 88 characters long", hint=_HINT)
        data = decode_base32(text[len(PREFIX) :], field="pairing code")
        if data[0] != _VERSION:
            raise Malformed("the pairing code's version is unknown", hint="update this program, or have a new one made")
        month = int.from_bytes(data[9:11], "big")
        if month >= 1200:
            raise Malformed("the pairing code's month is after 2099-12", hint=_HINT)
        minutes = int.from_bytes(data[11:15], "big")
        if minutes > (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MINUTE:
            raise Malformed("the pairing code's expiry is no date", hint=_HINT)
        return cls(data[1:9], Month(month), _EPOCH + minutes * _MINUTE, data[15:])
