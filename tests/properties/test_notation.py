"""``ctx``: two different lists of parts never give the same bytes; so no MAC, AAD or signature has two meanings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.notation import ctx, lp, u64
from scripts.standalone import patient


def raw(call: tuple[str, list[bytes | str]]) -> list[bytes]:
    return [part.encode("utf-8") if isinstance(part, str) else part for part in (call[0], *call[1])]


def split(data: bytes) -> list[bytes]:
    """The way back, which is what makes it injective."""
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
calls = st.tuples(texts, st.lists(st.one_of(st.binary(max_size=12), texts), max_size=6))


@given(calls)
def test_its_parts_can_be_read_back(call: tuple[str, list[bytes | str]]) -> None:
    assert split(ctx(call[0], *call[1])) == raw(call)


@given(calls, calls)
def test_different_parts_give_different_bytes(
    one: tuple[str, list[bytes | str]], other: tuple[str, list[bytes | str]]
) -> None:
    assert (ctx(one[0], *one[1]) == ctx(other[0], *other[1])) == (raw(one) == raw(other))


@given(st.binary(max_size=20), st.integers(0, 20))
def test_where_parts_meet_matters(data: bytes, at: int) -> None:
    moved = ctx("label", data[:at], data[at:])
    assert moved != ctx("label", data)
    assert at >= len(data) or moved != ctx("label", data[: at + 1], data[at + 1 :])


@given(calls)
def test_none_is_the_beginning_of_another(call: tuple[str, list[bytes | str]]) -> None:
    """One more part is another ctx, and what is signed is the whole of it."""
    whole = ctx(call[0], *call[1])
    assert len(split(whole + lp(b""))) == len(split(whole)) + 1


@given(calls)
def test_the_patients_program_agrees(call: tuple[str, list[bytes | str]]) -> None:
    assert ctx(call[0], *call[1]) == patient.ctx(call[0], *call[1])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_numbers(one: int, other: int) -> None:
    assert len(u64(one)) == 8
    assert (u64(one) == u64(other)) == (one == other)
    assert (u64(one) < u64(other)) == (one < other)
