"""``Secret``: wiped where it lies, and shown nowhere."""

from __future__ import annotations

import pytest

from medcrypt_hsm.crypto.secret import Secret


def test_a_wiped_secret_is_no_key_of_zeros() -> None:
    secret = Secret(bytes(range(32)))
    with secret:
        assert len(secret.value) == 32
    with pytest.raises(RuntimeError):
        _ = secret.value
