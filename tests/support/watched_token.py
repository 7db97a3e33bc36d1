"""A real token that counts what is asked of it, and can be unplugged at a chosen moment.

In: an open token. Out: the same token, everything passed through, with a list of the calls that were made. What must
not happen before verification (an unwrap) is then a statement about that list; and a command that dies between two
effects on the token is one that the token leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medcrypt_hsm.errors import TokenRemoved
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.access import open_token
from tests.support.practice import pin


class WatchedToken:
    """Stands in for a ``Token``; every method reaches the real one, but for those in ``unplugged_at``."""

    def __init__(self, token: Token, *, unplugged_at: str = "") -> None:
        self._token = token
        self._unplugged_at = unplugged_at
        self.calls: list[str] = []

    @classmethod
    def open(cls, uri: str, *, unplugged_at: str = "") -> WatchedToken:
        return cls(open_token(uri, pin), unplugged_at=unplugged_at)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._token, name)
        return self._watched(name, found) if callable(found) else found

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def passed_on(*arguments: Any, **more: Any) -> Any:
            self.calls.append(name)
            if name == self._unplugged_at:
                raise TokenRemoved("the token was removed")
            return call(*arguments, **more)

        return passed_on

    def __enter__(self) -> WatchedToken:
        return self

    def __exit__(self, *exc: object) -> None:
        self._token.close()
