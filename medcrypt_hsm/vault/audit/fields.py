"""The fields that rows and statements have, and the forms that values in entries in the clear have (docs/spec/).

``Fields`` is one table for each kind of row or statement: the members of its JSON, and by which ``Codec`` each is read
and written. What is written, what is read and what is checked to the form all follow from it. The other functions each
take a value that was parsed from JSON, and raise ValueError, or NotAuthentic for what is no key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from medcrypt_hsm.crypto.p256 import load_p256
from medcrypt_hsm.notation import octets, parse_time


def _as_it_is(value: Any) -> Any:
    return value


class Codec(NamedTuple):
    """How a field stands in JSON.

    ``read`` raises ValueError or TypeError for what cannot be read; ``check`` raises ValueError for what was read and
    is not of the form that the spec has. They are two, because an unlock must tell a damaged file from a log that is
    not as the spec has it; verifying a log asks for both.
    """

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = _as_it_is
    check: Callable[[Any], object] = _as_it_is
    attribute: str = ""  # what the field is called in the program, where it is not the member's name
    default: Any = None  # in JSON: with it, a member is left out; None: it is always there

    def called(self, attribute: str) -> Codec:
        return self._replace(attribute=attribute)

    def left_out_at(self, default: Any) -> Codec:
        return self._replace(default=default)


class Fields:
    """The members of one kind of row or statement."""

    def __init__(self, **codecs: Codec) -> None:
        self.codecs: Mapping[str, Codec] = codecs
        self._parts = [
            (member, codec.attribute or member, codec.read, codec.write, codec.check)
            for member, codec in codecs.items()
        ]
        self._defaults = {member: codec.default for member, codec in codecs.items() if codec.default is not None}

    @property
    def attributes(self) -> frozenset[str]:
        return frozenset(attribute for _, attribute, *_ in self._parts)

    def value(self, told: object) -> dict[str, Any]:
        """What stands in JSON for ``told``."""
        value = self.whole(told)
        for member, default in self._defaults.items():
            if value[member] == default:
                del value[member]
        return value

    def whole(self, told: object) -> dict[str, Any]:
        """The same with each member, also one that is left out."""
        return {member: write(getattr(told, attribute)) for member, attribute, _, write, _ in self._parts}

    def read(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """By attribute. Raises KeyError, ValueError or TypeError."""
        if self._defaults:
            value = {**self._defaults, **value}
        return {attribute: read(value[member]) for member, attribute, read, _, _ in self._parts}

    def check(self, told: object) -> None:
        """Raises ValueError for a value that the spec does not have there."""
        for _, attribute, _, _, check in self._parts:
            check(getattr(told, attribute))


def number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:  # type(): True is an int to isinstance
        raise ValueError("not a number in range")
    return value


def exact_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    value.encode()  # half a character is JSON, but nothing that can be signed again
    return value


def _exact_time(value: Any) -> str:
    parse_time(exact_text(value))
    return str(value)


def _time_or_empty(value: str) -> None:
    if value:
        parse_time(value)


# For trust rows: reading is lenient, because a signed head vouches for the bytes.
TEXT = Codec(str)
NUMBER = Codec(int, check=number)
OCTETS = Codec(bytes.fromhex, bytes.hex)
TIME = Codec(str, check=parse_time)
TIME_OR_EMPTY = Codec(str, check=_time_or_empty)
# For what comes from elsewhere: nothing is taken but what the program itself would write.
EXACT_TEXT = Codec(exact_text)
EXACT_TIME = Codec(_exact_time)


def exact_octets(size: int | None = None) -> Codec:
    return Codec(lambda value: octets(value, size), bytes.hex)


def sized_octets(size: int) -> Codec:
    def read(value: Any) -> bytes:
        found = bytes.fromhex(value)
        if len(found) != size:
            raise ValueError(f"not {size} bytes")
        return found

    return Codec(read, bytes.hex)


def one_of(*values: str) -> Codec:
    def read(value: Any) -> str:
        if (text := str(value)) not in values:
            raise ValueError(f"none of {', '.join(values)}")
        return text

    return Codec(read)


HEX = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)
TOLD = ("audit_key", "id", "serial", "model", "profile", "kek", "attestation")


def introduction(token: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The detail of a ``token.introduce`` entry, from the token's row in the trust state."""
    return {"name": name} | {member: token[member] for member in TOLD}


def p256_key(text: Any) -> bytes:
    """DER from lower-case hex. Raises ValueError or NotAuthentic."""
    spki = octets(text)
    load_p256(spki)
    return spki


def check_kek(profile: str, kek: Any) -> None:
    """Raises ValueError or NotAuthentic."""
    if profile == "p256-hpke":
        p256_key(kek)
    elif kek != "":  # nor null, which is no text
        raise ValueError("a public key for a KEK that has none")


def texts(value: Any, form: re.Pattern[str]) -> list[str]:
    """Texts of one form, sorted, each once."""
    if (
        not isinstance(value, list)
        or not all(isinstance(item, str) and form.fullmatch(item) for item in value)
        or value != sorted(set(value))
    ):
        raise ValueError("not a sorted list")
    return value


def token_ids(value: Any) -> list[bytes]:
    """A list of token ids in hex."""
    return [bytes.fromhex(text) for text in texts(value, HEX)]


def refs(value: Any) -> None:
    """Names of rows: whoever has the token compares them with the rows."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError("not a list of rows")


def only(detail: Mapping[str, Any], *members: str, optional: Sequence[str] = ()) -> None:
    """Everything that is named is there, and nothing more; ``optional`` may be."""
    if not set(members) <= set(detail) <= {*members, *optional}:
        raise ValueError("it has other members than the spec's")
