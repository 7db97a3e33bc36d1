"""``RemoteToken``: a session's token, to everything above it a ``Token`` like any other.

In: a vault's ``Home``. Out: the token of the session that runs for it, or None. What is done with it (verifying,
unlocking, recording) is the very same code as with a token in the command's own process. What a session does not offer,
making and destroying keys above all, raises; commands that need it do not ask for a session.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, NoReturn

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import Failed, SessionEnded, TokenError, UsageError
from medcrypt_hsm.tokens import Evidence, Token, Touch, no_touch
from medcrypt_hsm.tokens.session import place, protocol
from medcrypt_hsm.tokens.session.protocol import CHUNK, Frame, Op, ProtocolError
from medcrypt_hsm.version import VERSION

_LONGEST_END = 20.0  # seconds: an agent ends within half of that


class Line:
    """A connection to an agent. Requests and answers take turns. Raises SessionEnded once it has gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = Lock()
        self.closed = False  # by whoever opened it

    def ask(self, op: Op, *fields: bytes) -> list[bytes]:
        return self.ask_touching(no_touch, None, op, *fields)

    def ask_touching(self, touch: Touch, info: Any, op: Op, *fields: bytes) -> list[bytes]:
        """What is answered. Raises the error that is answered."""
        if self.closed:
            raise RuntimeError("this token was closed")
        with self._lock:
            try:
                self._connection.sendall(protocol.encode(op, fields))
                answer = protocol.receive(self._connection)
                while answer is not None and answer.op is Op.TOUCH:
                    with touch(info):
                        answer = protocol.receive(self._connection)
                    if answer is not None and answer.op is Op.TOUCHED:
                        answer = protocol.receive(self._connection)
            except (OSError, ProtocolError) as exc:
                self._connection.close()
                raise SessionEnded("the session has ended while a command used it") from exc
        return self._answered(answer)

    def _answered(self, answer: Frame | None) -> list[bytes]:
        if answer is not None and answer.op is Op.ERROR:
            raise protocol.error(answer.fields)
        if answer is None or answer.op is not Op.DONE:
            self._connection.close()
            raise SessionEnded("the session was locked, or has ended, while a command used it")
        return answer.fields

    def one(self, op: Op, *fields: bytes) -> bytes:
        values = self.ask(op, *fields)
        if len(values) != 1:
            raise SessionEnded("the session answered something else than was asked")
        return values[0]

    def close(self) -> None:
        self.closed = True
        self._connection.close()


class _Handle:
    """A key in the agent, or on its token. It shows nothing; after ``destroy`` any use is a RuntimeError."""

    __slots__ = ("_line", "_number")

    def __init__(self, line: Line, number: bytes) -> None:
        self._line = line
        self._number: bytes | None = number

    def __repr__(self) -> str:
        return f"{type(self).__name__}(of a session)"

    @property
    def number(self) -> bytes:
        if self._number is None:
            raise RuntimeError("this key was destroyed")
        return self._number

    def destroy(self) -> None:
        """A second time, or after the session has ended, there is nothing to do."""
        number, self._number = self._number, None
        if number is not None and not self._line.closed:
            with suppress(SessionEnded):
                self._line.ask(Op.DESTROY, number)


