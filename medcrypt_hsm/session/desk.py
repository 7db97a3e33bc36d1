"""What a session's connections share: the unlocked vault, and the rules by which they get their turn at it.

In: a connection that wants to work. Out: the vault, for one operation at a time, in that person's name; and what the
session remembers: how many operations of which kind, and which came from elsewhere. Not here: the operations
(service.py), the process (agent.py).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from medcrypt_hsm.api.vault import Vault
from medcrypt_hsm.errors import MedcryptError, SessionEnded, TokenRemoved, VaultBusy, VaultError
from medcrypt_hsm.messages.months import MonthsOpened
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.session.deadlines import Deadlines
from medcrypt_hsm.session.service import Service
from medcrypt_hsm.session.whose import Peer, Terminal
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.unlock import unlock

LAST = 10  # operations that the status shows


class Desk:
    """``end`` is told why the session is over."""

    def __init__(
        self,
        terminal: Terminal,
        deadlines: Deadlines,
        end: Callable[[str], None],
        *,
        archive: bool,
        anywhere: bool,
        finger: bool,
    ) -> None:
        """``finger``: using the root key waits for one, so that each connection unlocks the vault for itself."""
        self.archive = archive
        self.anywhere = anywhere
        self.finger = finger
        self.terminal = terminal
        self.deadlines = deadlines
        self.counts: Counter[str] = Counter()
        self.last: deque[dict[str, Any]] = deque(maxlen=LAST)
        self.over = ""
        self.served: Service | None = None  # the connection whose turn it is
        self._end = end
        self._elsewhere: Counter[str] = Counter()  # by program, since the last command from here
        self._turn = threading.RLock()
        self.vault: Vault  # set by whoever opened it

    def end(self, why: str) -> None:
        """The first reason counts; "" is none."""
        if why and not self.over:
            self.over = why
            self._end(why)

    # Who

    def is_here(self, peer: Peer) -> bool:
        """In the terminal in which the session was started?"""
        return self.terminal.is_same(peer.terminal)

    def serves(self, peer: Peer) -> bool:
        """From here: as long as the process that connected runs, here. What it handed its socket to is not served."""
        return self.anywhere or (self.is_here(peer) and peer.stays())

    def elsewhere(self, peer: Peer) -> dict[str, int]:
        """What a command from here is told: operations from elsewhere since the last one, by program."""
        return dict(self._elsewhere) if self.is_here(peer) else {}

    def note(self, action: str, service: Service, outcome: str) -> None:
        """An operation that was done. Those from elsewhere do not keep the session alive."""
        peer = service.peer
        self.counts[action] += 1
        here = self.is_here(peer)
        if here:
            self.deadlines.used()
            self._elsewhere -= Counter(service.elsewhere)  # told, by a command that has worked
            service.elsewhere = {}
        else:
            self._elsewhere[peer.program] += 1
        self.last.append(
            {
                "time": timestamp(datetime.now(UTC)),
                "action": action,
                "outcome": outcome,
                "program": peer.program,
                "process": peer.pid,
                "elsewhere": not here,
            }
        )

    # Turns

    def try_turn(self) -> bool:
        return self._turn.acquire(blocking=False)

    def leave_turn(self) -> None:
        self._turn.release()

    @contextmanager
    def turn(self, service: Service, *, checked: bool = True) -> Iterator[Vault]:
        """The vault, for one operation in the name of who is at the other end. Raises SessionEnded.

        ``checked=False`` for what only records how something ended.
        """
        with self._turn:
            if checked:
                self.end(self.deadlines.over)  # a machine that woke up serves nobody first
                if self.over:
                    raise _ended()
            self.served = service
            try:
                vault = self._vault_for(service)
                with vault._vault.acting_as(service.peer.actor):
                    if checked:
                        self._notice(vault)
                    yield vault
            finally:
                self.served = None

    def _notice(self, vault: Vault) -> None:
        """Is it still the vault that was unlocked? Otherwise nothing is read or written, and the session ends."""
        unlocked = vault._unlocked
        try:
            unlocked.notice()
        except VaultError as exc:
            if not unlocked.file.is_in_place():
                self.end("restored")
            elif unlocked.was_rekeyed():
                self.end("rekeyed")
            elif isinstance(exc, VaultBusy):
                raise
            else:
                self.end("changed")
            raise SessionEnded(
                "the session has ended: the vault was restored, re-keyed or exchanged since it began"
            ) from exc

    def judge(self, exc: Exception) -> None:
        """What an operation raised may end the session: a token that is gone, a vault that was re-keyed meanwhile."""
        if isinstance(exc, TokenRemoved):
            self.end("token")
        elif isinstance(exc, MedcryptError):
            with self._turn:  # nobody else reads or writes meanwhile
                if self.vault._unlocked.was_rekeyed():
                    self.end("rekeyed")

    def _vault_for(self, service: Service) -> Vault:
        if not self.finger:
            return self.vault
        if service.own is None:
            main = self.vault._unlocked
            with ExitStack() as stack:
                file = open_store(main.file.location)
                stack.callback(file.close)
                name = main.registered.name
                unlocked = unlock(file, main.token, name, actor=service.peer.actor, clock=main.clock.machine)
                stack.callback(unlocked.drop_keys)
                service.own = Vault._of(unlocked, self.month_opened, lambda: None)
                service.kept = stack.pop_all()
        return service.own

    def month_opened(self, opened: MonthsOpened) -> None:
        """Said to the command whose turn it is, before anything else is done."""
        if self.served is not None:
            self.served.month_opened(opened)


def _ended() -> SessionEnded:
    return SessionEnded(t("the session was locked, or has ended, while a command used it"))
