"""How octets and times are written: one form each, and nothing else is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.notation import octets, parse_time

# RFC 4648, section 10: the test vectors of base16, which has them in upper case
BASE16 = {
    b"": "",
    b"f": "66",
    b"fo": "666F",
    b"foo": "666F6F",
    b"foob": "666F6F62",
    b"fooba": "666F6F6261",
    b"foobar": "666F6F626172",
}


@pytest.mark.parametrize(("data", "text"), BASE16.items())
def test_octets_are_base16_in_lower_case(data: bytes, text: str) -> None:
    assert octets(text.lower()) == octets(text.lower(), len(data)) == data
    if text != text.lower():
        with pytest.raises(ValueError, match="not lower-case hex of the right length"):
            octets(text)


@given(st.binary(max_size=80))
def test_octets_come_back(data: bytes) -> None:
    assert octets(data.hex()) == octets(data.hex(), len(data)) == data


@given(st.binary(max_size=80), st.integers(0, 100))
def test_of_another_length(data: bytes, size: int) -> None:
    if size != len(data):
        with pytest.raises(ValueError, match="right length"):
            octets(data.hex(), size)


@given(st.text(max_size=12) | st.text("0123456789abcdefABCDEF \n\t\u0661", max_size=12))
def test_no_other_text_is_taken(text: str) -> None:
    """Whatever is taken is what would be written for it: two texts never mean the same octets."""
    try:
        found = octets(text)
    except ValueError:
        return
    assert found.hex() == text


@pytest.mark.parametrize("value", [None, 7, True, b"00", ["00"], {}])
def test_what_is_no_text(value: object) -> None:
    with pytest.raises(ValueError, match="not lower-case hex"):
        octets(value)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22", "2026-11-22T12:00:00", "2026-11-22T12:00:00+00:00", "2026-11-22 12:00:00Z",
        "2026-11-22T24:00:00Z", "2026-13-22T12:00:00Z", "2026-11-22T12:00:00.5Z", " 2026-11-22T12:00:00Z",
        "2026-11-22T12:00:00Z\n",
        "２026-11-22T12:00:00Z",
    ],
)  # fmt: skip
def test_a_time_has_one_form(text: str) -> None:
    assert parse_time("2026-11-22T12:00:00Z").isoformat() == "2026-11-22T12:00:00+00:00"
    with pytest.raises(ValueError):
        parse_time(text)
