"""Many texts opened under one key: by a key that can do that at once, and one after the other by one that cannot."""

from __future__ import annotations

import os
from collections.abc import Sequence

from medcrypt_hsm.crypto.handles import AeadKey, open_each
from medcrypt_hsm.crypto.hostkeys import HostKeys
from medcrypt_hsm.crypto.secret import Secret

Text = tuple[bytes, bytes, bytes]


def host_key() -> AeadKey:
    wrapping, mac, sealing = (Secret(os.urandom(32)) for _ in range(3))
    return HostKeys().handles((wrapping, mac, sealing)).sealing


def texts(key: AeadKey) -> list[Text]:
    """Two that open, and between them one that was altered and one that is too short to be any."""
    first, third = (key.seal(bytes(12), text, b"aad") for text in (b"one", b"three"))
    altered = bytes([first[0] ^ 1]) + first[1:]
    return [(bytes(12), sealed, b"aad") for sealed in (first, altered, b"", third)]


def test_each_stands_in_its_place() -> None:
    key = host_key()
    assert list(open_each(key, texts(key))) == [b"one", None, None, b"three"]


def test_a_key_that_opens_several_at_once_is_asked_once() -> None:
    asked: list[Sequence[Text]] = []

    class Several:
        def __init__(self, key: AeadKey) -> None:
            self.seal, self.open, self.destroy = key.seal, key.open, key.destroy

        def open_many(self, texts: Sequence[Text]) -> list[bytes | None]:
            asked.append(texts)
            return [b"one", None, None, b"three"]

    key = Several(host_key())
    given = texts(key)
    assert list(open_each(key, given)) == [b"one", None, None, b"three"]
    assert asked == [given]
