"""Sentences for people: a text that remembers the template and the values that it was made of.

In: ``t("the vault {path} is busy", path=path)``. Out: a ``str`` with the English text, which carries ``template`` and
``values``. The template is what a translator reads, and what is looked up in another language; an error crosses a
socket as its class, its template and its values, and is worded on the other side. An f-string would give the same text
and forget both. Not here: other languages, and what is done to a text before a terminal shows it.

A template names its values as ``{name}``, with ``!a``, ``!r`` or a format where it is needed (``{count:,}``). A value
that is itself worded for people is a sentence too: ``t("{token} was removed while {doing}", doing=t("signing"))``. A
plain ``str`` among the values is data, such as a path or a person's name, and is never translated. A text without
values may stay a plain literal; where it becomes a value of another sentence it is written ``t("signing")``.

Numbers: ``counted(count, "{count} month", "{count} months")`` takes the first template for one and the second for any
other number, as English and Spanish do. Both templates are in the source, each a whole phrase, so both are translated;
the number stays among the values for a language that has more forms.

No module is imported here at run time: every command loads this one.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Sentence(str):
    """``template`` with ``values`` filled in; equal to, and hashed as, the text that they give.

    Of the values only texts and numbers are kept as they are, because the sentence may outlive the call and leave the
    process: anything else is kept as the text that it shows, so that no error, and with it no key in the frames of its
    traceback, hangs on a message.
    """

    __slots__ = ("template", "values")

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, values: Mapping[str, object]) -> Sentence:
        kept: dict[str, object] = {}
        for name, value in values.items():
            kept[name] = value if isinstance(value, (str, int, float)) else str(value)
        self = super().__new__(cls, template.format_map(kept))
        self.template = template
        self.values = kept
        return self

    def __str__(self) -> str:
        """Itself, so that ``str(error)`` of an error with a sentence is still a sentence."""
        return self

    def __reduce__(self) -> tuple[type[Sentence], tuple[str, Mapping[str, object]]]:
        return type(self), (self.template, self.values)


def t(template: str, /, **values: object) -> str:
    """The English sentence, a ``Sentence``; for types it is the ``str`` that every message, hint and problem is.

    ``template`` is a literal: a test reads them all, and a translator's list is made of them.
    """
    return Sentence(template, values)


def template(text: str, /) -> str:
    """``text``, a template that stands in a table, away from the ``t`` that fills it in."""
    return text


def counted(count: int, one: str, many: str, /, **values: object) -> str:
    """``1 month``, ``2 months``: ``one`` and ``many`` are templates with ``{count}``."""
    return Sentence(one if count == 1 else many, {"count": count, **values})


def joined(separator: str, parts: Iterable[str]) -> str:
    """``separator.join(parts)`` that keeps each part as a sentence of its own.

    A separator with words is a sentence too: ``joined(t(" and "), names)``.
    """
    values = {f"part_{number}": part for number, part in enumerate(parts, 1)}
    between = "{separator}" if isinstance(separator, Sentence) else _literal(separator)
    return Sentence(between.join(f"{{{name}}}" for name in values), {**values, "separator": separator})


def template_of(text: str) -> tuple[str, Mapping[str, object]]:
    """Template and values of any text; a plain one is its own template. ``restored`` makes the same text of them."""
    if isinstance(text, Sentence):
        return text.template, text.values
    return _literal(text), {}


def restored(template: str, values: Mapping[str, object]) -> Sentence:
    """A sentence whose template came from outside, from another process for example. Raises ValueError.

    Names alone: ``{path.parent}`` and ``{0}`` would reach into a value, and a wide format would fill the memory.
    """
    from string import Formatter  # loads ``re``; only what comes from outside is looked at so closely

    try:
        for _, name, form, conversion in Formatter().parse(template):
            if name is None:
                continue
            plain = name.isidentifier() and name in values and conversion in (None, "a", "r")
            if not plain or len(form or "") > _LONGEST_FORM or "{" in (form or ""):
                raise ValueError("a field that no template has")
        return Sentence(template, values)
    except (ValueError, TypeError) as exc:
        raise ValueError("this is no template with its values") from exc


_LONGEST_FORM = 3  # "04X"


def _literal(text: str) -> str:
    """The template that gives ``text``."""
    return text.replace("{", "{{").replace("}", "}}")
