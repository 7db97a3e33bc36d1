"""``Unlocked``: a verified vault that can be worked with, and ``Unlocked.change``, the one way to alter it.

    unlocked.file       rows, as they are stored            unlocked.log      entries, head, checkpoints (open_log.py)
    unlocked.state      whom the vault trusts               unlocked.clock    the time, believed (clock.py)
    unlocked.keyset     what its keys are used through      unlocked.token    the token that holds the root KEK

In: what unlock.py verified and unwrapped. Out: changes. Under the write lock a change looks again at what others wrote;
then state change, audit entry and signed head commit together, or nothing does. Handles stay on the token. Not here:
what must hold before there is an ``Unlocked`` (unlock.py), and what a change writes (change.py, and its callers).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

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
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.vault import anchoring
from medcrypt_hsm.vault.anchoring import Anchor
from medcrypt_hsm.vault.audit import trust
from medcrypt_hsm.vault.audit.actions import CLEAR_ACTIONS
from medcrypt_hsm.vault.audit.bound import BoundRows
from medcrypt_hsm.vault.audit.chain import Chain
from medcrypt_hsm.vault.audit.trust import RegisteredToken, TrustState
from medcrypt_hsm.vault.audit.trust_custody import Use
from medcrypt_hsm.vault.audit.walk import check_guests, extend_to_newest
from medcrypt_hsm.vault.change import Change, sign_entry
from medcrypt_hsm.vault.clock import Clock, VaultClock
from medcrypt_hsm.vault.keyset import PATIENT, SEEN, VaultKeyset
from medcrypt_hsm.vault.open_log import OpenLog
from medcrypt_hsm.vault.seen import SeenRoot
from medcrypt_hsm.vault.store.rows import EntryRow
from medcrypt_hsm.vault.store.store import Store


def _no_session() -> None: ...


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
        self.rows = BoundRows(self)
        self.log = OpenLog(file, self.rows, chain, keyset, token, registered.id)
        self.clock = VaultClock(clock)
        self.anchor: Anchor | None = None  # the token's own, as last seen or written
        self.unsettled = ""  # why what an interrupted run left could not be ended at the unlock
        # Whether the token has signed something for the audit key that the file has on record. Until then all that the
        # file says may be its writer's invention, and nothing of it leaves the program (ADR 0024).
        self.proven = True
        self._actor = actor
        self.end_session: Callable[[], object] = _no_session  # called where a re-key ends what others hold unlocked
        self._seen_root: SeenRoot | None = None
        # Of a use of break-glass (breakglass/recover.py):
        self.guest = ""  # the one patient that it is for: it changes no trust state, and writes no anchor
        self.signing_key: str | None = None  # other than the audit key

    def over(self, file: Store) -> Unlocked:
        """The same token and keys over another file of this vault: a copy that is to be verified."""
        with file.snapshot():
            state = trust.parse(file.trust_rows())
        chain, clock = self.log.chain, self.clock.machine
        return Unlocked(file, self.token, self.registered, state, self.keyset, chain, self._actor, clock)

    def move_to(self, file: Store) -> None:
        """Go on with the same vault, whose file has another path now."""
        self.file = self.log.file = file

    def look_at_clock(self) -> None:
        """Know the newest entry's time, against which the clock is held. Raises AuditBroken."""
        self.clock.newest_entry = self.log.newest_time()

    def seen_root(self) -> SeenRoot:
        """Raises VaultDamaged."""
        if self._seen_root is None:
            row = self.rows.record(SEEN, b"", "")
            if row is None:
                raise VaultDamaged("the key by which seen messages are recognised is missing from the vault")
            self._seen_root = self.keyset.seen_root(row)
        return self._seen_root

    @contextlib.contextmanager
    def acting_as(self, actor: str) -> Iterator[None]:
        """Entries of the block are of this actor."""
        before, self._actor = self._actor, actor
        try:
            yield
        finally:
            self._actor = before

    # What others wrote

    def notice(self) -> None:
        """Without writing: is this still the vault that was unlocked, and what others wrote since a part of its log?

        Raises AuditBroken, VaultBusy. For who keeps a vault unlocked and answers from it.
        """
        if not self.file.is_in_place():
            raise VaultBusy(
                t("the vault {vault} was restored meanwhile", vault=self.file.location), "run the command again"
            )
        with self.file.snapshot():
            self.catch_up()

    def catch_up(self) -> None:
        """Under the write lock: take over what others wrote since. Raises AuditBroken, VaultBusy."""
        newest, known = self.file.newest(), self.log.chain
        if newest is None:
            raise AuditBroken("the audit log has vanished", at=1)
        if newest.sequence == known.sequence:
            if newest.hash != known.hash:
                raise AuditBroken(t("audit entry {entry} was exchanged", entry=newest.sequence), at=newest.sequence)
            return
        chain = extend_to_newest(self.file, known)
        state = trust.parse(self.file.trust_rows())
        if chain.trust != state.digest:
            raise AuditBroken("the trust state is not the one that the newest head signed", at=newest.sequence)
        if state.generation != self.state.generation:
            raise VaultBusy(
                "the vault was re-keyed meanwhile", "run the command again; a program opens the vault again"
            )
        # Taken over at the end, so that whatever was refused is refused again the next time.
        self.log.chain, self.state = chain, state
        self.look_at_clock()

    def was_rekeyed(self) -> bool:
        """Is the file under another keyset by now? Whatever failed since may have failed for that."""
        try:
            with self.file.snapshot():
                return trust.parse(self.file.trust_rows()).generation != self.state.generation
        except VaultError:
            return False

    # Changing it

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
        with self.rows.changing(), self.file.transaction():
            self.catch_up()
            before = self.log.chain
            now = self.clock.now() if named_month else self.clock.entry_time(self.state.newest_month)
            change = Change(self.file, self.rows, self.state.digest, before.sequence + 1, timestamp(now))
            change.subject, change.outcome = subject, outcome
            if before.guest is not None and self.guest:
                before.guest.check_time(change.time)
            if not self.guest:
                check_guests(self.file, before, self.log.read_entry, self.is_of)
                for use in before.unnoted.values():
                    change.put_trust("use", use.request.hex(), use.value())
            yield change
            change.put_roots()
            state = trust.parse(self.file.trust_rows()) if change.trust_changed else self.state
            entry = change.entry(action, self._actor, self.registered.name)
            stored = self.log.stored(entry, change.sequence, self.state.log_key)
            row = self._signed(before, stored, state.digest)
            after = before.copy()
            after.extend(row, check_head=False)  # what a reader would refuse is never committed
            self.file.append(row)
            if before_commit is not None:
                before_commit(row.hash)
        self.log.chain, self.state, self.clock.newest_entry = after, state, change.time

    def _signed(self, before: Chain, stored: bytes, digest: bytes) -> EntryRow:
        """The entry's row; an audit key's first one proves it, as a challenge would. Raises VaultRolledBack."""
        if self.proven:
            return sign_entry(self.token, before, self.registered.id, stored, digest, self.signing_key)
        try:
            row = sign_entry(self.token, before, self.registered.id, stored, digest, public=self.registered.audit_key)
        except (KeyError, NotAuthentic) as exc:
            raise anchoring.not_its_key(self.registered) from exc
        self.proven = True
        return row

    def record(self, action: str, subject: str = "", detail: dict[str, Any] | None = None) -> None:
        """An entry alone."""
        with self.change(action, subject) as change:
            change.detail.update(detail or {})

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every use of break-glass: those on record, and those that the next entry will note."""
        return (*self.state.uses, *self.log.chain.unnoted.values())

    def is_of(self, pairing: bytes, patient: str) -> bool:
        """Is that pairing of the patient with this id?"""
        row = self.rows.sealed(PATIENT, pairing)
        return row is not None and self.keyset.open(row)["id"] == patient

    # The token's memory of it

    def anchor_is_due(self) -> bool:
        return anchoring.is_due(self.anchor, self.file, self.log.chain, self.clock)

    def write_anchor(self) -> Anchor:
        """Make the token remember the newest head. Only ever of a committed entry, and under the write lock."""
        self.anchor = self.write_anchor_on(self.token, self.registered.id)
        return self.anchor

    def write_anchor_on(self, token: Token, token_id: bytes) -> Anchor:
        """The same for another of the vault's tokens, which is known to have seen no other history."""
        with self.file.transaction():
            self.catch_up()
            # The entry's time, and not the clock's: an anchor dated years ahead would be the last one for years.
            return anchoring.put_anchor(token, token_id, self.log.chain, self.clock.newest_moment())

    # Its keys

    def exchange_keyset(self, keyset: VaultKeyset) -> None:
        """Go on under another keyset of this vault: the one that a re-key has just committed."""
        self.drop_keys()
        self.keyset = self.log.keyset = keyset

    def drop_keys(self) -> None:
        """Destroy every handle; the token stays open."""
        with contextlib.suppress(MedcryptError):
            self.log.drop_keys()
            if self._seen_root is not None:
                self._seen_root.destroy()
            self.keyset.destroy()
        self._seen_root = None

    def lock(self) -> None:
        self.drop_keys()
        self.token.close()
