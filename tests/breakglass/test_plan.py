"""CEREMONY.toml, and what the options may add to it; whatever else stands in it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.breakglass.plan import LARGEST, Plan, Planned, parse, planned
from medcrypt_hsm.errors import UsageError

WHOLE = b"""threshold = 2
place = "Consulta Ejemplo"
witnesses = ["Notaria Ejemplo"]

[[custodian]]
name = "ana"
person = "Ana Ejemplo"
token = "yubikey:1"

[[custodian]]
name = "berta"
"""
BERTA = {"berta": "yubikey:2"}


def test_the_file_and_what_it_leaves_out() -> None:
    plan = planned(WHOLE, BERTA, None)
    people = (Planned("ana", "Ana Ejemplo", "yubikey:1"), Planned("berta", "", "yubikey:2"))
    assert plan == Plan(people, 2, "Consulta Ejemplo", ("Notaria Ejemplo",))
    assert plan.shares == {"ana": "yubikey:1", "berta": "yubikey:2"}
    assert planned(WHOLE, {"ana": "yubikey:1"}, 2).threshold == 2, "the same twice is no contradiction"


def test_options_alone() -> None:
    shares = {"ana": "yubikey:1", **BERTA, "carla": "yubikey:3"}
    assert planned(None, shares, None).threshold == 2
    assert planned(None, shares, 3).shares == shares


def test_a_threshold_that_only_the_options_tell() -> None:
    file = b'custodian = [{name = "a"}, {name = "b"}, {name = "c"}]'
    assert planned(file, {}, 3).threshold == 3
    assert planned(file, {}, None).threshold == 2


def test_a_token_that_nobody_names() -> None:
    with pytest.raises(UsageError, match="no token is named for berta") as refused:
        _ = planned(WHOLE, {}, None).shares
    assert "--share-token berta=URI" in refused.value.hint


@pytest.mark.parametrize(
    ("shares", "threshold", "words"),
    [
        ({"ana": "yubikey:9"}, None, "the token of ana is another"),
        ({"carla": "yubikey:3"}, None, "'carla' is no custodian in the ceremony's file"),
        ({}, 3, "the threshold is 2 in the ceremony's file, and 3"),
    ],
)
def test_contradictions(shares: Mapping[str, str], threshold: int | None, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        planned(WHOLE, shares, threshold)
    assert "contradict" in refused.value.hint


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"threshold = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"a = " + b"[" * 9000, "nested too deeply"),
        (b"#" * (LARGEST + 1), "more than"),
        (b"treshold = 2", "'treshold', which means nothing"),
        (b'[[custodian]]\nname = "ana"\npin = "1234"', "'pin', which means nothing"),
        (b'threshold = "2"', "threshold in the ceremony's file must be a number"),
        (b"threshold = true", "threshold in the ceremony's file must be a number"),
        (b"place = 2", "place in the ceremony's file must be a text"),
        (b'witnesses = "Ana"', "witnesses in the ceremony's file must be a list of texts"),
        (b"witnesses = [2]", "witnesses in the ceremony's file must be a list of texts"),
        (b'custodian = "ana"', r"\[\[custodian\]\]"),
        (b'custodian = ["ana"]', r"\[\[custodian\]\]"),
        (b'[custodian]\nname = "ana"', r"\[\[custodian\]\]"),
        (b'[[custodian]]\nperson = "Ana"', "has no name"),
        (b"[[custodian]]\nname = 2", "name in the ceremony's file must be a text"),
        (b'custodian = [{name = "a"}, {name = "a"}]', "custodian a is named twice"),
        (b'custodian = [{name = "a b"}, {name = "c"}]', "is no name for a custodian"),
        (b'threshold = 1\ncustodian = [{name = "a"}, {name = "b"}]', "1 of 2 custodians"),
        (b'custodian = [{name = "a"}]', "2 of 1 custodians"),
        (b"", "nobody is named"),
    ],
)
def test_refused(file: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        planned(file, {}, None)
    assert refused.value.hint


def test_a_threshold_of_nothing_is_none_that_was_left_out() -> None:
    file = b'threshold = 0\ncustodian = [{name = "a"}, {name = "b"}]'
    for given_file, threshold in ((file, None), (None, 0)):
        with pytest.raises(UsageError, match="0 of 2 custodians"):
            planned(given_file, {} if given_file else {"a": "yubikey:1", "b": "yubikey:2"}, threshold)


VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(max_size=5).map(lambda t: "".join(c for c in t if c.isalnum()))),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


@given(
    st.dictionaries(st.sampled_from(["threshold", "place", "witnesses", "custodian", "more"]), VALUES),
    st.lists(st.dictionaries(st.sampled_from(["name", "person", "token", "more"]), VALUES), max_size=3),
)
def test_anything_in_it_is_a_plan_or_refused(said: dict[str, Any], custodians: list[dict[str, Any]]) -> None:
    lines = [f"{key} = {_toml(value)}" for key, value in said.items()]
    for custodian in custodians:
        lines += ["[[custodian]]", *(f"{key} = {_toml(value)}" for key, value in custodian.items())]
    with suppress(UsageError):
        plan, _ = parse("\n".join(lines).encode())
        assert all(one.name for one in plan.custodians)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plan_or_refused(data: bytes) -> None:
    with suppress(UsageError):
        planned(data, {}, None)
