"""Shamir's scheme over GF(2^8): a secret as n shares, any t of which give it back (docs/spec/breakglass.md, "Shares").

In: bytes and random bytes. Out: each share's bytes, or the secret again. Not here: vaults, tokens, commitments, nor any
check that shares belong together: fewer than t of them, or one that is wrong, give another secret without a complaint.

How constant the time is: no branch, no table index and no early end depends on a secret byte, and one factor of each
product is public: an x, or a value computed from several x. But the interpreter keeps one object for each number up to
255 and fetches it by value, so a program that shares this processor's caches could see what C code would not show. For
the same reason no number with a secret in it is left in memory: every intermediate is one of those objects.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from medcrypt_hsm.crypto.secret import Secret

MOST = 16  # shares of one secret
SHORTEST = 16  # bytes: what is shorter cannot be wiped


def split(secret: bytes, threshold: int, count: int, random: Callable[[int], bytes] = os.urandom) -> tuple[Secret, ...]:
    """The shares of x = 1 … count, in this order. The secret stays the caller's; what ``random`` returns is wiped.

    Raises ValueError, which is misuse, for a short secret and unless 2 ≤ threshold ≤ count ≤ 16.
    """
    if len(secret) < SHORTEST:
        raise ValueError("the secret is too short")
    if not 2 <= threshold <= count <= MOST:
        raise ValueError("the threshold is at least 2, and at most the count, which is at most 16")
    with contextlib.ExitStack() as wiped:
        # Each coefficient is any byte, the highest one 0 as well: without the 0, t - 1 shares would rule out a secret.
        coefficients = [wiped.enter_context(Secret(random(len(secret)))) for _ in range(threshold - 1)]
        if any(len(coefficient.value) != len(secret) for coefficient in coefficients):
            raise ValueError("not as many random bytes as were asked for")
        return tuple(_share(x, secret, coefficients) for x in range(1, count + 1))


def combine(shares: Mapping[int, bytes]) -> Secret:
    """The secret from at least as many shares (x → y) as the threshold: the value at 0 of the polynomial through them.

    Raises ValueError, which is misuse, for no shares, for y of different lengths, and for an x that is not 1 … 255.
    """
    if len({len(y) for y in shares.values()}) != 1:
        raise ValueError("shares are needed, all of one length")
    if not all(1 <= x <= 255 for x in shares):
        # x = 0 would be the secret itself: whoever submitted such a "share" would choose the result, because at 0
        # every other share has the weight 0. And beyond 255 there is no field element.
        raise ValueError("a share's x is 1 to 255")
    with _scratch(len(next(iter(shares.values())))) as secret:
        for x, y in shares.items():
            weight = _weight(x, shares)
            for place, byte in enumerate(y):
                secret[place] ^= multiply(byte, weight)
        return Secret(bytes(secret))


def multiply(a: int, b: int) -> int:
    """The product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, in eight rounds whatever a and b are."""
    product = 0
    for _ in range(8):
        product ^= a & -(b & 1)  # -1 is all ones, a mask
        a = (a & 0x7F) << 1 ^ 0x1B & -(a >> 7)  # the bit that would leave the byte is cut off first, and folded back
        b >>= 1
    return product


def inverse(a: int) -> int:
    """a^254, which is 1/a because a^255 = 1, and 0 for 0."""
    power = a
    for _ in range(6):
        power = multiply(multiply(power, power), a)  # a^3, a^7, … a^127
    return multiply(power, power)


def _share(x: int, secret: bytes, coefficients: list[Secret]) -> Secret:
    """f(x) of each byte by Horner's rule, from the highest coefficient down to the secret."""
    with _scratch(len(secret)) as share:
        for coefficient in (*(each.value for each in reversed(coefficients)), secret):
            for place, byte in enumerate(coefficient):
                share[place] = multiply(share[place], x) ^ byte
        return Secret(bytes(share))


def _weight(x: int, all_x: Mapping[int, bytes]) -> int:
    """What Lagrange's formula multiplies the share of x by at 0: the product of o / (o - x) over every other o."""
    weight = 1
    for other in all_x:
        if other != x:
            weight = multiply(weight, multiply(other, inverse(other ^ x)))  # subtracting is XOR, as adding is
    return weight


@contextlib.contextmanager
def _scratch(length: int) -> Iterator[bytearray]:
    """Zero bytes to calculate in, which are zero again afterwards."""
    scratch = bytearray(length)
    try:
        yield scratch
    finally:
        scratch[:] = bytes(length)
