"""One text for every value: RFC 4648's vectors, and the texts that Python's own decoders forgive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.notation import decode_base32, decode_base64, encode_base32, encode_base64


@pytest.mark.parametrize(
    ("value", "padded", "bare", "base32"),
    [
        (b"", "", "", ""),
        (b"f", "Zg==", "Zg", "MY"),
        (b"fo", "Zm8=", "Zm8", "MZXQ"),
        (b"foobar", "Zm9vYmFy", "Zm9vYmFy", "MZXW6YTBOI"),
    ],
)
def test_rfc_4648_section_10(value: bytes, padded: str, bare: str, base32: str) -> None:
    assert (encode_base64(value, padded=True), encode_base64(value, padded=False)) == (padded, bare)
    assert (
        decode_base64(padded, padded=True, field="nonce") == decode_base64(bare, padded=False, field="nonce") == value
    )
    assert (encode_base32(value), decode_base32(base32, field="secret")) == (base32, value)


@pytest.mark.parametrize(
    ("text", "padded", "why"),
    [
        ("Zg", True, "is not base64"),
        ("Zg==", False, "is not canonical base64"),
        ("Zh==", True, "is not canonical base64"),  # the four bits behind the value are not zero
        ("Zh", False, "is not canonical base64"),
        ("Zm9v\n", True, "is not base64"),
        ("Zg=", True, "is not base64"),
        ("Zm_v", True, "is not base64"),
    ],
)
def test_another_text_of_base64_is_refused_and_not_repeated(text: str, padded: bool, why: str) -> None:
    with pytest.raises(Malformed) as refused:
        decode_base64(text, padded=padded, field="nonce")
    assert refused.value.message == f"the nonce {why}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("my", "is not base32 in upper case"),
        ("M1", "is not base32 in upper case"),
        ("MZ", "is not canonical base32"),
        ("MY======", "is not canonical base32"),
    ],
)
def test_another_text_of_base32_is_refused_and_not_repeated(text: str, why: str) -> None:
    with pytest.raises(Malformed) as refused:
        decode_base32(text, field="secret")
    assert refused.value.message == f"the secret {why}"


@given(st.text(alphabet="AQgw+/=Zm9v\n", max_size=12), st.booleans())
def test_what_is_read_is_written_the_same(text: str, padded: bool) -> None:
    try:
        value = decode_base64(text, padded=padded, field="nonce")
    except Malformed:
        return
    assert encode_base64(value, padded=padded) == text
