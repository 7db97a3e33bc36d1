"""``Chain``: the audit log followed entry by entry, and whom it says to trust (docs/spec/audit.md).

In: rows of ``entries`` in order. Out: hash and sequence where it stands, the audit keys that count there, and what the
log told of re-keys and of break-glass (``Signers``, ``Rekeys``, ``Uses``, each in its own chain_*.py); or AuditBroken
naming the entry. Not here: files and walks over them (walk.py), and what the trust rows say (verify.py compares the
two).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from medcrypt_hsm.crypto.p256 import verify_signature
from medcrypt_hsm.errors import AuditBroken, NotAuthentic
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_OPEN, TOKEN_INTRODUCE, VAULT_REKEY, VAULT_RESTORE, VAULT_SYNC
from medcrypt_hsm.vault.audit.chain_rekeys import Rekeys
from medcrypt_hsm.vault.audit.chain_signers import Introduced, Signers
from medcrypt_hsm.vault.audit.chain_uses import Guest, Uses
from medcrypt_hsm.vault.audit.entries import Entry, entry_hash, head_bytes, log_key_number, read_clear
from medcrypt_hsm.vault.audit.trust_custody import Use
from medcrypt_hsm.vault.store.rows import EntryRow

if TYPE_CHECKING:
    from medcrypt_hsm.vault.audit.consent import Opening


class Chain:
    """A verified prefix of the log, extended one entry at a time.

    ``keys`` are the audit keys valid at its end, by token id, and ``names`` the tokens' names. Started at hash(0) with
    no keys, the first entry must introduce the key that signs it; started at an anchor, the keys are the anchor's.
    """

    def __init__(
        self,
        vault_id: bytes,
        sequence: int,
        hash_: bytes,
        keys: Mapping[bytes, bytes],
        names: Mapping[bytes, str] | None = None,
    ) -> None:
        self.vault_id = vault_id
        self.sequence = sequence
        self.hash = hash_
        self.trust = b""
        self.signer = b""  # of the newest head
        self.time = ""  # of the newest entry in the clear
        self.log_key = 0  # the highest one that seals an entry
        self.settled = sequence, hash_  # the newest entry of a registered token: what an anchor may name
        self.settled_signer = b""
        self.signers = Signers(keys, names or {})
        self.rekeys = Rekeys(whole=sequence == 0)
        self.uses = Uses(whole=sequence == 0)
        self._unchecked: EntryRow | None = None  # the row at ``sequence``, if its own head was left out

    def copy(self) -> Chain:
        """To be extended by what may yet be refused: one that raised half way is of no further use."""
        other = copy(self)
        other.signers, other.rekeys, other.uses = self.signers.copy(), self.rekeys.copy(), self.uses.copy()
        return other

    @property
    def keys(self) -> dict[bytes, bytes]:
        return self.signers.keys

    @property
    def names(self) -> dict[bytes, str]:
        return self.signers.names

    @property
    def guest(self) -> Guest | None:
        """Whose run of break-glass has not ended."""
        return self.uses.guest

    @property
    def unnoted(self) -> dict[bytes, Use]:
        """Uses of break-glass that the next entry of a registered token notes, by request."""
        return self.uses.unnoted

    def extend(self, row: EntryRow, *, check_head: bool) -> Entry | None:
        """Take the next entry; its content if it is in the clear. Raises AuditBroken.

        ``check_head=False`` leaves out this head's signature: the hash chain lets a later head vouch for it. Entries
        that change the keys are always checked.
        """
        at = row.sequence
        if at != self.sequence + 1:
            raise AuditBroken(t("audit entry {entry} is missing", entry=self.sequence + 1), at=self.sequence + 1)
        if entry_hash(self.hash, at, row.trust, row.signer, row.stored) != row.hash or len(row.trust) != 32:
            raise AuditBroken(t("audit entry {entry} was altered", entry=at), at=at)
        entry = read_clear(row)
        if entry is None:
            self._take_sealed(row, check_head)
        else:
            self._take_clear(row, entry, check_head)
        self.sequence, self.hash, self.trust, self.signer = at, row.hash, row.trust, row.signer
        signers = self.signers
        if self.uses.guest is None and (row.signer in signers.keys or row.signer in signers.retired):
            self.settled, self.settled_signer = (at, row.hash), row.signer
        return entry

    def _take_sealed(self, row: EntryRow, check_head: bool) -> None:
        uses, keys = self.uses, self.signers.keys
        if uses.guest is not None:
            uses.check_guest(uses.guest, row, None, self.trust)
            keys = keys | {uses.guest.id: uses.guest.spki}
        if check_head:
            self.check_head(row, keys)
        self._unchecked = None if check_head else row
        self.log_key = max(self.log_key, log_key_number(row))
        uses.take(row, None, None)

    def _take_clear(self, row: EntryRow, entry: Entry, check_head: bool) -> None:
        at, signers, uses = row.sequence, self.signers, self.uses
        introduced = self._introduced(entry.detail, at) if entry.action == TOKEN_INTRODUCE else None
        opening = None
        keys = signers.keys
        if entry.action == BREAKGLASS_OPEN:
            opening = self._opening(entry, row)
            if opening.token is not None:
                introduced = self._introduced(opening.token, at)
        elif uses.guest is not None:
            uses.check_guest(uses.guest, row, entry, self.trust)
            keys = keys | {uses.guest.id: uses.guest.spki}
        if introduced is not None:
            signers.name(introduced)
            if at == 1:
                keys = {introduced.id: introduced.spki}
        if opening is not None:
            signers.name_guest(row.signer, opening.name, at)
            keys = {row.signer: opening.request.told.signer}
        if checked := check_head or entry.action != VAULT_RESTORE:
            self.check_head(row, keys)
        self._unchecked = None if checked else row
        check_token(row, entry, signers.names)
        self._check_clear(entry, at)
        self.time = entry.time
        uses.take(row, entry, opening)
        if introduced is not None:
            signers.add(introduced)
        elif entry.action in (VAULT_REKEY, VAULT_SYNC):
            try:
                self.rekeys.take(entry, row, signers, uses)
            except (KeyError, ValueError, TypeError, AttributeError, NotAuthentic) as exc:
                raise AuditBroken(
                    t("audit entry {entry} tells of no re-key that can be: {reason}", entry=at, reason=exc), at=at
                ) from exc

    def _introduced(self, detail: Mapping[str, Any], at: int) -> Introduced:
        custody = self.uses.custody
        return Introduced.parse(detail, at, self.rekeys.generation, () if custody is None else custody.told.values())

    def _opening(self, entry: Entry, row: EntryRow) -> Opening:
        opening = self.uses.read_opening(entry, row, self.vault_id, self.trust, self.settled[0])
        if self._unchecked is not None:
            # The heads that follow are signed by a guest, and must not vouch for the entries before them.
            guest = {} if self.guest is None else {self.guest.id: self.guest.spki}
            self.check_head(self._unchecked, self.keys | guest)
        return opening

    def _check_clear(self, entry: Entry, at: int) -> None:
        """Its time, and what a restore says that it abandoned. Raises AuditBroken."""
        if entry.time < self.time:
            raise AuditBroken(t("audit entry {entry} is older than the one before it", entry=at), at=at)
        if entry.action == VAULT_RESTORE:
            sequence, hash_ = (entry.detail.get(member) for member in ("abandoned_sequence", "abandoned_hash"))
            numbered = type(sequence) is int and 0 <= sequence < 1 << 63
            hashed = isinstance(hash_, str) and re.fullmatch("[0-9a-f]{64}", hash_) is not None
            nothing_known = sequence == 0 and hash_ == ""  # the token had lost its anchor
            if not (numbered and (hashed or nothing_known)):
                raise AuditBroken(t("audit entry {entry} does not say what the restore abandoned", entry=at), at=at)

    def check_head(self, row: EntryRow, keys: Mapping[bytes, bytes] | None = None) -> None:
        """Raises AuditBroken unless the head of ``row`` verifies under a key valid just before it."""
        spki = (self.keys if keys is None else keys).get(row.signer)
        if spki is None:
            raise AuditBroken(
                t("the head of audit entry {entry} is signed by an unknown key", entry=row.sequence), at=row.sequence
            )
        try:
            verify_signature(spki, row.signature, head_bytes(self.vault_id, row.sequence, row.hash, row.trust))
        except NotAuthentic as exc:
            raise AuditBroken(
                t("the head of audit entry {entry} does not verify", entry=row.sequence), at=row.sequence
            ) from exc


def check_token(row: EntryRow, entry: Entry, names: Mapping[bytes, str]) -> None:
    """Nobody writes in another's name: the entry's token is the one that signed it. Raises AuditBroken."""
    if names.get(row.signer, entry.token) != entry.token:
        raise AuditBroken(
            t(
                "audit entry {entry} names token {token!a}, but {signer!a} signed it",
                entry=row.sequence,
                token=entry.token,
                signer=names[row.signer],
            ),
            at=row.sequence,
        )
