"""``Secret``: key bytes in host memory, locked against swapping and wiped after use, as far as Python allows.

How far that is: the bytes object that is handed in is pinned (mlock) and overwritten at the end. Copies that the
interpreter, a binding or the token's own library made on the way are not reached; docs/threat-model.md says so.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from types import TracebackType

_HEADER = bytes.__basicsize__ - 1  # CPython keeps a bytes object's content after its header, and then a NUL


@functools.cache
def _mlock() -> ctypes._NamedFuncPointer:
    mlock = ctypes.CDLL(None).mlock
    mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return mlock


class Secret:
    """Owns ``value`` from now on: nobody else may keep it, because it is zeroed in place.

    ``with Secret(os.urandom(32)) as key: token.wrap(key.value)``
    """

    __slots__ = ("_value", "_wiped")

    def __init__(self, value: bytes) -> None:
        if len(value) < 16:
            raise ValueError("short bytes objects are shared by the interpreter and must not be wiped")
        self._value = value
        self._wiped = False
        # Locking can be refused (RLIMIT_MEMLOCK); the key is then used unlocked rather than the patient left waiting.
        _mlock()(id(value) + _HEADER, len(value))

    @property
    def value(self) -> bytes:
        if self._wiped:
            raise RuntimeError("this secret was wiped")
        return self._value

    @property
    def address(self) -> int:
        """Where the bytes are: for a C function that fills a ``Secret(bytes(n))``, so that no other copy is made."""
        return id(self.value) + _HEADER

    def wipe(self) -> None:
        self._wiped = True
        ctypes.memset(id(self._value) + _HEADER, 0, len(self._value))

    def __enter__(self) -> Secret:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "Secret(…)"


def wipe_text(text: str) -> None:
    """Overwrite a PIN's characters where they are. Only for a text that nobody else has, and that nobody uses again."""
    if len(text) < 2 or not text.isascii():
        return  # single characters are shared by the interpreter; others are kept in several forms
    header = sys.getsizeof("") - 1  # CPython keeps ASCII characters after a header (PEP 393), then a NUL
    ctypes.memset(id(text) + header, 0, len(text))
