"""``pkcs11:`` URIs (RFC 7512): how a person names a token.

In: text from a command line, a config file or a vault. Out: ``TokenUri``, and its canonical text again. A token is
named by what it carries itself (label, serial, manufacturer, model) and, after ``?``, by the module that speaks to it.

A URI that a vault file names is no person's: ``stored_uri`` says how far it is followed. A PKCS#11 module is code, and
it is handed the PIN. The file is not verified yet when its token is opened, so its ``module-path`` is followed only
where nobody but root could have put that module (as ssh-agent does with its list of allowed providers); otherwise the
module is looked for as if the file had named none.

Not here: slot numbers, which change from boot to boot; objects on a token, which have names of their own; and PINs,
which are never part of an argument.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t, template

SCHEME = "pkcs11"
_HINT = "write it like 'pkcs11:token=doctor' or 'pkcs11:serial=0123456789abcdef?module-path=/usr/lib/module.so'"
_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_IN_PATH = frozenset(_UNRESERVED + ":[]@!$'()*+,=&")  # pk11-pchar, section 2.3
_IN_QUERY = frozenset(_UNRESERVED + ":[]@!$'()*+,=/?|")  # pk11-qchar
# Written unescaped: less than may be, so that a URI survives being pasted into another one.
_PLAIN_IN_PATH = frozenset(_UNRESERVED)
_PLAIN_IN_QUERY = frozenset(_UNRESERVED + "/")
_PATH_FIELDS = {"token": "token", "serial": "serial", "manufacturer": "manufacturer", "model": "model"}
_QUERY_FIELDS = {"module-path": "module_path"}
_OBJECT = template("a URI names a token here, not an object on it: leave '{name}=' out")
_SLOT = template("slots are renumbered, so a token is never named by '{name}=': use its label (token=) or serial=")
_PIN = template("a PIN is never part of a URI: leave '{name}=' out and use --pin-source")
_LIBRARY = template("a module is named by its path: use '?module-path=/…' instead of '{name}='")
_WHY_NOT = {
    "object": _OBJECT,
    "type": _OBJECT,
    "id": _OBJECT,
    "slot-id": _SLOT,
    "slot-description": _SLOT,
    "slot-manufacturer": _SLOT,
    "library-description": _LIBRARY,
    "library-manufacturer": _LIBRARY,
    "library-version": _LIBRARY,
    "module-name": _LIBRARY,
    "pin-source": _PIN,
    "pin-value": _PIN,
}


class TokenUri(NamedTuple):
    """What a token must carry to be the one that is meant; None: anything. At least one is given."""

    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    module_path: str | None = None

    @property
    def names_a_token(self) -> bool:
        """False when only a module is given."""
        return any(value is not None for value in (self.token, self.serial, self.manufacturer, self.model))

    def matches(self, *, label: str, serial: str, manufacturer: str, model: str) -> bool:
        """Whether a token that carries these, stripped of their padding, is meant."""
        pairs = (self.token, label), (self.serial, serial), (self.manufacturer, manufacturer), (self.model, model)
        return all(wanted is None or wanted == carried for wanted, carried in pairs)

    def __str__(self) -> str:
        return format_uri(self)


def parse_uri(text: str) -> TokenUri:
    """The token that ``text`` names. Raises UsageError, with the reason, for anything but a strict token URI."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme != SCHEME:
        raise UsageError("that is not a 'pkcs11:' URI", _HINT)  # not shown: somebody may have put a PIN into it
    path, mark, query = rest.partition("?")
    values = _attributes(path, ";", _PATH_FIELDS, _IN_PATH)
    if mark:
        values |= _attributes(query, "&", _QUERY_FIELDS, _IN_QUERY)
    uri = TokenUri(**values)
    if uri == TokenUri():
        raise UsageError("this URI names neither a token nor a module", _HINT)
    if uri.module_path is not None and not uri.module_path.startswith("/"):
        raise UsageError(t("module-path must be an absolute path, not {path!r}", path=uri.module_path), _HINT)
    return uri


def format_uri(uri: TokenUri) -> str:
    """The canonical text: attributes in one order, everything but plain characters percent-encoded."""
    path = ";".join(
        f"{name}={_encode(value, _PLAIN_IN_PATH)}"
        for name, field in _PATH_FIELDS.items()
        if (value := getattr(uri, field)) is not None
    )
    query = "" if uri.module_path is None else "?module-path=" + _encode(uri.module_path, _PLAIN_IN_QUERY)
    return f"{SCHEME}:{path}{query}"


def _attributes(text: str, separator: str, fields: dict[str, str], allowed: frozenset[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for attribute in text.split(separator) if text else ():
        name, equals, value = attribute.partition("=")
        if name in _WHY_NOT:
            raise UsageError(t(_WHY_NOT[name], name=name), _HINT)
        if not equals or name not in fields:
            raise UsageError(t("{name!r} is not an attribute of a token URI", name=name), _HINT)
        if fields[name] in values:
            raise UsageError(t("'{name}=' is given twice in the URI", name=name), _HINT)
        values[fields[name]] = _decode(name, value, allowed)
    return values


def _decode(name: str, text: str, allowed: frozenset[str]) -> str:
    raw = bytearray()
    at = 0
    while at < len(text):
        if text[at] == "%":
            digits = text[at + 1 : at + 3]
            if len(digits) != 2 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
                raise UsageError(t("'{name}=' has a '%' without two hexadecimal digits behind it", name=name), _HINT)
            raw.append(int(digits, 16))
            at += 3
            continue
        if text[at] not in allowed:
            hint = t("write it as {code} in the URI", code=_encode(text[at], frozenset()))
            raise UsageError(t("'{name}=' may not hold {character!r} as it is", name=name, character=text[at]), hint)
        raw.append(ord(text[at]))
        at += 1
    try:
        value = raw.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(t("'{name}=' is not UTF-8 once decoded", name=name), _HINT) from exc
    if not value or not value.isprintable():
        raise UsageError(t("'{name}=' is empty or holds control characters", name=name), _HINT)
    return value


def _encode(text: str, plain: frozenset[str]) -> str:
    return "".join(c if c in plain else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)


def stored_uri(uri: str) -> str:
    """The URI to open for one that a vault file names: without its module where that could be anybody's."""
    if not uri.startswith("pkcs11:"):
        return uri
    parsed = parse_uri(uri)
    if parsed.module_path is not None and not _only_roots(Path(parsed.module_path)):
        parsed = parsed._replace(module_path=None)
    return str(parsed)


def _only_roots(path: Path) -> bool:
    try:
        real = path.resolve(strict=True)
        states = [place.stat() for place in (real, *real.parents)]
    except OSError:
        return False
    # The sticky bit does not help here: it keeps others from renaming, but a directory like that is anybody's.
    return all(state.st_uid == 0 and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) for state in states)


def same_token(wanted: str, stored: str) -> bool:
    """Does a person's URI mean the token that the vault has on record?"""
    if wanted.startswith("yubikey:"):
        from medcrypt_hsm.tokens.yubikey.uri import same_key

        return same_key(wanted, stored)
    if not (wanted.startswith("pkcs11:") and stored.startswith("pkcs11:")):
        return wanted == stored
    try:
        person, record = parse_uri(wanted), parse_uri(stored)
    except UsageError:
        return False
    return person.names_a_token and person.matches(
        label=record.token or "",
        serial=record.serial or "",
        manufacturer=record.manufacturer or "",
        model=record.model or "",
    )
