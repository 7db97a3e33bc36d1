"""The library's frozen values as JSON, and back: what ``status`` and ``verify`` give.

In: a value of one of the classes below. Out: JSON; and of that the same value. Nothing here is a key. Not here: errors
(said.py).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from medcrypt_hsm.month import Month
from medcrypt_hsm.session import said
from medcrypt_hsm.vault.store.rows import Location

T = TypeVar("T")


def value_of(value: Any) -> Any:
    """JSON of it: bytes in hex, tuples as lists, texts for people as sentences."""
    if isinstance(value, str):
        return said.value_of(value) if hasattr(value, "template") else value
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Location):
        return value.text
    if isinstance(value, Month):
        return str(value)
    if is_dataclass(value):
        return {field.name: value_of(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: value_of(getattr(value, name)) for name in value._fields}
    if isinstance(value, Mapping):
        return {name: value_of(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [value_of(one) for one in value]
    raise TypeError(f"{type(value).__name__} does not travel")


def made_of(kind: type[T], value: Any) -> T:
    """Raises ValueError, TypeError or KeyError for what ``value_of`` never gives of this class."""
    made: Any = _made(kind, value)
    return typing.cast("T", made)


def _made(kind: Any, value: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (one for one in typing.get_args(kind) if one is not type(None))
        return _made(kind, value)
    if origin in (tuple, list):
        return _several(origin, typing.get_args(kind), value)
    if origin is not None and issubclass(origin, Mapping):
        return {name: _made(typing.get_args(kind)[1], one) for name, one in value.items()}
    if kind is str:
        return said.text_of(value) if isinstance(value, list) else _checked(str, value)
    if kind is bytes:
        return bytes.fromhex(_checked(str, value))
    if kind is Location:
        return Location.parse(_checked(str, value))
    if kind is Month:
        return Month.parse(_checked(str, value))
    if kind in (int, bool):
        return _checked(kind, value)
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else kind._fields
        if set(value) != set(names):
            raise ValueError("another value")
        return kind(**{name: _made(hints[name], value[name]) for name in names})
    raise TypeError(f"{kind} does not travel")


def _several(origin: Any, kinds: tuple[Any, ...], value: Any) -> Any:
    _checked(list, value)
    if origin is tuple and kinds[-1] is not Ellipsis:
        return tuple(_made(one, part) for one, part in zip(kinds, value, strict=True))
    return origin(_made(kinds[0], part) for part in value)


def _checked(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError("another value")
    return value
