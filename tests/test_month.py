"""``Month``: a cryptoperiod, always UTC, always YYYY-MM."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from medcrypt_hsm.month import Month


@pytest.mark.parametrize(("text", "ordinal"), [("2000-01", 0), ("2026-11", 322), ("2099-12", 1199)])
def test_months_are_counted_from_2000(text: str, ordinal: int) -> None:
    assert Month.parse(text) == Month(ordinal)
    assert str(Month(ordinal)) == text


@pytest.mark.parametrize(
    "text", ["", "2026-13", "2026-00", "2026-1", "1999-12", "2100-01", "2026-11 ", " 2026-11", "2026/11", "2026-1١"]
)
def test_no_other_text_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="a month is written YYYY-MM, between 2000-01 and 2099-12"):
        Month.parse(text)


def test_a_moment_is_of_the_month_that_it_is_in_utc() -> None:
    last = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    assert Month.of(last) == Month.parse("2026-11")
    assert Month.of(last + timedelta(minutes=1)) == Month.parse("2026-12")
    in_mexico = datetime(2026, 11, 30, 19, tzinfo=timezone(timedelta(hours=-6)))
    assert Month.of(in_mexico) == Month.parse("2026-12")


def test_they_have_an_order_and_a_next_one() -> None:
    assert Month.parse("2026-12") + 1 == Month.parse("2027-01")
    assert max(Month.parse(text) for text in ("2026-12", "2027-01", "2026-02")) == Month.parse("2027-01")


def test_there_is_none_before_the_first_or_after_the_last() -> None:
    for beyond in (-1, 1200):
        with pytest.raises(ValueError, match="lies between"):
            Month(beyond)
    with pytest.raises(ValueError, match="lies between"):
        Month.parse("2099-12") + 1
