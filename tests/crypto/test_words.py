"""The PGP word list: whole, and as its literature uses it."""

from __future__ import annotations

import hashlib

import pytest

from medcrypt_hsm.crypto.words import words

EVEN = [words(bytes([byte]), 1) for byte in range(256)]
ODD = [words(bytes([0, byte]), 2).removeprefix("aardvark ") for byte in range(256)]


@pytest.mark.parametrize(
    ("fingerprint", "spoken"),
    [
        (
            "E582 94F2 E9A2 2748 6E8B 061B 31CC 528F D7FA 3F19",
            "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator goldfish Medusa "
            "afflict bravado chatter revolver Dupont midsummer stopwatch whimsical cowbell bottomless",
        ),
        (
            "D1D4 64C0 04F0 0FB5 C9A4 C8D8 E433 E7FB 7FF5 6256",
            "stairway souvenir flytrap recipe adrift upcoming artist positive spearhead Pandora "
            "spaniel stupendous tonic concurrent transit Wichita lockup visitor flagpole escapade",
        ),
    ],
)
def test_the_fingerprints_in_the_literature(fingerprint: str, spoken: str) -> None:
    assert words(bytes.fromhex(fingerprint), 20) == spoken
    assert words(bytes.fromhex(fingerprint)) == " ".join(spoken.split()[:10])


def test_the_lists_are_whole() -> None:
    """All different, also without capitals, and none changed since it was compared."""
    assert len({word.lower() for word in EVEN + ODD}) == 512
    assert all(word.isascii() and word.isalpha() for word in EVEN + ODD)
    assert (EVEN[0], ODD[0], EVEN[255], ODD[255]) == ("aardvark", "adroitness", "Zulu", "Yucatan")
    digest = hashlib.sha256(" ".join(EVEN + ODD).encode()).hexdigest()
    assert digest == "3e090850023f09a3bff58dbc9926ee0840dd829fa8198af8ceffd1b2280a7096"


@pytest.mark.parametrize("count", [0, -1, 33])
def test_more_words_than_bytes_are_misuse(count: int) -> None:
    with pytest.raises(ValueError):
        words(bytes(32), count)
