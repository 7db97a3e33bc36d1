"""The agent: the process that keeps a session's vault unlocked, and ends with it.

    unlocked … ─▶ listen ─▶ serve … ─▶ idle, time over, locked, screen locked, token gone, vault changed, signal ─▶
    record ─▶ exit

In: a desk with an unlocked vault, a claimed place. The main thread watches time, token, vault and screen; each
connection has a thread, and they take turns at the vault. The end waits for no connection: a command that stalls loses
what it has not read by then. Not here: what is done for a connection (service.py), and whose turn it is (desk.py).
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.session import frames, requests, transfer
from medcrypt_hsm.session.deadlines import Deadlines
from medcrypt_hsm.session.desk import Desk
from medcrypt_hsm.session.frames import ProtocolError, encode
from medcrypt_hsm.session.place import Place
from medcrypt_hsm.session.screen import Screen
from medcrypt_hsm.session.service import Service
from medcrypt_hsm.session.whose import Peer
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.vault.audit.actions import SESSION_END
from medcrypt_hsm.vault.clock import system_clock
from medcrypt_hsm.version import VERSION

LOOK = 0.8  # seconds between two looks at token and vault: one that is gone is noticed within two seconds
MOST_CONNECTIONS = 32
LONGEST_END = 10  # seconds to record the end; then the process ends without a record
PATIENCE = 30  # seconds in which a command must read what it is told, or say the rest of what it began to say
REASONS = ("lock", "rekey", "exclusive", "failed")  # that a command may give for locking a session
NAMES = {
    frames.ENCRYPT: "encrypt",
    frames.DECRYPT: "decrypt",
    frames.IMPORT: "import",
    frames.SEND_FILE: "encrypt-file",
    frames.TAKE_FILE: "decrypt-file",
    frames.PATIENTS: "patient list",
    frames.PATIENT: "patient show",
    frames.MONTH: "rotate",
    frames.VAULT: "status",
    frames.LOG: "audit show",
    frames.EXPORT: "audit export",
    frames.VERIFY: "audit verify",
    frames.CHECKPOINT: "audit checkpoint",
    frames.ADD: "patient add",
    frames.CONFIRM: "patient confirm",
    frames.QR: "patient qr",
    frames.REPAIR: "patient repair",
}
"""What an operation is called, where it is counted; what only goes on with one is not counted again."""


class Agent:
    """A session. ``run`` serves until it is over."""

    def __init__(self, where: Place, screen: Screen, memory_locked: bool) -> None:
        self.desk: Desk  # set by whoever opened the vault
        self.deadlines: Deadlines
        self.actor = ""
        self.vault_path = ""
        self._place = where
        self._screen = screen
        self._memory_locked = memory_locked
        self._connections: set[socket.socket] = set()
        self._lockers: list[socket.socket] = []
        self._reading = threading.Lock()  # one long request at a time is in memory before it has its turn
        self._kept: list[int] = []  # descriptors of the vault's own files: never closed
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        frames.closed_by = self._close_descriptor

    # The main thread

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self.desk.end("signal"))
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        missed = 0
        while not self.desk.over:
            watched = [self._place.listening.fileno(), self._woken, *self._screen.files]
            ready, _, _ = select.select(watched, [], [], min(self.deadlines.left, LOOK))
            if self._place.listening.fileno() in ready:
                self._accept()
            if any(file in ready for file in self._screen.files) and self._screen.was_locked(ready):
                self.desk.end("screen")
            self.desk.end(self.deadlines.over)
            # Another program's login makes SoftHSM2 look empty for a moment, so a single miss does not count.
            missed = missed + 1 if self._is_gone() else 0
            if missed == 2:
                self.desk.end("token")
        self._finish()

    def wake(self, why: str) -> None:
        """From any thread: the session is over."""
        with suppress(OSError):
            os.write(self._wake, b"\0")

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._place.listening.accept()
            peer = None
            with suppress(OSError, ValueError, IndexError):
                peer = Peer.of_socket(connection)
            if peer is None or peer.uid != os.geteuid() or len(self._connections) >= MOST_CONNECTIONS:
                connection.close()
                if peer is not None:
                    peer.close()
                return
            connection.setblocking(True)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection, peer), daemon=True).start()

    def _is_gone(self) -> bool:
        """Looks at the token; and at the vault, which a re-key or a restore may have changed."""
        unlocked = self.desk.vault._unlocked
        if unlocked.file.is_in_place() and not self._place.is_in_place():
            self.desk.end("place")
        if not self.desk.try_turn():
            return False  # whoever has it finds out
        try:
            if not unlocked.file.is_in_place():
                self.desk.end("restored")
            elif unlocked.was_rekeyed():
                self.desk.end("rekeyed")
            unlocked.token.refuse_gone()
        except MedcryptError:
            return True
        finally:
            self.desk.leave_turn()
        return False

    def _finish(self) -> None:
        """Nobody is served from here on; then the end is recorded, and the token closed."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONGEST_END)  # a vault or a token that does not answer keeps nothing unlocked
        self._place.stop_listening()
        self._screen.close()
        for connection in [*self._connections]:
            if connection not in self._lockers:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._record_end()
        self._place.close()
        for connection in self._lockers:
            with suppress(OSError):
                connection.sendall(encode(frames.DONE))
        atexit._run_exitfuncs()  # modules are finalised
        os._exit(0)  # the threads' frames hold nothing that would have to be put away

    def _record_end(self) -> None:
        patience = time.monotonic() + 2
        while not self.desk.try_turn():
            if time.monotonic() > patience:  # the token waits for a finger; that ends with the process
                self._leave_note()
                return
            time.sleep(0.01)
        unlocked = self.desk.vault._unlocked
        detail: dict[str, Any] = {"why": self.desk.over, "operations": dict(self.desk.counts)}
        try:
            if self.desk.finger or self.desk.over in ("token", "rekeyed", "restored", "changed"):
                self._leave_note()
            else:
                with unlocked.acting_as(self.actor):
                    unlocked.record(SESSION_END, unlocked.registered.name, detail)
        except Exception:
            self._leave_note()
        with suppress(Exception):
            self.desk.vault.close()

    def _leave_note(self) -> None:
        from medcrypt_hsm.notation import timestamp
        from medcrypt_hsm.vault import notes
        from medcrypt_hsm.vault.store.rows import Location

        name = self.desk.vault._unlocked.registered.name
        with suppress(MedcryptError, OSError):
            notes.write(
                Location.parse(self.vault_path),
                SESSION_END,
                timestamp(system_clock()),
                token=name,
                actor=self.actor,
                why=self.desk.over,
                operations=dict(self.desk.counts),
            )

    # A connection's thread

    def _serve(self, connection: socket.socket, peer: Peer) -> None:
        service = Service(self.desk, connection, peer)
        greeted = False
        fds: list[int] = []
        try:
            while (frame := frames.receive(connection, frames.REQUESTS, self._reading)) is not None:
                kind, asked, fds = frame[0], frame[1], self._own(frame[2])
                if self.desk.over:
                    break
                if kind == frames.LOCK:
                    self._lock(connection, asked)
                    return
                requests.check(kind, asked, len(fds))
                if not greeted:
                    self._greet(connection, service, kind, asked)
                    greeted = True
                elif kind == frames.STATUS:
                    connection.sendall(encode(frames.DONE, self._status()))
                elif self.desk.serves(peer):
                    given, fds = fds, []
                    self._work(connection, service, kind, asked, given)
                else:
                    raise ProtocolError("not this terminal's")
        except (OSError, ProtocolError):
            pass
        finally:
            for fd in fds:
                os.close(fd)
            if not self.desk.over:
                service.close()
                self._connections.discard(connection)
                connection.close()
                peer.close()

    def _work(
        self, connection: socket.socket, service: Service, kind: int, asked: dict[str, Any], fds: list[int]
    ) -> None:
        """One operation, counted whatever becomes of it."""
        outcome = "failed"
        try:
            answer = service.answer(kind, asked, fds)
            outcome = "done" if answer[4] == frames.DONE else "failed"
        finally:
            if kind in NAMES:
                self.desk.note(NAMES[kind], service, outcome)
        connection.sendall(answer)

    def _own(self, fds: list[int]) -> list[int]:
        """Those that may be closed. Whoever sends the vault's own file has ended the session."""
        own = [fd for fd in fds if not (transfer.is_of_vault(fd, self.vault_path) or self._place.is_lock(fd))]
        if len(own) != len(fds):
            self._kept += [fd for fd in fds if fd not in own]
            self.desk.end("descriptor")
            for fd in own:
                os.close(fd)
            return []
        return own

    def _close_descriptor(self, fd: int) -> None:
        for own in self._own([fd]):
            os.close(own)

    def _lock(self, connection: socket.socket, asked: dict[str, Any]) -> None:
        why = asked.get("why")
        self._lockers.append(connection)  # told when it is done
        self.desk.end(why if isinstance(why, str) and why in REASONS else "lock")

    def _greet(self, connection: socket.socket, service: Service, kind: int, asked: dict[str, Any]) -> None:
        if kind != frames.HELLO or asked != {"version": frames.VERSION, "program": VERSION}:
            raise ProtocolError("no greeting, or one of another version")
        serves = self.desk.serves(service.peer)
        service.elsewhere = self.desk.elsewhere(service.peer)
        unlocked = self.desk.vault._unlocked
        told = {
            "serves": serves,
            "vault_id": unlocked.state.vault_id.hex(),
            "token": unlocked.registered.name,
            "label": unlocked.token.info.label,
            "archive": self.desk.archive,
            "exclusive": not unlocked.token.info.uri.startswith("pkcs11:"),
            "elsewhere": service.elsewhere if serves else {},
        }
        connection.sendall(encode(frames.DONE, told))

    def _status(self) -> dict[str, Any]:
        return {
            "running": True,
            "vault": self.vault_path,
            "token": self.desk.vault.token_name,
            **self.deadlines.document(),
            "screen_lock": list(self._screen.noticed),
            "process": os.getpid(),
            "terminal": None if self.desk.anywhere else self.desk.terminal.leader,
            "archive": self.desk.archive,
            "memory_locked": self._memory_locked,
            "operations": dict(self.desk.counts),
            "last": list(self.desk.last),
        }

    @contextmanager
    def touching(self, info: TokenInfo) -> Iterator[None]:
        """Tells the command whose turn it is that the token waits for a finger."""
        service = self.desk.served
        if service is not None:
            service.say(frames.TOUCH, {"label": info.label})
        try:
            yield
        finally:
            if service is not None:
                service.say(frames.TOUCHED, {})
