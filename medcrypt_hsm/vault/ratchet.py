"""The ratchet of a version 2 pairing: one chain key a month, each derived from the last, and no way back.

    C(m) ─▶ C(m+1) ─▶ …
     │        │
    M(m)    M(m+1)      the months' message keys

In: a chain key, as a handle or in locked host memory. Out: the next one, a month's message key, the check code that
both sides compare (docs/spec/messages.md, "Version 2 key schedule"). Not here: when a month is opened
(messages/months.py).
"""

from __future__ import annotations

import hmac

from medcrypt_hsm.crypto.handles import MacKey
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import ctx


class ChainKey:
    """C(m) of one v2 pairing as a handle: yields the next month's chain key, one way."""

    def __init__(self, handle: MacKey, pairing: bytes) -> None:
        self._handle = handle
        self._pairing = pairing

    def step(self, next_month: Month) -> Secret:
        """C(m+1), in host memory for as long as it takes to wrap it."""
        return Secret(self._handle.mac(_chain_info(self._pairing, next_month)))

    def destroy(self) -> None:
        self._handle.destroy()


def step_chain(chain_key: Secret, pairing: bytes, next_month: Month) -> Secret:
    """C(m+1) from a C(m) that is in host memory."""
    return Secret(_hmac(chain_key, _chain_info(pairing, next_month)))


def derive_message_key(chain_key: Secret, pairing: bytes, month: Month) -> Secret:
    """M(m) from C(m)."""
    return Secret(_hmac(chain_key, ctx("medcrypt/v2/message", pairing, str(month)) + b"\x01"))


def check_code(chain_key: Secret, pairing: bytes) -> str:
    """Six digits that both sides compare, from the chain key of the month of pairing."""
    head = _hmac(chain_key, ctx("medcrypt/v2/check", pairing) + b"\x01")[:8]
    return f"{int.from_bytes(head, 'big') % 1_000_000:06}"


def _chain_info(pairing: bytes, next_month: Month) -> bytes:
    return ctx("medcrypt/v2/chain", pairing, str(next_month)) + b"\x01"


def _hmac(key: Secret, info_and_counter: bytes) -> bytes:
    """HKDF-Expand to at most 32 bytes is one HMAC over info || 0x01 (RFC 5869 section 2.3)."""
    return hmac.digest(key.value, info_and_counter, "sha256")
