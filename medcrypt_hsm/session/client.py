"""A command's side of a session: a connection, and what is asked over it.

In: a vault's path. Out: answers as they came, or the error that was answered, in this program's own words. Nobody is
asked for a PIN because of what comes from here. Not here: the library's values (remote.py).

Loaded by every command that a session serves, so it imports next to nothing.
"""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

from medcrypt_hsm.errors import Failed, Malformed, MedcryptError, SessionEnded, UsageError
from medcrypt_hsm.sentences import t
from medcrypt_hsm.session import frames, place
from medcrypt_hsm.session.frames import ProtocolError
from medcrypt_hsm.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    Touch = Callable[[str], AbstractContextManager[object]]

PATIENCE = 600.0  # seconds for an answer: a whole log is verified, a finger awaited, other commands have their turns
LONGEST_END = 20.0  # an agent ends within half of that


class Line:
    """A connection to a vault's agent. Requests and answers take turns.

    ``told`` is what it said of itself. ``on_opened`` is told of a month that opened by itself: ``months``, ``pairings``
    and ``checkpoint``; ``touch`` is entered around a wait for a finger, with the token's label.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.told: dict[str, Any] = {}
        self.on_opened: Callable[[Any], object] | None = None
        self.touch: Touch | None = None

    @property
    def serves(self) -> bool:
        """This terminal?"""
        return self.told.get("serves") is True

    @property
    def archive(self) -> bool:
        """Was it started for archived months, imports and exports?"""
        return self.told.get("archive") is True

    @property
    def exclusive(self) -> bool:
        """Does its token serve one program at a time?"""
        return self.told.get("exclusive") is True

    @property
    def token(self) -> str:
        """The token's short name."""
        return str(self.told.get("token", ""))

    def greet(self) -> None:
        """Raises ProtocolError, OSError, SessionEnded."""
        self._connection.sendall(frames.encode(frames.HELLO, {"version": frames.VERSION, "program": VERSION}))
        self.told = self._answer(None)

    def ask(
        self,
        kind: int,
        value: dict[str, Any] | None = None,
        some: Callable[[dict[str, Any]], object] | None = None,
        fds: Sequence[int] = (),
    ) -> dict[str, Any]:
        """What is answered; ``some`` gets what comes before. Raises the error that is answered, or SessionEnded."""
        frame = frames.encode(kind, value)
        try:
            if fds:
                sent = socket.send_fds(self._connection, [frame], list(fds))
                frame = frame[sent:]
            self._connection.sendall(frame)
            return self._answer(some)
        except (OSError, ProtocolError) as exc:
            self.close()
            raise SessionEnded("the session has ended while a command used it") from exc

    def _answer(self, some: Callable[[dict[str, Any]], object] | None) -> dict[str, Any]:
        while (frame := frames.receive(self._connection, frames.ANSWERS)) is not None:
            kind, value, _ = frame
            if kind == frames.DONE:
                return value
            if kind == frames.ERROR:
                from medcrypt_hsm.session import said

                raise said.error_of(value)
            if kind == frames.SOME and some is not None:
                some(value)
            elif kind == frames.OPENED:
                if self.on_opened is not None:
                    self.on_opened(SimpleNamespace(**value))
            elif kind == frames.TOUCH:
                self._touched(value)
            else:
                break
        self.close()
        raise SessionEnded("the session was locked, or has ended, while a command used it")

    def _touched(self, value: dict[str, Any]) -> None:
        if self.touch is None:
            return
        with self.touch(str(value.get("label", ""))):
            frame = frames.receive(self._connection, frames.ANSWERS)
        if frame is None or frame[0] != frames.TOUCHED:
            raise ProtocolError("no end of a touch")

    def kept(self) -> None:
        """While a file is awaited: it has its name."""
        self._connection.sendall(frames.encode(frames.KEPT))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def find(vault: str) -> Line | None:
    """To the agent of this vault, which has said what it is; None where none runs. Raises Failed."""
    for _ in range(3):
        connection = place.find(vault)
        if connection is None:
            return None
        line = Line(connection)
        try:
            connection.settimeout(place.GREETING)
            line.greet()
            connection.settimeout(PATIENCE)
            return line
        except TimeoutError as exc:
            raise _silent(connection) from exc
        except (OSError, ProtocolError, MedcryptError):  # it may have ended just now
            line.close()
    raise Failed(
        "the session of this vault does not answer, or is one of another version of this program",
        "end it: 'medcrypt session lock'",
    )


def _silent(connection: socket.socket) -> Failed:
    """What to say of an agent that does not answer."""
    with connection:
        try:
            pid, _, handle = place.peer_of(connection)
        except OSError:
            return Failed("the session of this vault has just ended", "run the command again")
        if handle >= 0:
            os.close(handle)
        return place.unreached(pid)


