"""``Unlocked``: a verified vault that can be worked with, and ``Unlocked.change``, the one way to alter it.

Under the write lock a change looks again at what others wrote; then state change, audit entry and signed head commit
together, or nothing does. Handles stay on the token. Not here: what must hold before there is an ``Unlocked``
(unlock.py), and what is being changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from medcrypt_hsm.crypto.handles import AeadKey
from medcrypt_hsm.errors import (
    AuditBroken,
    ClockBehind,
    MedcryptError,
    MonthsBehind,
    NotAuthentic,
    Refused,
    UsageError,
    VaultBusy,
    VaultDamaged,
    VaultError,
)
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import ctx, parse_time, timestamp, u64
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import audit_key_name, kek_name
from medcrypt_hsm.vault.anchoring import ANCHOR_AGE, ANCHOR_BYTES, put_anchor
from medcrypt_hsm.vault.audit import entries, trust
from medcrypt_hsm.vault.audit.actions import CLEAR_ACTIONS
from medcrypt_hsm.vault.audit.anchors import Anchor
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.chain_uses import Guest
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.trust import RegisteredToken, TrustState
from medcrypt_hsm.vault.audit.trust_custody import Use
from medcrypt_hsm.vault.audit.walk import check_guests, extend_to_newest
from medcrypt_hsm.vault.change import Change, sign_entry
from medcrypt_hsm.vault.clock import SKEW, Clock
from medcrypt_hsm.vault.keyset import LOG, PATIENT, SEEN, VaultKeyset
from medcrypt_hsm.vault.seen import SeenRoot
from medcrypt_hsm.vault.store.rows import EntryRow
from medcrypt_hsm.vault.store.store import Store


def kek_names(state: TrustState, name: str) -> list[str]:
    """The root KEKs of this vault that should be on the token called ``name``: the newest first, then old ones."""
    keyset = state.keyset_of(name)
    generations = {doomed.kek for doomed in state.doomed if doomed.token == name} | ({keyset.kek} if keyset else set())
    return [kek_name(state.vault_id, generation) for generation in sorted(generations, reverse=True)]


def keyset_info(vault_id: bytes, generation: int, token_id: bytes) -> bytes:
    """What a wrapped keyset is bound to, by profiles whose wrapping binds anything."""
    return ctx("medcrypt/keyset", vault_id, u64(generation), token_id)


def log_month(number: int) -> str:
    """Where a log key's record stands in the month column."""
    return f"{number:08}"


