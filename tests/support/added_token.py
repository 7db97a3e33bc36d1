"""``vault add-token`` below the command line, with tokens of a test's own: real ones that are pulled out on the way."""

from __future__ import annotations

from typing import Any

from medcrypt_hsm.errors import TokenRemoved
from medcrypt_hsm.lifecycle import add_token
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault.unlock import unlock
from tests.support.practice import Practice, pin
from tests.support.store import open_at


def vault_id(practice: Practice) -> bytes:
    return bytes.fromhex(practice.status().vault_id)


def on_token(practice: Practice, uri: str) -> list[str]:
    """What the token holds of this vault, as the words between "medcrypt" and the vault's id."""
    with open_token(uri, pin) as token:
        return [name.split()[1] for name in token.names() if vault_id(practice).hex() in name]


def told(practice: Practice, using: str = "doctor") -> list[tuple[str, str]]:
    """Action and outcome of every entry."""
    with practice.open(token=using) as vault:
        return [(entry.action, entry.outcome) for _, entry in vault.log.entries()]


WHOLE = ["anchor", "audit", "kek"]


class Pulled:
    """A real token that is pulled out at its ``at``-th call, and cannot be reached from then on."""

    def __init__(self, token: Token, at: int | None = None) -> None:
        self._token, self._at = token, at
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._token, name)
        if not callable(found) or name == "close":
            return found

        def passed_on(*arguments: Any, **more: Any) -> Any:
            self.calls.append(name)
            if self._at is not None and len(self.calls) >= self._at:
                raise TokenRemoved("the token was removed")
            return found(*arguments, **more)

        return passed_on


def add(
    practice: Practice,
    present: Token,
    new: Token,
    name: str = "spare",
    wish: TokenOptions = TokenOptions(),  # noqa: B008 - frozen
) -> None:
    """The library's ``add_token`` with tokens of the test's own."""
    file = open_at(practice.path)
    try:
        add_token.add(unlock(file, present, "doctor", actor="mara", clock=practice.clock), name, new, wish)
    finally:
        file.close()


class WhenAnchored(Pulled):
    """Is pulled out as soon as the new token has its anchor."""

    def __init__(self, token: Token, new: Pulled) -> None:
        super().__init__(token)
        self._new = new

    def __getattr__(self, name: str) -> Any:
        if "put_object" in self._new.calls and name != "close":
            raise TokenRemoved("the token was removed")
        return super().__getattr__(name)
