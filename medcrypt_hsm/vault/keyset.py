"""The vault keyset at work: which key wraps, seals or vouches for what, and under which context (docs/spec/vault.md).

In: key handles of an unwrapped vault keyset (they may live on a token or in locked host memory; this module does not
ask). Out: rows that can be stored, and handles that came out of rows whose MAC was right. No device, no disk, no clock.
Not here: where handles come from (tokens/, crypto/hostkeys.py), what is derived from a chain key (ratchet.py) or told
by the seen key (seen.py), and when a key may be used (messages/).
"""

from __future__ import annotations

import hmac
import json
import os
from typing import TYPE_CHECKING, Any

from medcrypt_hsm.crypto.handles import AeadKey, KeysetHandles
from medcrypt_hsm.errors import NotAuthentic, VaultDamaged
from medcrypt_hsm.notation import canonical, ctx, lp, u64
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.names import kek_name
from medcrypt_hsm.vault.seen import SeenRoot
from medcrypt_hsm.vault.store.rows import RecordRow, SealedRow

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.hostkeys import HostKeys
    from medcrypt_hsm.crypto.secret import Secret
    from medcrypt_hsm.vault.audit.trust import TrustState
    from medcrypt_hsm.vault.ratchet import ChainKey

MESSAGE, CHAIN, LOG, SEEN = "message", "chain", "log", "seen"  # purposes of records
_EVIDENCE = "copy the file away as evidence, then restore a backup: 'medcrypt vault restore FILE'"
PATIENT, QR, V1_SECRET = "patient", "qr", "v1-secret"  # purposes of sealed rows
_EIGHT = (8).to_bytes(4, "big")  # the length of a u64


def keyset_info(vault_id: bytes, generation: int, token_id: bytes) -> bytes:
    """What a wrapped keyset is bound to, by profiles whose wrapping binds anything."""
    return ctx("medcrypt/keyset", vault_id, u64(generation), token_id)


def kek_names(state: TrustState, name: str) -> list[str]:
    """The root KEKs of this vault that should be on the token called ``name``: the newest first, then old ones."""
    keyset = state.keyset_of(name)
    generations = {old.kek for old in state.doomed if old.token == name} | ({keyset.kek} if keyset else set())
    return [kek_name(state.vault_id, generation) for generation in sorted(generations, reverse=True)]


def log_month(number: int) -> str:
    """Where a log key's record stands in the month column."""
    return f"{number:08}"