class Unlocked:
    """A verified, unlocked vault. Handles stay on the token; ``lock`` destroys them and logs out."""

    def __init__(
        self,
        file: Store,
        token: Token,
        registered: RegisteredToken,
        state: TrustState,
        keyset: VaultKeyset,
        chain: Chain,
        actor: str,
        clock: Clock,
    ) -> None:
        self.file = file
        self.token = token
        self.registered = registered
        self.state = state
        self.keyset = keyset
        self.anchor: Anchor | None = None
        self._chain = chain
        self._actor = actor
        self._clock = clock
        self._log_keys: dict[int, AeadKey] = {}
        self._seen_root: SeenRoot | None = None
        self._newest_time = ""
        # Of a use of break-glass (breakglass/recovery.py):
        self.vouched = False  # for the clock: custodians gave their approvals by theirs
        self.guest = ""  # the one patient that it is for: it changes no trust state, and writes no anchor
        self.signing_key: str | None = None  # other than the audit key
        self.unsettled = ""  # why what an interrupted run left could not be ended at the unlock

    def over(self, file: Store) -> Unlocked:
        """The same token and keys over another file of this vault: a copy that is to be verified."""
        with file.snapshot():
            state = trust.parse(file.trust_rows())
        return Unlocked(file, self.token, self.registered, state, self.keyset, self._chain, self._actor, self._clock)

    # The clock

    def look_at_clock(self) -> None:
        """Know the newest entry's time. Raises AuditBroken."""
        row = self.file.newest()
        assert row is not None
        self._newest_time = self.read_entry(row).time

    def now(self) -> datetime:
        """The clock, believed: never before the newest entry. Raises ClockBehind past a day."""
        now = self._clock()
        newest = parse_time(self._newest_time)
        if now < newest - SKEW:
            raise ClockBehind(
                f"this machine's clock says {timestamp(now)}, the newest audit entry is of {self._newest_time}"
            )
        return max(now, newest)

    def entry_time(self) -> datetime:
        """The clock, believed enough to date an entry by it. Raises ClockBehind, MonthsBehind."""
        now = self.now()
        if Month.of(now) > self.state.newest_month + 1 and not self.vouched:
            # One entry dated by a clock that runs years ahead would make every later, true time look stale.
            raise MonthsBehind(
                f"this vault's newest month is {self.state.newest_month}, the clock says {Month.of(now)}",
                f"if the clock is right, run 'medcrypt rotate --to {Month.of(now)}'; otherwise set it",
            )
        return now

    def newest_moment(self) -> datetime:
        """When the newest entry was written."""
        return parse_time(self._newest_time)

    def current_month(self) -> Month:
        return Month.of(self.now())

    # The log

    @property
    def sequence(self) -> int:
        return self._chain.sequence

    @property
    def head(self) -> bytes:
        """The hash of the entry at ``sequence``."""
        return self._chain.hash

    def hash_of(self, sequence: int) -> bytes | None:
        """Of an entry of this file."""
        row = self.file.entry(sequence)
        return None if row is None else row.hash

    def read_entry(self, row: EntryRow) -> Entry:
        """An entry's content, sealed or not. Raises AuditBroken."""
        clear = entries.read_clear(row)
        if clear is not None:
            return clear
        return entries.open_entry(row, self._log_key(entries.log_key_number(row), row.sequence), self.state.vault_id)

    def _log_key(self, number: int, at: int) -> AeadKey:
        if number not in self._log_keys:
            row = self.file.record(LOG, b"", log_month(number))
            if row is None:
                raise AuditBroken(f"the log key of audit entry {at} is missing", at=at)
            try:
                self._log_keys[number] = self.keyset.aead_key(row)
            except (NotAuthentic, VaultDamaged) as exc:
                raise AuditBroken(f"the log key of audit entry {at} was altered", at=at) from exc
        return self._log_keys[number]

    def seen_root(self) -> SeenRoot:
        """Raises VaultDamaged."""
        if self._seen_root is None:
            row = self.file.record(SEEN, b"", "")
            if row is None:
                raise VaultDamaged("the key by which seen messages are recognised is missing from the vault")
            self._seen_root = self.keyset.seen_root(row)
        return self._seen_root

    def catch_up(self) -> None:
        """Under the write lock: what did others write since? Raises AuditBroken, VaultBusy."""
        newest = self.file.newest()
        if newest is None:
            raise AuditBroken("the audit log has vanished", at=1)
        if newest.sequence == self._chain.sequence:
            if newest.hash != self._chain.hash:
                raise AuditBroken(f"audit entry {newest.sequence} was exchanged", at=newest.sequence)
            return
        chain = extend_to_newest(self.file, self._chain)
        state = trust.parse(self.file.trust_rows())
        if chain.trust != state.digest:
            raise AuditBroken("the trust state is not the one that the newest head signed", at=newest.sequence)
        if state.generation != self.state.generation:
            raise VaultBusy(
                "the vault was re-keyed meanwhile", "run the command again; a program opens the vault again"
            )
        # Taken over at the end, so that whatever was refused is refused again the next time.
        self._chain, self.state = chain, state
        self.look_at_clock()

    def was_rekeyed(self) -> bool:
        """Is the file under another keyset by now? Whatever failed since may have failed for that."""
        try:
            with self.file.snapshot():
                return trust.parse(self.file.trust_rows()).generation != self.state.generation
        except VaultError:
            return False

    @contextlib.contextmanager
    def change(
        self,
        action: str,
        subject: str = "",
        *,
        outcome: str = "done",
        before_commit: Callable[[bytes], None] | None = None,
        named_month: bool = False,
    ) -> Iterator[Change]:
        """One transaction: what the body writes, the entry that tells of it, and the head over both.

        ``before_commit`` gets the entry's hash when all but the commit is done; ``named_month`` says that a person
        vouches for a clock that is more than one month ahead of the vault.

        If the body raises, nothing of it is written; a refusal leaves an entry of its own. Raises VaultBusy,
        AuditBroken, ClockBehind, MonthsBehind.
        """
        try:
            with self._change(action, subject, outcome, before_commit, named_month) as change:
                yield change
        except (ClockBehind, MonthsBehind):
            raise  # an entry would carry the very time that is in doubt
        except (Refused, NotAuthentic, UsageError) as exc:
            if action in CLEAR_ACTIONS:
                raise  # those are only ever of what was done
            with self._change(action, subject, exc.name):
                pass
            raise

    @contextlib.contextmanager
    def _change(
        self,
        action: str,
        subject: str,
        outcome: str,
        before_commit: Callable[[bytes], None] | None = None,
        named_month: bool = False,
    ) -> Iterator[Change]:
        with self.file.transaction():
            self.catch_up()
            now = self.now() if named_month else self.entry_time()
            change = Change(self.file, self.state.digest, self._chain.sequence + 1, timestamp(now))
            change.subject, change.outcome = subject, outcome
            if (guest := self._chain.guest) is not None and self.guest:
                guest.check_time(change.time)
            if not self.guest:
                check_guests(self.file, self._chain, self.read_entry, self.is_of)
                for use in self._chain.unnoted.values():
                    change.put_trust("use", use.request.hex(), use.value())
            yield change
            state = trust.parse(self.file.trust_rows()) if change.trust_changed else self.state
            stored = self._stored(action, change)
            row = sign_entry(self.token, self._chain, self.registered.id, stored, state.digest, self.signing_key)
            after = self._chain.copy()
            after.extend(row, check_head=False)  # what a reader would refuse is never committed
            self.file.append(row)
            if before_commit is not None:
                before_commit(row.hash)
        self._chain, self.state, self._newest_time = after, state, change.time

    def _stored(self, action: str, change: Change) -> bytes:
        entry = Entry(
            change.time,
            self._actor,
            self.registered.name,
            action,
            change.subject,
            change.outcome,
            change.entry_detail(),
        )
        if action in CLEAR_ACTIONS:
            return entries.clear_entry(entry)
        number = self.state.log_key
        log_key = self._log_key(number, change.sequence)
        return entries.seal_entry(entry, log_key, number, os.urandom(12), self.state.vault_id, change.sequence)

    def record(self, action: str, subject: str = "", detail: dict[str, Any] | None = None) -> None:
        """An entry alone."""
        with self.change(action, subject) as change:
            change.detail.update(detail or {})

    @property
    def present_guest(self) -> Guest | None:
        """Whose run of break-glass has not ended."""
        return self._chain.guest

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every use of break-glass: those on record, and those that the next entry will note."""
        return (*self.state.uses, *self._chain.unnoted.values())

    def is_of(self, pairing: bytes, patient: str) -> bool:
        """Is that pairing of the patient with this id?"""
        row = self.file.sealed(PATIENT, pairing)
        return row is not None and self.keyset.open(row)["id"] == patient

    # The anchor

    def anchor_is_due(self) -> bool:
        anchor = self.anchor
        if anchor is None or anchor.sequence == 0:
            return True
        row = self.file.entry(anchor.sequence)
        if row is None or row.trust != self._chain.trust:
            return True  # an older file would bring back a lifted hold, an older policy, a removed token
        if self.file.stored_after(anchor.sequence) >= ANCHOR_BYTES or self._chain.sequence < anchor.sequence:
            return True
        return self.now() - parse_time(anchor.time) >= ANCHOR_AGE

    def introduce_to(self, token: Token, token_id: bytes) -> None:
        """A new token's first anchor. Inside the change that introduces it: of the head that is committed by then."""
        put_anchor(token, token_id, self._chain, self.now())

    def write_anchor(self) -> Anchor:
        """Make the token remember the newest head. Only ever of a committed entry, and under the write lock."""
        self.anchor = self.write_anchor_on(self.token, self.registered.id)
        return self.anchor

    def write_anchor_on(self, token: Token, token_id: bytes) -> Anchor:
        """The same for another of the vault's tokens, which is known to have seen no other history."""
        with self.file.transaction():
            self.catch_up()
            # Of the entry's time, and not the clock's: one of years ahead would make this the last for as long.
            return put_anchor(token, token_id, self._chain, self.newest_moment())

    def checkpoint(self) -> str:
        """The newest head as a signed note, for the officer to keep elsewhere."""
        from medcrypt_hsm.vault.audit.checkpoints import Checkpoint

        with self.file.snapshot():
            row = self.file.newest()
            assert row is not None
            time = self.read_entry(row).time
            note = Checkpoint(self.state.vault_id, row.sequence, row.hash, row.trust, time)
        return self.signed_note(note.text)

    def signed_note(self, text: str) -> str:
        """``text``, which ends with a newline, as a C2SP signed note by this token's audit key."""
        from medcrypt_hsm.vault.audit.checkpoints import note_name, signed_note

        signature = self.token.sign(audit_key_name(self.state.vault_id), text.encode())
        return signed_note(text, note_name(self.state.vault_id), self.registered.id[:4], signature)

    def exchange_keyset(self, keyset: VaultKeyset) -> None:
        """Go on under another keyset of this vault: the one that a re-key has just committed."""
        self._drop_keys()
        self.keyset = keyset

    def _drop_keys(self) -> None:
        with contextlib.suppress(MedcryptError):
            for key in self._log_keys.values():
                key.destroy()
            if self._seen_root is not None:
                self._seen_root.destroy()
            self.keyset.destroy()
        self._log_keys.clear()
        self._seen_root = None

    def lock(self) -> None:
        self._drop_keys()
        self.token.close()