class RemoteAeadKey(_Handle):
    """``AeadKey`` of a session."""

    __slots__ = ()

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        return self._line.one(Op.SEAL, self.number, nonce, plaintext, aad)

    def open(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        return self._line.one(Op.OPEN, self.number, nonce, sealed, aad)

    def open_many(self, texts: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes | None]:
        """As many to a request as a frame may reasonably hold; None for what is not authentic."""
        opened: list[bytes | None] = []
        fields, size = [self.number], 0
        for text in texts:
            fields += text
            size += sum(map(len, text)) + 12
            if size > CHUNK:
                opened += self._open(fields)
                fields, size = [self.number], 0
        return opened + self._open(fields) if size else opened

    def _open(self, fields: list[bytes]) -> list[bytes | None]:
        answers = self._line.ask(Op.OPEN_MANY, *fields)
        if len(answers) != len(fields) // 3:
            raise SessionEnded("the session answered for another number of texts")
        return [answer[1:] if answer[:1] == b"\1" else None for answer in answers]


class RemoteMacKey(_Handle):
    """``MacKey`` of a session."""

    __slots__ = ()

    def mac(self, data: bytes) -> bytes:
        return self._line.one(Op.MAC, self.number, data)


class RemoteWrappingKey(_Handle):
    """``WrappingKey`` of a session."""

    __slots__ = ()

    def wrap(self, key: bytes) -> bytes:
        return self._line.one(Op.WRAP, self.number, key)

    def unwrap_aead(self, wrapped: bytes) -> RemoteAeadKey:
        return RemoteAeadKey(self._line, self._line.one(Op.UNWRAP_AEAD, self.number, wrapped))

    def unwrap_mac(self, wrapped: bytes) -> RemoteMacKey:
        return RemoteMacKey(self._line, self._line.one(Op.UNWRAP_MAC, self.number, wrapped))


class RemoteToken:
    """The token that a session keeps open, for one vault. See the ``Token`` protocol for what each method promises.

    ``name`` is what the vault calls it; ``vault_id`` is the vault that it serves.
    """

    def __init__(self, line: Line, said: dict[str, Any], touch: Touch) -> None:
        self.info = protocol.info_of(said["info"])
        self.name: str = said["token"]
        self.vault_id = bytes.fromhex(said["vault_id"])
        self._line = line
        self._touch = touch

    def __repr__(self) -> str:
        return f"RemoteToken({self.info.uri})"

    def __enter__(self) -> RemoteToken:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the session, which goes on; handles that are left end with the connection."""
        self._line.close()

    def refuse_gone(self) -> None:
        self._line.ask(Op.CHECK)

    def profiles(self) -> Sequence[str]:
        return tuple(field.decode() for field in self._line.ask(Op.PROFILES))

    def missing(self, profile: str) -> Sequence[str]:
        return tuple(field.decode() for field in self._line.ask(Op.MISSING, profile.encode()))

    def unwrap_keyset(self, kek: str, wrapped: bytes, info: bytes) -> KeysetHandles:
        numbers = self._line.ask_touching(self._touch, self.info, Op.UNWRAP_KEYSET, kek.encode(), wrapped, info)
        wrapping, mac, sealing = numbers
        return KeysetHandles(
            RemoteWrappingKey(self._line, wrapping), RemoteMacKey(self._line, mac), RemoteAeadKey(self._line, sealing)
        )

    def public_key(self, name: str) -> bytes:
        return self._line.one(Op.PUBLIC_KEY, name.encode())

    def sign(self, name: str, data: bytes) -> bytes:
        (signature,) = self._line.ask_touching(self._touch, self.info, Op.SIGN, name.encode(), data)
        return signature

    def put_object(self, name: str, value: bytes) -> None:
        if not name.startswith("medcrypt "):
            raise ValueError("names on a token begin with 'medcrypt '")
        self._line.ask_touching(self._touch, self.info, Op.PUT_OBJECT, name.encode(), value)

    def read_objects(self, name: str) -> Sequence[bytes]:
        return tuple(self._line.ask(Op.READ_OBJECTS, name.encode()))

    def names(self) -> Sequence[str]:
        return [field.decode() for field in self._line.ask(Op.NAMES)]

    def evidence(self, name: str) -> Evidence:
        return protocol.evidence_of(self._line.one(Op.EVIDENCE, name.encode()))

    def attestation(self, name: str) -> Sequence[bytes]:
        return tuple(self._line.ask(Op.ATTESTATION, name.encode()))

    # What a session does not offer

    def make_kek(self, name: str, profile: str, *, touch: str = "never") -> NoReturn:
        raise _not_offered()

    def wrap_keyset(self, kek: str, keyset: KeysetSecret, info: bytes) -> NoReturn:
        raise _not_offered()

    def unwrap_keyset_to_host(self, kek: str, wrapped: bytes, info: bytes) -> tuple[Secret, Secret, Secret]:
        raise _not_offered()

    def wrap_key(self, kek: str, key: bytes, info: bytes) -> NoReturn:
        raise _not_offered()

    def unwrap_key(self, kek: str, wrapped: bytes, info: bytes) -> NoReturn:
        raise _not_offered()

    def make_signing_key(self, name: str) -> NoReturn:
        raise _not_offered()

    def destroy(self, name: str) -> NoReturn:
        raise _not_offered()


def refuse_remote(token: Token) -> None:
    """Before keys are made or destroyed: that takes the token itself. Raises UsageError."""
    if isinstance(token, RemoteToken):
        raise UsageError("this needs the token itself, and not a session", "open the vault without its session")


def _not_offered() -> TokenError:
    return TokenError("a session does not do that", "run the command again with --no-session")


def _line(home: place.Home) -> tuple[Line, dict[str, Any]] | None:
    """To the agent of this vault, and what it said of itself. None where none runs, or one of another version."""
    connection = place.connect(home)
    if connection is None:
        return None
    line = Line(connection)
    try:
        said = protocol.document(line.one(Op.HELLO, bytes((protocol.VERSION,)), VERSION.encode()))
        connection.settimeout(place.PATIENCE)
    except (ProtocolError, TokenError, ValueError):
        line.close()
        return None
    return line, said


def find(home: place.Home, touch: Touch = no_touch) -> RemoteToken | None:
    """The token of the session that runs for this vault."""
    found = _line(home)
    if found is None:
        return None
    line, said = found
    try:
        return RemoteToken(line, said, touch)
    except (ProtocolError, KeyError, ValueError, TypeError):
        line.close()
        return None


def status(home: place.Home) -> dict[str, Any] | None:
    """What the agent of this vault says of its session, as docs/operator/commands.md has it."""
    found = _line(home)
    if found is None:
        return None
    line, _ = found
    try:
        return protocol.document(line.one(Op.STATUS))
    except (ProtocolError, SessionEnded):
        return None
    finally:
        line.close()


def lock(home: place.Home, why: str) -> bool:
    """End the session of this vault, if one runs; whether one did. Returns when its token is closed. Raises Failed."""
    connection = place.connect(home)
    if connection is None:
        return False
    with connection:
        connection.settimeout(_LONGEST_END)
        try:
            connection.sendall(protocol.encode(Op.LOCK, [why.encode()]))
            protocol.receive(connection)
        except TimeoutError as exc:
            raise Failed("the session does not answer", "end its process, 'python -m medcrypt_hsm.session'") from exc
        except (OSError, ProtocolError):  # one that breaks off has ended
            return True
    return True
