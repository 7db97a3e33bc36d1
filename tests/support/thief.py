"""Somebody with a copy of a vault file, a token and its PIN, who heeds no rule of the program: what can they read?

Every way from what the copy holds to a text is tried: the month's own key, a chain key of an earlier month followed
forward, a pairing code that is still kept, a version 1 secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.wire import MessageV2, v1
from medcrypt_hsm.messages.wire.pairing import PairingPayload
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.keyset import CHAIN, MESSAGE, QR, V1_SECRET, VaultKeyset
from medcrypt_hsm.vault.ratchet import derive_message_key, step_chain
from medcrypt_hsm.vault.store.store import Store
from medcrypt_hsm.vault.unlock import open_keyset
from tests.support.practice import pin
from tests.support.store import open_at

MONTHS = [Month.parse(f"2026-{month:02}") for month in range(6, 13)]


class DoesNotOpen(Exception):
    """The token has no root key that opens the copy's keyset."""


def read(copy: Path, uri: str, name: str, text: str) -> str | None:
    """The plaintext of ``text`` by ``copy`` and the token called ``name``, or None. Raises DoesNotOpen."""
    (message,) = wire.find(text)
    assert not isinstance(message, wire.Bad)
    with closing(open_at(copy, in_use=False)) as file, open_token(uri, pin) as token:
        state = peek(file)
        if name not in state.tokens or state.keyset_of(name) is None:
            raise DoesNotOpen
        try:
            keyset = open_keyset(token, state, state.tokens[name])
        except (KeyError, NotAuthentic) as exc:
            raise DoesNotOpen from exc
        for row in file.records(MESSAGE):
            with suppress(NotAuthentic):
                return keyset.aead_key(row).open(message.nonce, message.sealed, message.aad).decode()
        for key in _derived(file, keyset, message):
            with suppress(InvalidTag):
                return AESGCM(key).decrypt(message.nonce, message.sealed, message.aad).decode()
    return None


def _derived(file: Store, keyset: VaultKeyset, message: wire.Message) -> Iterator[bytes]:
    if not isinstance(message, MessageV2):
        for row in file.all_sealed(V1_SECRET):
            secret = keyset.open(row)["secret"]
            yield from (v1.month_key(secret, month) for month in MONTHS)
        return
    for row in file.all_sealed(QR):
        if (payload := keyset.open(row)["payload"]).startswith("MEDCRYPT:"):
            parsed = PairingPayload.parse(payload)
            yield from _followed(Secret(bytes(parsed.secret)), parsed.pairing, parsed.month)
    for chain in file.records(CHAIN):
        month = Month.parse(chain.month) + 1
        yield from _followed(keyset.chain_key(chain).step(month), chain.pairing, month)


def _followed(chain_key: Secret, pairing: bytes, month: Month) -> Iterator[bytes]:
    """Message keys of that month and every later one."""
    while month <= MONTHS[-1]:
        yield bytes(derive_message_key(chain_key, pairing, month).value)
        month = month + 1
        chain_key = step_chain(chain_key, pairing, month)
