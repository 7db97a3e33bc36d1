"""The directory and small objects on the card: versions that were torn, and sizes."""

from __future__ import annotations

import hashlib

import pytest

from medcrypt_hsm.errors import TokenUnfit
from medcrypt_hsm.tokens.yubikey import storage
from tests.support.ready_yubikey import ANCHOR, opened, ready
from tests.support.yubikey import YubiKeys


@pytest.mark.parametrize("at", [0, 4, 7, 8, 12, -33, -32, -1])  # magic, counter, value, digest
def test_a_torn_version_of_an_object_does_not_count(yubikey: YubiKeys, at: int) -> None:
    """The newest is damaged or cut off there, and the one before, not emptied yet, is what the object is."""
    older, newest = storage.FIRST_OBJECT + 1, storage.FIRST_OBJECT
    key = ready(yubikey())
    with opened(key) as token:
        token.put_object(ANCHOR, b"the one before")
        before = key.state.objects[older]
        token.put_object(ANCHOR, b"the newest")
        whole = key.state.objects[newest]
        token._session.put_object(older, before)
        assert token.read_objects(ANCHOR) == (b"the newest", b"the one before")
        damaged = bytearray(whole)
        damaged[at] ^= 1
        foreign = b"MCO\x02" + whole[4:-32]  # a later program's, and in itself whole
        for torn in (bytes(damaged), whole[:at], foreign + hashlib.sha256(foreign).digest()):
            token._session.put_object(newest, torn)
            assert token.read_objects(ANCHOR) == (b"the one before",)
        token.put_object(ANCHOR, b"another")
        assert token.read_objects(ANCHOR) == (b"another",)


def test_objects_that_are_too_large(yubikey: YubiKeys) -> None:
    key = ready(yubikey())
    with opened(key) as token:
        token.put_object(ANCHOR, b"x" * 2960)
        with pytest.raises(TokenUnfit, match="keeps 3000 in one object"):
            token.put_object(ANCHOR, b"x" * 2961)
        assert list(token.read_objects(ANCHOR)) == [b"x" * 2960]
        for number in range(15):  # 16 of 3,000 bytes, a directory, certificates: the card has room for 51,200
            token.put_object(f"medcrypt large {number}", b"x" * 2960)
        with pytest.raises(TokenUnfit, match="is full"):
            token.put_object("medcrypt too many", b"x" * 2960)
