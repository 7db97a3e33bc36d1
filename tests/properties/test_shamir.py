"""What holds for every secret and every choice of shares: t are enough, and t - 1 tell nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from medcrypt_hsm.crypto import shamir

secrets = st.binary(min_size=16, max_size=48)


@st.composite
def thresholds(draw: st.DrawFn, most: int = shamir.MOST) -> tuple[int, int]:
    count = draw(st.integers(2, most))
    return draw(st.integers(2, count)), count


@settings(deadline=None)
@given(st.data(), secrets, thresholds())
def test_any_t_of_n_shares_give_the_secret(data: st.DataObject, secret: bytes, bounds: tuple[int, int]) -> None:
    threshold, count = bounds
    shares = shamir.split(secret, threshold, count)
    assert len(shares) == count
    size = data.draw(st.integers(threshold, count))
    some = data.draw(st.permutations(range(1, count + 1)))[:size]
    assert shamir.combine({x: shares[x - 1].value for x in some}).value == secret


@settings(deadline=None)
@given(st.data(), secrets, thresholds(8))
def test_fewer_shares_fit_every_secret_exactly_once(
    data: st.DataObject, secret: bytes, bounds: tuple[int, int]
) -> None:
    """For any t - 1 shares and any secret whatever there is one share of the next x that gives that secret.

    At 0 the polynomial is known + weight · missing. A weight that is not 0 makes missing → secret one to one: every
    secret has one missing share, and one polynomial of degree t - 1 through all of them.
    """
    threshold, count = bounds
    order = data.draw(st.permutations(range(1, count + 1)))
    made = shamir.split(secret, threshold, count)
    known = {x: made[x - 1].value for x in order[: threshold - 1]}
    missing = order[threshold - 1]
    other = data.draw(st.binary(min_size=len(secret), max_size=len(secret)))

    without = shamir.combine({**known, missing: bytes(len(secret))}).value
    ones = shamir.combine({**known, missing: b"\1" * len(secret)}).value
    (weight,) = {one ^ none for one, none in zip(ones, without, strict=True)}
    assert weight
    further = bytes(
        shamir.multiply(wanted ^ none, shamir.inverse(weight)) for wanted, none in zip(other, without, strict=True)
    )
    assert shamir.combine({**known, missing: further}).value == other
    assert (further == made[missing - 1].value) == (other == secret)
