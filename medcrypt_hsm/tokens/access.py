"""How a token is reached: by its URI, with a PIN that somebody is asked for.

In: a URI, a PIN callback or a ``TokenAccess``. Out: an open ``Token``, or what can be seen of one with nobody logged
in. The URI's scheme picks the backend; nothing above asks which it was. Not here: what a token does
(tokens/__init__.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.tokens import PinPrompt, Token, TokenInfo, Touch, no_touch


def open_token(
    uri: str, prompt: PinPrompt, *, last_try: bool = False, modules: Sequence[str] = (), touch: Touch = no_touch
) -> Token:
    """Find the token, ask for its PIN once, log in. ``modules``: PKCS#11 modules that a config file names.

    Raises UsageError, TokenAbsent, TokenUnfit (blank), PinError, TokenRemoved, TokenError. An absent, blank or locked
    token never asks for a PIN, and the last try is refused without ``last_try``.
    """
    match uri.partition(":")[0]:
        case "pkcs11":
            from medcrypt_hsm.tokens.pkcs11.token import open_pkcs11
            from medcrypt_hsm.tokens.uri import parse_uri

            return open_pkcs11(parse_uri(uri), prompt, last_try=last_try, modules=modules)
        case "yubikey":
            from medcrypt_hsm.tokens.yubikey.uri import serial_of

            serial = serial_of(uri)
            from medcrypt_hsm.tokens.yubikey.token import open_yubikey

            return open_yubikey(serial, prompt, last_try=last_try, touch=touch)
        case _:
            raise no_such_kind()


class TokenAccess(NamedTuple):
    """How a token is reached: everything but which one it is. One value for every call that opens tokens."""

    pin: PinPrompt
    last_try: bool = False  # use even the last try of a PIN
    modules: Sequence[str] = ()  # PKCS#11 modules that a config file names
    touch: Touch = no_touch

    @staticmethod
    def of(given: PinPrompt | TokenAccess) -> TokenAccess:
        """The same, or the defaults with this PIN prompt: all that most callers need to say."""
        return given if isinstance(given, TokenAccess) else TokenAccess(given)

    def named(self, name: str) -> TokenAccess:
        """The same, for the token that the vault calls ``name``: whoever is asked for its PIN is told."""
        ask = self.pin
        return self._replace(pin=lambda info: ask(info._replace(name=name)))

    def open(self, uri: str) -> Token:
        """See ``open_token``."""
        return open_token(uri, self.pin, last_try=self.last_try, modules=self.modules, touch=self.touch)

    def find(self, uri: str) -> TokenInfo:
        """See ``find_token``."""
        return find_token(uri, modules=self.modules)


def find_token(uri: str, *, blank: bool = False, modules: Sequence[str] = ()) -> TokenInfo:
    """What the token says of itself, with nobody logged in. ``blank``: as ``initialize`` would find it.

    Raises UsageError, TokenAbsent, TokenUnfit (blank), TokenError.
    """
    match uri.partition(":")[0]:
        case "pkcs11":
            from medcrypt_hsm.tokens.pkcs11.modules import find
            from medcrypt_hsm.tokens.uri import parse_uri

            return find(parse_uri(uri), modules, blank=blank).info
        case "yubikey":
            from medcrypt_hsm.tokens.yubikey import discovery
            from medcrypt_hsm.tokens.yubikey.uri import serial_of

            info = discovery.find(serial_of(uri))
            if not blank:
                discovery.refuse_blank(info)
            return info
        case _:
            raise no_such_kind()


def list_tokens(modules: Sequence[str] = ()) -> list[TokenInfo]:
    """Every token that can be seen, blank ones too; what cannot be looked at is an entry with its ``problem``.

    Without a smart card service there are no YubiKeys, which is not an error.
    """
    from medcrypt_hsm.tokens.pkcs11.modules import list_infos
    from medcrypt_hsm.tokens.yubikey import discovery

    yubikeys = discovery.list_infos()  # first: PKCS#11 modules that know smart cards take every reader for themselves
    return [*list_infos(modules), *yubikeys]


def no_such_kind() -> UsageError:
    """For a URI of no scheme that is known."""
    return UsageError(
        "that names no kind of token",
        "write it like 'pkcs11:token=doctor' or 'yubikey:12345678'; see 'medcrypt token list'",
    )
