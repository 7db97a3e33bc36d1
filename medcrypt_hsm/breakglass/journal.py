"""The journal of a requester or custodian: a signed line on their own machine for each statement, before it leaves.

In: a statement and the token that signs it. Out: one more line, which names the one before. It proves to its owner what
their token was used for on this machine; the practice's own log is in the vault.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.errors import Failed
from medcrypt_hsm.notation import canonical, ctx
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.vault.audit.statements import Approval, Drill, Request, Signed

T = TypeVar("T", Request, Approval, Drill)
NAME = "journal"
LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class Journal:
    """One file, of whoever uses this machine. ``path``'s directory is made when it is first written to."""

    path: Path

    def enter(
        self, token: Token, key: str, signed: Signed[T], action: str, actor: str, time: str, history: int = 0
    ) -> None:
        """A line, signed by the ``key`` that signed the statement. Raises Failed: then nothing may leave."""
        told = signed.told
        with self._locked() as fd:
            last, sequence = _last(fd)
            entry = canonical(
                {
                    "action": action,
                    "actor": actor,
                    "ceremony": told.ceremony.hex(),
                    "history": history,
                    "previous": sha256(last).hexdigest(),
                    "sequence": sequence + 1,
                    "signer": fingerprint(token.public_key(key)).hex(),
                    "statement": signed.id.hex(),
                    "time": time,
                    "vault": told.vault_id.hex(),
                }
            )
            signature = token.sign(key, ctx("medcrypt/journal", entry))
            line = entry + b" " + signature.hex().encode() + b"\n"
            try:
                os.write(fd, line)
                os.fsync(fd)
            except OSError as exc:
                raise self._failed(exc) from exc

    def highest(self, vault_id: bytes) -> int:
        """The highest entry of the vault's log that a request named so far; 0 if none did. It is only a hint."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError:
            return 0
        found = [0]
        for line in lines:
            entry = _parse(line)
            if entry.get("vault") == vault_id.hex() and type(entry.get("history")) is int:
                found.append(entry["history"])
        return max(found)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise self._failed(exc) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def _failed(self, exc: OSError) -> Failed:
        return Failed(
            t("the journal {path} cannot be written: {reason}", path=self.path, reason=exc.strerror),
            "make room, or see who owns it: nothing is approved that is not entered",
        )


def _last(fd: int) -> tuple[bytes, int]:
    """The last line, without its end, and its number. A line that was cut off is ended, and stays as it is."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, LONGEST_LINE, max(size - LONGEST_LINE, 0))
    if tail and not tail.endswith(b"\n"):
        os.write(fd, b"\n")
        tail += b"\n"
    line = tail[:-1].rsplit(b"\n", 1)[-1]
    number = _parse(line).get("sequence", 0)
    return line, number if type(number) is int else 0


def _parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.rsplit(b" ", 1)[0])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
