"""Anchors: what a token remembers of a vault's log, so that it accepts no older file and no other history.

In: a token, the verified chain of a vault's log. Out: an anchor written, or the newest valid one found, and where a
file and an anchor agree; VaultRolledBack where they do not. An anchor's bytes are in docs/spec/audit.md. Not here: what
is verified from there on (unlock.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from medcrypt_hsm.crypto.p256 import verify_signature
from medcrypt_hsm.errors import Malformed, NotAuthentic, VaultRolledBack
from medcrypt_hsm.notation import canonical, ctx, lp, parse_time, timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name
from medcrypt_hsm.vault.audit import entries
from medcrypt_hsm.vault.audit.actions import VAULT_RESTORE
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.fields import NUMBER, OCTETS, TEXT, Codec, Fields
from medcrypt_hsm.vault.audit.trust import RegisteredToken, RetiredToken
from medcrypt_hsm.vault.clock import VaultClock
from medcrypt_hsm.vault.store.rows import EntryRow
from medcrypt_hsm.vault.store.store import Store


def _read_keys(keys: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(key) for key in keys)


def _write_keys(keys: Sequence[bytes]) -> list[str]:
    return sorted(key.hex() for key in keys)


_FIELDS = Fields(
    audit_keys=Codec(_read_keys, _write_keys),
    hash=OCTETS,
    sequence=NUMBER,
    time=TEXT,
    token=OCTETS.called("token_id"),
    vault=OCTETS.called("vault_id"),
)


class Anchor(NamedTuple):
    """What a token remembers of the log."""

    vault_id: bytes
    token_id: bytes
    sequence: int
    hash: bytes
    time: str
    audit_keys: tuple[bytes, ...]

    def encode(self) -> bytes:
        return canonical({"version": 1} | _FIELDS.value(self))

    def signed(self, signature: bytes) -> bytes:
        return lp(self.encode()) + signature

    @property
    def to_sign(self) -> bytes:
        return ctx("medcrypt/anchor", self.encode())


def parse_anchor(value: bytes, spki: bytes) -> Anchor:
    """An anchor object's content, once its signature is right. Raises NotAuthentic or Malformed."""
    length = int.from_bytes(value[:4], "big")
    data, signature = value[4 : 4 + length], value[4 + length :]
    verify_signature(spki, signature, ctx("medcrypt/anchor", data))
    try:
        fields = json.loads(data)
        if fields["version"] != 1:
            raise ValueError("unknown version")
        return Anchor(**_FIELDS.read(fields))
    except (ValueError, KeyError, TypeError) as exc:
        raise Malformed("the token's anchor cannot be read") from exc


ANCHOR_AGE = timedelta(hours=24)
ANCHOR_BYTES = 1 << 17  # of entries after it, which every unlock reads: some 400, or one that tells of 1,500 messages


def is_due(anchor: Anchor | None, file: Store, chain: Chain, clock: VaultClock) -> bool:
    """Should the token remember a newer entry than that of ``anchor``, the newest on it? Raises ClockBehind."""
    if anchor is None or anchor.sequence == 0:
        return True
    row = file.entry(anchor.sequence)
    if row is None or row.trust != chain.trust:
        return True  # an older file would bring back a lifted hold, an older policy, a removed token
    if file.stored_after(anchor.sequence) >= ANCHOR_BYTES or chain.sequence < anchor.sequence:
        return True
    return clock.now() - parse_time(anchor.time) >= ANCHOR_AGE


def put_anchor(token: Token, token_id: bytes, chain: Chain, moment: datetime) -> Anchor:
    """Make ``token`` remember the newest entry of a registered token in ``chain``, and the audit keys valid there.

    For a new token this is done inside the change that introduces it: its first anchor is of the entry before.
    """
    time, keys = timestamp(moment), tuple(sorted(chain.keys))
    anchor = Anchor(chain.vault_id, token_id, *chain.settled, time, keys)
    signature = token.sign(audit_key_name(chain.vault_id), anchor.to_sign)
    token.put_object(anchor_name(chain.vault_id), anchor.signed(signature))
    return anchor


