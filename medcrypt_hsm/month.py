"""``Month``: the cryptoperiod of a message key. Always UTC, always ``YYYY-MM``, never a bare string."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from datetime import datetime


class Month:
    """A month from 2000-01 to 2099-12, as months since 2000-01 (the number that a pairing QR carries).

    Raises ValueError for anything else.
    """

    # By hand, not by ``dataclass``: that is loaded by no command that only speaks to a session.
    __slots__ = ("ordinal",)

    ordinal: int

    def __init__(self, ordinal: int) -> None:
        if not 0 <= ordinal < 1200:
            raise ValueError("a month lies between 2000-01 and 2099-12")
        object.__setattr__(self, "ordinal", ordinal)

    @classmethod
    def parse(cls, text: str) -> Month:
        digits = text[2:4] + text[5:]
        formed = len(text) == 7 and text[:2] == "20" and text[4] == "-" and digits.isascii() and digits.isdecimal()
        if not (formed and 1 <= int(text[5:]) <= 12):
            raise ValueError("a month is written YYYY-MM, between 2000-01 and 2099-12")
        return cls(int(text[2:4]) * 12 + int(text[5:]) - 1)

    @classmethod
    def of(cls, moment: datetime) -> Month:
        from datetime import UTC

        utc = moment.astimezone(UTC)
        return cls((utc.year - 2000) * 12 + utc.month - 1)

    def __str__(self) -> str:
        return f"{2000 + self.ordinal // 12}-{self.ordinal % 12 + 1:02}"

    def __repr__(self) -> str:
        return f"Month(ordinal={self.ordinal})"

    def __add__(self, months: int) -> Month:
        return Month(self.ordinal + months)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a month does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a month does not change")

    def __reduce__(self) -> tuple[type[Month], tuple[int]]:
        return type(self), (self.ordinal,)

    def __hash__(self) -> int:
        return hash(self.ordinal)

    def __eq__(self, other: object) -> bool:
        return self.ordinal == other.ordinal if isinstance(other, Month) else NotImplemented

    def __lt__(self, other: Month) -> bool:
        return self.ordinal < other.ordinal if isinstance(other, Month) else NotImplemented

    def __le__(self, other: Month) -> bool:
        return self.ordinal <= other.ordinal if isinstance(other, Month) else NotImplemented

    def __gt__(self, other: Month) -> bool:
        return self.ordinal > other.ordinal if isinstance(other, Month) else NotImplemented

    def __ge__(self, other: Month) -> bool:
        return self.ordinal >= other.ordinal if isinstance(other, Month) else NotImplemented
