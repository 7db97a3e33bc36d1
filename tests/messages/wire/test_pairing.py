"""The pairing QR: 88 characters that a phone reads from a screen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from medcrypt_hsm.messages.wire.pairing import PairingPayload
from medcrypt_hsm.month import Month

PAIRING = bytes.fromhex("c0ffee0123456789")
SECRET = bytes(range(32))
MONTH = Month.parse("2026-11")
EXPIRY = datetime(2026, 11, 19, 10, 40, tzinfo=UTC)
# From the table in the spec, with another program: base32 of 01, c0ffee0123456789, 0142 (322 months), 00d7c260
# (14,140,000 minutes), 00 01 … 1f.
TEXT = "MEDCRYPT:P2:AHAP73QBENCWPCIBIIANPQTAAAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPQ"


def test_known_payload() -> None:
    payload = PairingPayload(PAIRING, MONTH, EXPIRY, SECRET)
    assert payload.encode() == TEXT
    assert PairingPayload.parse(TEXT) == payload


def test_fits_qr_version_4() -> None:
    assert len(TEXT) == 88
    assert set(TEXT) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")  # a QR code's alphanumeric mode


def test_repr_hides_the_secret() -> None:
    shown = repr(PairingPayload(PAIRING, MONTH, EXPIRY, b"correct horse battery staple 123"))
    assert "secret" not in shown
    assert "horse" not in shown


def test_expiry_is_rounded_down_to_the_minute() -> None:
    late = PairingPayload(PAIRING, MONTH, EXPIRY + timedelta(seconds=59, microseconds=999_999), SECRET)
    assert late.expiry == EXPIRY
    assert late.encode() == TEXT


def test_expiry_of_another_time_zone_is_the_same_moment() -> None:
    lima = EXPIRY.astimezone(timezone(timedelta(hours=-5)))
    assert PairingPayload(PAIRING, MONTH, lima, SECRET).encode() == TEXT


@pytest.mark.parametrize(
    ("pairing", "expiry", "secret"),
    [
        (PAIRING[:7], EXPIRY, SECRET),
        (PAIRING, EXPIRY, SECRET[:31]),
        (PAIRING, EXPIRY.replace(tzinfo=None), SECRET),
        (PAIRING, datetime(1999, 12, 31, tzinfo=UTC), SECRET),
    ],
    ids=["short pairing", "short secret", "no time zone", "before 2000"],
)
def test_what_the_code_cannot_carry_is_misuse(pairing: bytes, expiry: datetime, secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"a pairing is|an expiry has"):
        PairingPayload(pairing, MONTH, expiry, secret)