def status(vault: str) -> dict[str, Any] | None:
    """What the agent of this vault says of its session, as docs/operator/commands.md has it."""
    line = find(vault)
    if line is None:
        return None
    with line:
        try:
            return line.ask(frames.STATUS)
        except SessionEnded:
            return None


def lock(vault: str, why: str) -> bool:
    """End the session of this vault, if one runs; whether one did. Returns when its token is closed. Raises Failed."""
    connection = place.find(vault)
    if connection is None:
        return False
    with connection:
        connection.settimeout(LONGEST_END)
        try:
            connection.sendall(frames.encode(frames.LOCK, {"why": why}))
            frames.receive(connection, frames.ANSWERS)
        except TimeoutError as exc:
            raise _silent(connection) from exc
        except (OSError, ProtocolError):  # one that breaks off has ended
            return True
    return True


def said_elsewhere(told: dict[str, Any]) -> str:
    """What came from other terminals since the last command from this one, in words; "" for nothing."""
    elsewhere = told.get("elsewhere")
    if not (isinstance(elsewhere, dict) and elsewhere):
        return ""
    programs = ", ".join(f"{program}: {count}" for program, count in elsewhere.items())
    return t(
        "since the last command here {count} operations came from elsewhere ({programs})",
        count=sum(count for count in elsewhere.values() if type(count) is int),
        programs=programs,
    )


class Work:
    """The operations that run all day, over a connection; what they give has the library's names for its parts."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.month = ""

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *exc: object) -> None:
        self._line.close()

    def encrypt(self, patient_id: str, text: str) -> list[str]:
        """Wire texts, one a part; ``month`` is then the one under which they were encrypted."""
        answer = self._line.ask(frames.ENCRYPT, {"patient": patient_id, "text": text})
        self.month = str(answer["month"])
        return [str(message) for message in answer["messages"]]

    def decrypt(self, text: str, *, archive: bool = False, month: str | None = None) -> list[Any]:
        """Every message in any text, as ``Vault.decrypt``. Raises Malformed where there is none."""
        texts = candidates(text)
        if not texts:
            raise Malformed("there is no MedCrypt message in this text")
        check_bounds(texts)
        results: list[Any] = []

        def take(some: dict[str, Any]) -> None:
            results.extend(map(_opened, some["results"]))

        self._line.ask(frames.DECRYPT, {"texts": texts, "archive": archive, "month": month}, take)
        return results

    def pairings(self, patient_id: str | None = None) -> list[Any]:
        """Every patient's pairing in use, or all of one patient."""
        if patient_id is None:
            answer = self._line.ask(frames.PATIENTS)
        else:
            answer = self._line.ask(frames.PATIENT, {"patient": patient_id})
        return [SimpleNamespace(**{**one, "pairing": bytes.fromhex(one["pairing"])}) for one in answer["pairings"]]


class _Opened(SimpleNamespace):
    """As the library's ``Opened``, which this cannot load."""

    def document(self) -> dict[str, str | int | None]:
        """As ``Opened.document``: of a text that did not open, whose it says that it is may be anybody's invention."""
        names = ("number", "patient", "version", "month", "sender", "part", "text", "status")
        found = {name: getattr(self, name) for name in names}
        if self.error is None:
            return {**found, "message": None, "hint": None}
        unknown = dict.fromkeys(("patient", "month", "sender"))
        return {**found, **unknown, "message": self.error.message, "hint": self.error.hint}


def _opened(row: list[Any]) -> _Opened:
    number, version, patient, month, sender, part, text, told, seen = row
    error = None
    if told is not None:
        from medcrypt_hsm.session import said

        error = said.error_of(told)
    return _Opened(
        number=number, version=version, patient=patient, month=month, sender=sender, part=part, text=text,
        error=error, seen=seen, status=error.name if error is not None else "seen" if seen else "ok",
    )  # fmt: skip


def check_bounds(texts: Sequence[str | None]) -> None:
    """Raises UsageError."""
    if len(texts) > frames.TEXTS or sum(len(text or "") for text in texts) > frames.CHARACTERS:
        raise UsageError(
            "a session reads at most 10,000 messages, and 16 MiB, at once",
            "give it fewer, or run the command again with --no-session",
        )


def candidates(text: str) -> list[str]:
    """Every text that could be a message, as the library finds them (messages/wire): from "[MEDCRYPT:" to "]"."""
    found = []
    at = text.find("[MEDCRYPT:")
    while at >= 0:
        begins = text.find("[", at + 1)
        begins = len(text) if begins < 0 else begins
        end = text.find("]", at, begins)  # no further: each character is looked at twice at most
        end = begins if end < 0 else end + 1
        found.append(text[at:end])
        at = text.find("[MEDCRYPT:", end)
    return found