class VaultKeyset:
    """The three keys of a vault, unwrapped, and everything that is done with them."""

    def __init__(self, handles: KeysetHandles, vault_id: bytes) -> None:
        self._wrapping = handles.wrapping
        self._mac = handles.mac
        self._sealing = handles.sealing
        self._vault_id = vault_id
        self._record_heads: dict[str, bytes] = {}  # what the MAC of every record of a purpose begins with

    # Records: keys under ``wrapping``

    def wrap(self, purpose: str, pairing: bytes, month: str, sequence: int, key: Secret) -> RecordRow:
        wrapped = self._wrapping.wrap(key.value)
        return RecordRow(
            purpose, pairing, month, sequence, wrapped, self._record_mac(purpose, pairing, month, sequence, wrapped)
        )

    def aead_key(self, row: RecordRow) -> AeadKey:
        """The message key or log key in ``row``. Raises VaultDamaged."""
        return self._wrapping.unwrap_aead(self._checked(row))

    def chain_key(self, row: RecordRow) -> ChainKey:
        """Raises VaultDamaged."""
        from medcrypt_hsm.vault.ratchet import ChainKey

        return ChainKey(self._wrapping.unwrap_mac(self._checked(row)), row.pairing)

    def passing_key(self, key: Secret) -> AeadKey:
        """A handle on a key that is not kept: the next month's, within clock skew."""
        return self._wrapping.unwrap_aead(self._wrapping.wrap(key.value))

    def _checked(self, row: RecordRow) -> bytes:
        expected = self._record_mac(row.purpose, row.pairing, row.month, row.sequence, row.wrapped)
        if not hmac.compare_digest(expected, row.mac):
            raise VaultDamaged(
                t("the stored {purpose} key of {month} was altered", purpose=row.purpose, month=row.month), _EVIDENCE
            )
        return row.wrapped

    def _record_mac(self, purpose: str, pairing: bytes, month: str, sequence: int, wrapped: bytes) -> bytes:
        head = self._record_heads.get(purpose)
        if head is None:
            head = self._record_heads[purpose] = ctx("medcrypt/record", purpose, self._vault_id)
        # The rest of the ctx, joined by hand: a re-key makes a hundred thousand of these.
        rest = lp(pairing) + lp(month.encode()) + _EIGHT + u64(sequence) + lp(wrapped)
        return self._mac.mac(head + rest)

    def check_record(self, row: RecordRow) -> None:
        """Raises VaultDamaged if the row is not as it was written."""
        self._checked(row)

    # Sealed rows: values under ``sealing``

    def seal(self, purpose: str, pairing: bytes, sequence: int, value: Any, *, lookup: bytes = b"") -> SealedRow:
        nonce = os.urandom(12)
        aad = self._sealed_aad(purpose, pairing, lookup, sequence)
        return SealedRow(purpose, pairing, lookup, sequence, nonce, self._sealing.seal(nonce, canonical(value), aad))

    def open(self, row: SealedRow) -> Any:
        """Raises VaultDamaged."""
        aad = self._sealed_aad(row.purpose, row.pairing, row.lookup, row.sequence)
        try:
            return json.loads(self._sealing.open(row.nonce, row.body, aad))
        except NotAuthentic as exc:
            raise VaultDamaged(t("a stored {purpose} row was altered", purpose=row.purpose), _EVIDENCE) from exc

    def carry_sealed(self, row: SealedRow, into: VaultKeyset) -> SealedRow:
        """The same value, of the same audit entry, under the other keyset. Raises VaultDamaged."""
        value = self.open(row)
        lookup = into.lookup(value["id"]) if row.purpose == PATIENT else b""
        return into.seal(row.purpose, row.pairing, row.sequence, value, lookup=lookup)

    def _sealed_aad(self, purpose: str, pairing: bytes, lookup: bytes, sequence: int) -> bytes:
        return ctx("medcrypt/sealed", purpose, self._vault_id, pairing, lookup, u64(sequence))

    def lookup(self, patient_id: str) -> bytes:
        """What the file is searched by instead of a patient's id."""
        return self._mac.mac(ctx("medcrypt/lookup", self._vault_id, patient_id))

    def seen_root(self, row: RecordRow) -> SeenRoot:
        """Raises VaultDamaged."""
        return SeenRoot(self._wrapping.unwrap_mac(self._checked(row)), self._vault_id)

    def check_of(self, generation: int, token_id: bytes, wrapped: bytes) -> bytes:
        """What AES-KW does not bind: that these parts are this token's, of this generation."""
        return self._mac.mac(ctx("medcrypt/keyset-check", self._vault_id, u64(generation), token_id, wrapped))

    def destroy(self) -> None:
        for handle in (self._wrapping, self._mac, self._sealing):
            handle.destroy()

    def __repr__(self) -> str:
        return "VaultKeyset(…)"


class HostKeyset(VaultKeyset):
    """A vault keyset in host memory: its records can be carried over to another, which handles on a token refuse."""

    def __init__(self, keys: HostKeys, secrets: tuple[Secret, Secret, Secret], vault_id: bytes) -> None:
        super().__init__(keys.handles(secrets), vault_id)

    def carry(self, row: RecordRow, into: HostKeyset) -> RecordRow:
        """The same key for the same purpose, of the same audit entry, under the other keyset. Raises VaultDamaged."""
        from medcrypt_hsm.crypto.hostkeys import HostWrappingKey

        assert isinstance(self._wrapping, HostWrappingKey)
        assert isinstance(into._wrapping, HostWrappingKey)
        wrapped = self._wrapping.rewrap(self._checked(row), into._wrapping)
        mac = into._record_mac(row.purpose, row.pairing, row.month, row.sequence, wrapped)
        return RecordRow(row.purpose, row.pairing, row.month, row.sequence, wrapped, mac)
