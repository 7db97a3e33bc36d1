"""Errors as they travel: the name of a class, templates and values; and back, as far as the program itself says so.

In: an error. Out: a JSON value; and of such a value the error. A template that this program does not have is not shown,
whoever sent it; values are data, which the command line escapes wherever it shows them. Not here: frames (frames.py).

Loaded by every command that a session serves, so it imports next to nothing; the list of templates is read when
something is to be said.
"""

from __future__ import annotations

from medcrypt_hsm import errors
from medcrypt_hsm.errors import Failed, MedcryptError
from medcrypt_hsm.sentences import restored, t, template_of

DEEPEST = 8  # sentences within sentences


def value_of(text: str) -> object:
    """A sentence as ``[template, values]``; data and plain literals as they are."""
    template, values = template_of(text)
    if not values and template == text:
        return [template, {}]
    return [template, {name: _inner(value) for name, value in values.items()}]


def _inner(value: object) -> object:
    if isinstance(value, str) and hasattr(value, "template"):
        return value_of(value)
    return value


def text_of(value: object, depth: int = 0) -> str:
    """The sentence of ``[template, values]``. Raises ValueError for what is none of the program's."""
    if not (isinstance(value, list) and len(value) == 2 and depth < DEEPEST):
        raise ValueError("no sentence")
    template, values = value
    if not (isinstance(template, str) and isinstance(values, dict)):
        raise ValueError("no sentence")
    if not _is_ours(template):
        raise ValueError("no sentence of this program")
    whole = {}
    for name, inner in values.items():
        if isinstance(inner, list):
            inner = text_of(inner, depth + 1)
        elif not isinstance(inner, (str, int)):
            raise ValueError("no value of a sentence")
        whole[name] = inner
    if not depth and _is_wordless(template) and not all(isinstance(inner, list) for inner in values.values()):
        raise ValueError("data alone is no sentence")  # or somebody else's words would be all that is said
    return restored(template, whole)


_templates: set[str] = set()


def _is_ours(template: str) -> bool:
    if not _templates:
        import json
        import os

        with open(os.path.join(os.path.dirname(__file__), "templates.json"), encoding="utf-8") as file:
            _templates.update(json.load(file))
    return template in _templates or _joins(template)


def _is_wordless(template: str) -> bool:
    """Are all its letters inside of fields?"""
    outside = "".join(piece.rpartition("}")[2] for piece in template.split("{"))
    return bool(template) and not any(map(str.isalpha, outside))


def _joins(template: str) -> bool:
    """What ``sentences.joined`` makes: parts, and between them a separator without words."""
    rest = template.replace("{separator}", "")
    for piece in rest.split("{part_"):
        number, brace, between = piece.partition("}")
        if brace and not (number.isascii() and number.isdigit()):
            return False
        if any(map(str.isalnum, between if brace else piece)):
            return False
    return "{part_" in template


def kinds() -> dict[str, type[MedcryptError]]:
    """Every class of errors.py by its name."""
    return {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, MedcryptError)
    }


def error_value(exc: BaseException) -> dict[str, object]:
    """Of what is no error of the program's own only the kind is told: its text may hold anything."""
    known = kinds()
    if not isinstance(exc, MedcryptError):
        exc = Failed(
            t("the session failed ({kind})", kind=type(exc).__name__), "run the command again with --no-session"
        )
    kind = next(c.__name__ for c in type(exc).__mro__ if known.get(c.__name__) is c)
    message, hint = value_of(exc.message), value_of(exc.hint)
    for said in (message, hint):
        try:
            text_of(said)
        except ValueError:
            return error_value(
                Failed(t("the session failed ({kind})", kind=kind), "run the command again with --no-session")
            )
    value: dict[str, object] = {"error": kind, "message": message, "hint": hint, "name": exc.name}
    for more in ("tries_left", "at"):
        if (number := getattr(exc, more, None)) is not None:
            value[more] = number
    return value


def error_of(value: object) -> MedcryptError:
    """The error that such a value tells of; ``Failed`` for what this program would not say."""
    try:
        if not isinstance(value, dict):
            raise ValueError("no error")
        kind = kinds()[value["error"]]
        error = kind(text_of(value["message"]), text_of(value["hint"]))
        name = value.get("name")
        if kind is Failed and isinstance(name, str) and name in ("interrupted",):
            error.name = name
        for more in ("tries_left", "at"):
            if type(value.get(more)) is int and hasattr(error, more):
                setattr(error, more, value[more])
        return error
    except (KeyError, ValueError, TypeError):
        return Failed("the session answered with something that this program never says", "run it with --no-session")
