"""What each request's object must look like, to the member: checked before anything is done with it.

In: an object from a stranger who is this same user. Out: nothing; or ``ProtocolError``, which ends the connection. Here
is no key, no vault and no patient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medcrypt_hsm.session import frames
from medcrypt_hsm.session.frames import ProtocolError

Check = Callable[[Any], bool]


def _text(most: int) -> Check:
    """Unicode text of at most so many characters; never half a character, which no audit entry could hold."""

    def check(value: Any) -> bool:
        return isinstance(value, str) and len(value) <= most and _is_whole(value)

    return check


def _is_whole(value: str) -> bool:
    return value.isascii() or value == value.encode("utf-8", "replace").decode()


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _month(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) == 7 and value.isascii())


def _texts(value: Any) -> bool:
    if not (isinstance(value, list) and 1 <= len(value) <= frames.TEXTS):
        return False
    size = 0
    for text in value:
        if text is not None:
            if not (isinstance(text, str) and _is_whole(text)):
                return False
            size += len(text)
    return size <= frames.CHARACTERS


def _some_texts(value: Any) -> bool:
    """Of an import, whose batches bring parts from further on along."""
    return (
        isinstance(value, list)
        and len(value) <= 2 * frames.TEXTS
        and (_texts(value[: frames.TEXTS]))
        and (len(value) <= frames.TEXTS or _texts(value[frames.TEXTS :]))
    )


def _moment(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 40 and value.isascii())


def _dates(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and _moment(pair[0]) and _moment(pair[1]) for pair in value
    )


def _filter(value: Any) -> bool:
    names = {"patient", "actor", "action", "since", "until"}
    one = _text(1000)
    return isinstance(value, dict) and set(value) <= names and all(map(one, value.values()))


def _notes(value: Any) -> bool:
    one = _text(2000)
    return isinstance(value, list) and len(value) <= 20 and all(map(one, value))


_ID, _SHORT, _PIN = _text(1000), _text(100), _text(4096)
_PROTOCOL: Check = ("v1", "v2").__contains__
FORMS: dict[int, dict[str, Check]] = {
    frames.HELLO: {"version": _number, "program": _SHORT},
    frames.STATUS: {},
    frames.LOCK: {"why": _SHORT},
    frames.ENCRYPT: {"patient": _ID, "text": _text(frames.CHARACTERS)},
    frames.DECRYPT: {"texts": _texts, "archive": _flag, "month": _month},
    frames.IMPORT: {"texts": _some_texts, "dates": _dates, "month": _month},
    frames.SEND_FILE: {"patient": _ID, "name": _text(255)},
    frames.TAKE_FILE: {"archive": _flag, "month": _month},
    frames.KEPT: {},
    frames.PATIENTS: {},
    frames.PATIENT: {"patient": _ID},
    frames.MONTH: {},
    frames.VAULT: {},
    frames.LOG: {"filter": _filter},
    frames.EXPORT: {"filter": _filter, "format": _SHORT, "name": _text(255)},
    frames.MORE: {},
    frames.VERIFY: {"since": _notes},
    frames.CHECKPOINT: {},
    frames.ADD: {"pin": _PIN, "patient": _ID, "label": _text(4000), "protocol": _PROTOCOL, "unconfirmed": _flag},
    frames.CONFIRM: {"pin": _PIN, "patient": _ID, "code": _SHORT},
    frames.QR: {"pin": _PIN, "patient": _ID},
    frames.REPAIR: {"pin": _PIN, "patient": _ID},
}
DESCRIPTORS = {frames.SEND_FILE: 2, frames.TAKE_FILE: 2}
"""How many come along: the file to read, and the new one to write. With every other request none."""


def check(kind: int, asked: dict[str, Any], descriptors: int) -> None:
    """Raises ProtocolError for a member too many or too few, or of another form."""
    form = FORMS[kind]
    if set(asked) != set(form) or descriptors != DESCRIPTORS.get(kind, 0):
        raise ProtocolError("another form")
    if not all(good(asked[name]) for name, good in form.items()):
        raise ProtocolError("another form")