def find_anchor(token: Token, vault_id: bytes, registered: RegisteredToken) -> Anchor | None:
    """The highest valid anchor on the token; None where there is none, or what is there is no anchor."""
    found = []
    for value in token.read_objects(anchor_name(vault_id)):
        with contextlib.suppress(NotAuthentic, Malformed):
            anchor = parse_anchor(value, registered.audit_key)
            if anchor.vault_id == vault_id and anchor.token_id == registered.id:
                found.append(anchor)
    return max(found, key=lambda anchor: anchor.sequence, default=None)


def newest_anchor(token: Token, vault_id: bytes, registered: RegisteredToken) -> Anchor:
    """The highest valid anchor on the token. Raises VaultRolledBack if there is none."""
    anchor = find_anchor(token, vault_id, registered)
    if anchor is None:
        raise VaultRolledBack(
            t("token {token} holds no anchor that this file's record of it can verify", token=registered.name),
            "the file was forged, or the token lost what it remembered: call the officer. 'medcrypt vault restore' of "
            "the vault's own file has the token accept it again, best with '--since' and a checkpoint",
        )
    return anchor


def base_of(file: Store, anchor: Anchor) -> tuple[int, EntryRow | None]:
    """The sequence at which file and anchor agree, and the restore through which they do. Raises VaultRolledBack.

    Normally the entry that the anchor names is in the file (then there is no restore: None). Or a restore with this
    very token accepted this file and was interrupted before it wrote a new anchor to the token: then the restore names
    exactly this anchor as abandoned, and file and anchor agree at the entry before the restore.
    """
    if anchor.sequence == 0 and anchor.hash == entries.genesis(anchor.vault_id):
        return 0, None
    row = file.entry(anchor.sequence)
    if row is not None and row.hash == anchor.hash:
        return anchor.sequence, None
    for row in file.clear_entries():
        entry = entries.read_clear(row)
        if entry is not None and entry.action == VAULT_RESTORE and row.signer == anchor.token_id:
            named = entry.detail.get("abandoned_sequence"), entry.detail.get("abandoned_hash")
            if named == (anchor.sequence, anchor.hash.hex()):
                return row.sequence - 1, row
    raise rolled_back(file, anchor)


def not_its_key(registered: RegisteredToken | RetiredToken) -> VaultRolledBack:
    """What to say where the token does not sign for the audit key that the file has on record for it."""
    return VaultRolledBack(
        t("token {token} does not hold the audit key that this file has on record for it", token=registered.name),
        "the file was forged, or the token is another one or was erased: call the officer",
    )


def _restorers(file: Store) -> set[str]:
    """The tokens with which the file says it was restored."""
    told = (entries.read_clear(row) for row in file.clear_entries())
    return {entry.token for entry in told if entry is not None and entry.action == VAULT_RESTORE}


def rolled_back(file: Store, anchor: Anchor) -> VaultRolledBack:
    """What to say of a file that does not agree with the anchor."""
    newest = file.newest()
    have = newest.sequence if newest else 0
    hint = None
    if names := sorted(_restorers(file)):  # nothing of it is verified: a person decides
        hint = t(
            "if this file was put back on purpose with token {tokens}, have this token accept "
            "it too: 'medcrypt vault restore {location}'. Otherwise {otherwise}",
            tokens=", ".join(map(ascii, names)),
            location=file.location,
            otherwise=VaultRolledBack.hint,
        )
    if have < anchor.sequence:
        return VaultRolledBack(
            t(
                "the vault {vault} is older than the token remembers: it ends at audit entry {entry}, the token "
                "has seen {seen}",
                vault=file.location,
                entry=have,
                seen=anchor.sequence,
            ),
            hint,
        )
    return VaultRolledBack(
        t(
            "the vault {vault} departs from what the token remembers at audit entry {entry}",
            vault=file.location,
            entry=anchor.sequence,
        ),
        hint,
    )
