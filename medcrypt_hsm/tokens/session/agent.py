"""The agent: the process that keeps a session's token open, and ends with it.

    logged in ─▶ listen ─▶ serve … ─▶ idle, time over, locked, screen locked, token gone, signal ─▶ record ─▶ exit

In: one open token, one vault's id, a locked place. It holds no vault file and no PIN. The main thread watches time,
token and screen; each connection has a thread, and one lock lets them use the token in turns. The end waits for no
connection: a command that stalls loses what it has not read by then.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.tokens import Token, TokenInfo
from medcrypt_hsm.tokens.session import place, protocol
from medcrypt_hsm.tokens.session.deadlines import Deadlines
from medcrypt_hsm.tokens.session.protocol import Frame, Op, ProtocolError, encode
from medcrypt_hsm.tokens.session.screen import Screen
from medcrypt_hsm.tokens.session.service import KekGone, Service
from medcrypt_hsm.version import VERSION

LOOK = 0.8  # seconds between two looks at the token: one that is gone is noticed within two seconds
MOST_CONNECTIONS = 100
LONGEST_END = 10  # seconds to record the end; then the process ends without a record
_REASONS = ("lock", "rekey", "exclusive", "failed")  # that a command may give for locking a session


class Word(Protocol):
    """How the vault is told of a session's end (vault/session_end.py)."""

    def record(self, vault: str, token: Token, name: str, actor: str, why: str) -> None:
        """An audit entry, with the token that is still open."""

    def leave_note(self, vault: str, name: str, actor: str, why: str) -> None:
        """A note beside the vault, where no entry can be written."""


class Agent:
    """A session. ``run`` serves until it is over."""

    def __init__(
        self,
        token: Token,
        name: str,
        vault: str,
        vault_id: bytes,
        actor: str,
        where: place.Place,
        deadlines: Deadlines,
        screen: Screen,
        word: Word,
        *,
        silent_end: bool = False,
    ) -> None:
        """``silent_end``: using the root KEK waits for a finger, so that its end is noted and not recorded.

        Wide because it stays as it is until sessions have a layer of their own.
        """
        self._token = token
        self._name = name
        self._vault = vault
        self._vault_id = vault_id
        self._actor = actor
        self._place = where
        self._deadlines = deadlines
        self._screen = screen
        self._word = word
        self._silent_end = silent_end
        self._turn = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._lockers: list[socket.socket] = []
        self._served: socket.socket | None = None  # the connection whose turn it is
        self._over = ""
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    # The main thread

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self.end("signal"))
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        missed = 0
        while not self._over:
            watched = [self._place.listening.fileno(), self._woken, *self._screen.files]
            ready, _, _ = select.select(watched, [], [], min(self._deadlines.left, LOOK))
            if self._place.listening.fileno() in ready:
                self._accept()
            if any(file in ready for file in self._screen.files) and self._screen.was_locked(ready):
                self.end("screen")
            self.end(self._deadlines.over)
            # Another program's login makes SoftHSM2 look empty for a moment, so a single miss does not count.
            missed = missed + 1 if self._is_gone() else 0
            if missed == 2:
                self.end("token")
        self._finish()

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._place.listening.accept()
            if not place.peer_is_us(connection) or len(self._connections) >= MOST_CONNECTIONS:
                connection.close()
                return
            connection.setblocking(True)
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _is_gone(self) -> bool:
        if not self._turn.acquire(blocking=False):
            return False  # whoever has it finds out
        try:
            self._token.refuse_gone()
        except MedcryptError:
            return True
        finally:
            self._turn.release()
        return False

    def end(self, why: str) -> None:
        """From any thread; the first reason counts. "" is none."""
        if why and not self._over:
            self._over = why
            with suppress(OSError):
                os.write(self._wake, b"\0")

    def _finish(self) -> None:
        """Nobody is served from here on; then the vault is told of the end, and the token closed."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONGEST_END)  # a vault or a token that does not answer keeps nothing unlocked
        self._place.close()
        self._screen.close()
        for connection in [*self._connections]:
            if connection not in self._lockers:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._leave_word()
        for connection in self._lockers:
            with suppress(OSError):
                connection.sendall(encode(Op.DONE))
        atexit._run_exitfuncs()  # modules are finalised
        os._exit(0)  # the threads' frames hold nothing that would have to be put away

    def _leave_word(self) -> None:
        patience = time.monotonic() + 2
        while not self._turn.acquire(blocking=False):
            if time.monotonic() > patience:  # the token waits for a finger; that ends with the process
                self._word.leave_note(self._vault, self._name, self._actor, self._over)
                return
            time.sleep(0.01)
        try:
            if self._silent_end or self._over in ("token", "rekeyed"):
                self._word.leave_note(self._vault, self._name, self._actor, self._over)
            else:
                self._word.record(self._vault, self._token, self._name, self._actor, self._over)
        except Exception:
            self._word.leave_note(self._vault, self._name, self._actor, self._over)
        with suppress(Exception):
            self._token.close()

    # A connection's thread

    def _serve(self, connection: socket.socket) -> None:
        service = Service(self._token, self._vault_id)
        try:
            greeted = False
            while (frame := protocol.receive(connection)) is not None and not self._over:
                if frame.op is Op.LOCK:
                    self._lock(connection, frame)
                    return
                if not greeted:
                    greeted = self._greet(connection, frame)
                    continue
                connection.sendall(self._answer(connection, service, frame))
        except (OSError, ProtocolError):
            pass
        finally:
            if not self._over:
                with self._turn:
                    service.close()
                self._connections.discard(connection)
                connection.close()

    def _lock(self, connection: socket.socket, frame: Frame) -> None:
        why = protocol.text(frame.fields[0])
        self._lockers.append(connection)  # told when it is done
        self.end(why if why in _REASONS else "lock")

    def _greet(self, connection: socket.socket, frame: Frame) -> bool:
        version, program = frame.fields if frame.op is Op.HELLO else (b"", b"")
        if version != bytes((protocol.VERSION,)) or program != VERSION.encode():
            raise ProtocolError("another version")
        said = {
            "info": protocol.info_document(self._token.info),
            "token": self._name,
            "vault_id": self._vault_id.hex(),
        }
        connection.sendall(encode(Op.DONE, [canonical(said)]))
        return True

    def _answer(self, connection: socket.socket, service: Service, frame: Frame) -> bytes:
        if frame.op is Op.STATUS:
            return encode(Op.DONE, [canonical(self._status())])
        with self._turn:
            self.end(self._deadlines.over)  # a machine that woke up serves nobody first
            if self._over:
                raise ProtocolError("it is over")
            self._served = connection
            try:
                return service.answer(frame)
            except KekGone as gone:
                (told,) = gone.args
                connection.sendall(bytes(told))  # before the end, which shuts every connection
                self.end("rekeyed")
                return b""
            finally:
                self._served = None
                self._deadlines.used()

    def _status(self) -> dict[str, object]:
        return {
            "running": True,
            "vault": self._vault,
            "token": self._name,
            **self._deadlines.document(),
            "screen_lock": list(self._screen.noticed),
            "process": os.getpid(),
        }

    @contextmanager
    def touching(self, info: TokenInfo) -> Iterator[None]:
        """Tells the command whose turn it is that the token waits for a finger."""
        connection = self._served
        if connection is not None:
            connection.sendall(encode(Op.TOUCH))
        try:
            yield
        finally:
            if connection is not None:
                connection.sendall(encode(Op.TOUCHED))
