"""``Month``: the cryptoperiod of a message key. Always UTC, always ``YYYY-MM``, never a bare string."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_FORM = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True, order=True, slots=True)
class Month:
    """A month from 2000-01 to 2099-12, as months since 2000-01 (the number that a pairing QR carries).

    Raises ValueError for anything else.
    """

    ordinal: int

    def __post_init__(self) -> None:
        if not 0 <= self.ordinal < 1200:
            raise ValueError("a month lies between 2000-01 and 2099-12")

    @classmethod
    def parse(cls, text: str) -> Month:
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError("a month is written YYYY-MM, between 2000-01 and 2099-12")
        return cls((int(match[1]) - 2000) * 12 + int(match[2]) - 1)

    @classmethod
    def of(cls, moment: datetime) -> Month:
        utc = moment.astimezone(UTC)
        return cls((utc.year - 2000) * 12 + utc.month - 1)

    def __str__(self) -> str:
        return f"{2000 + self.ordinal // 12}-{self.ordinal % 12 + 1:02}"

    def __add__(self, months: int) -> Month:
        return Month(self.ordinal + months)
