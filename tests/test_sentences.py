"""Sentences for people: the English text, and the template and values that it carries."""

from __future__ import annotations

import copy
import pickle
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.errors import MedcryptError, UsageError, WrongPin
from medcrypt_hsm.sentences import Sentence, counted, joined, restored, t, template, template_of

NAMES = st.sampled_from(["path", "count", "token", "month", "reason"])
TEXTS = st.text(alphabet="ab{}!:.[]0 é€\n'\"\\")  # what a format takes for its own signs, and what !a escapes
VALUES = st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False))
LITERALS = st.text(alphabet=string.ascii_letters + " .,:;'\"{}é—\n")


def escaped(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


@st.composite
def filled(draw: st.DrawFn) -> tuple[str, dict[str, object], str]:
    """A template, its values, and the text that an f-string would give."""
    values: dict[str, object] = draw(st.dictionaries(NAMES, VALUES))
    made, text = escaped(first := draw(LITERALS)), first
    for name in draw(st.lists(st.sampled_from(sorted(values)), max_size=6)) if values else ():
        form = draw(st.sampled_from(["", "!a", "!r"]))
        value, literal = values[name], draw(LITERALS)
        made += "{" + name + form + "}" + escaped(literal)
        text += {"": f"{value}", "!a": f"{value!a}", "!r": f"{value!r}"}[form] + literal
    return made, values, text


@given(filled())
def test_the_text_is_what_an_f_string_gives(example: tuple[str, dict[str, object], str]) -> None:
    made, values, text = example
    sentence = Sentence(made, values)
    assert sentence == text
    assert hash(sentence) == hash(text)
    assert (sentence.template, sentence.values) == (made, values)


@given(filled())
def test_copies_and_what_travels_give_the_same_sentence(example: tuple[str, dict[str, object], str]) -> None:
    made, values, text = example
    sentence = Sentence(made, values)
    for again in (
        copy.copy(sentence),
        copy.deepcopy(sentence),
        pickle.loads(pickle.dumps(sentence)),  # noqa: S301 - our own
        restored(*template_of(sentence)),
        restored(*template_of(str(sentence))),
    ):
        assert type(again) is Sentence
        assert (again, again.template, again.values) == (text, made, values)


@given(TEXTS)
def test_a_plain_text_is_its_own_template(text: str) -> None:
    made, values = template_of(text)
    assert not values
    assert restored(made, values) == text


@given(TEXTS, TEXTS)
def test_a_value_with_braces_is_not_filled_in_again(path: str, reason: str) -> None:
    inner = t("{path} is busy", path="{reason}" + path)
    assert t("{inner}: {reason}", inner=inner, reason=reason) == "{reason}" + path + " is busy: " + reason


@given(st.lists(TEXTS), TEXTS)
def test_joined_is_join(parts: list[str], separator: str) -> None:
    whole = joined(separator, parts)
    assert whole == separator.join(parts)
    assert joined(t("{between}", between=separator), parts) == separator.join(parts)
    assert restored(*template_of(whole)) == whole


def test_parts_stay_sentences() -> None:
    inner = t("{token} is full", token="doctor")
    whole = t("not now: {reasons}", reasons=joined(t(" and "), [inner, t("{token} is gone", token="ana")]))
    reasons = template_of(whole)[1]["reasons"]
    assert isinstance(reasons, Sentence)
    assert [template_of(str(part))[0] for part in reasons.values.values()] == [
        "{token} is full",
        "{token} is gone",
        " and ",
    ]
    assert whole == "not now: doctor is full and ana is gone"


@pytest.mark.parametrize(("count", "text"), [(0, "0 months"), (1, "1 month"), (2, "2 months"), (1200, "1200 months")])
def test_counted_takes_the_template_that_the_number_asks_for(count: int, text: str) -> None:
    sentence = counted(count, "{count} month", "{count} months")
    assert sentence == text
    assert template_of(sentence) == ("{count} month" if count == 1 else "{count} months", {"count": count})


def test_an_error_carries_what_its_message_and_hint_were_made_of() -> None:
    error = UsageError(t("{path} is not a file", path=Path("/tmp/a{b}")), t("name another than {name!a}", name="é"))
    assert (error.message, error.hint) == ("/tmp/a{b} is not a file", "name another than '\\xe9'")
    assert template_of(error.message) == ("{path} is not a file", {"path": "/tmp/a{b}"})
    assert template_of(error.hint) == ("name another than {name!a}", {"name": "é"})
    assert template_of(str(error)) == template_of(error.message)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert template_of(again.message) == template_of(error.message)
    assert template_of(WrongPin.hint or "as it is") == ("as it is", {})


def test_no_error_hangs_on_a_message() -> None:
    """Its traceback would keep the frames, and what lies in them."""
    try:
        raise MedcryptError(t("inside {place}", place="here"))
    except MedcryptError as exc:
        sentence = t("it failed: {reason}", reason=exc)
    reason = template_of(sentence)[1]["reason"]
    assert not isinstance(reason, Exception)
    assert template_of(str(reason)) == ("inside {place}", {"place": "here"})


@pytest.mark.parametrize(
    ("made", "values"),
    [
        ("{path.parent}", {"path": "a"}),
        ("{path[0]}", {"path": "a"}),
        ("{}", {"path": "a"}),
        ("{0}", {"0": "a"}),
        ("{path}", {}),
        ("{path:>999999999}", {"path": "a"}),
        ("{path:{count}}", {"path": "a", "count": 1}),
        ("{path:d}", {"path": "a"}),
        ("{path", {"path": "a"}),
        ("{path!s}", {"path": "a"}),
        ("{path!x}", {"path": "a"}),
    ],
)
def test_a_template_from_outside_that_reaches_further_is_refused(made: str, values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no template"):
        restored(made, values)


def test_a_template_in_a_table_is_itself() -> None:
    assert template("{token} is full") == "{token} is full"


def test_it_loads_no_other_module() -> None:
    code = (
        "import sys, collections.abc, medcrypt_hsm; before = set(sys.modules);"
        "import medcrypt_hsm.sentences; print(*(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["medcrypt_hsm.sentences"]
