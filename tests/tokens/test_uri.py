"""RFC 7512 token URIs: what is read, what is refused and why, and that reading and writing are inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.tokens.uri import TokenUri, format_uri, parse_uri

CANONICAL = {
    "pkcs11:token=doctor": TokenUri(token="doctor"),
    "pkcs11:serial=0a1b": TokenUri(serial="0a1b"),
    "pkcs11:token=a%20b;serial=1;manufacturer=M%26C;model=x%3By": TokenUri("a b", "1", "M&C", "x;y"),
    "pkcs11:?module-path=/usr/lib/m.so": TokenUri(module_path="/usr/lib/m.so"),
    "pkcs11:token=%E2%82%AC?module-path=/a%20b/m.so": TokenUri(token="€", module_path="/a b/m.so"),
    "pkcs11:token=100%25": TokenUri(token="100%"),
}


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_text_is_read_and_written(text: str) -> None:
    assert parse_uri(text) == CANONICAL[text]
    assert str(CANONICAL[text]) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("pkcs11:serial=1;token=a", "pkcs11:token=a;serial=1"),
        ("pkcs11:token=%61%2d", "pkcs11:token=a-"),
        ("pkcs11:token=SoftHSM%20(v2)", "pkcs11:token=SoftHSM%20%28v2%29"),
        ("pkcs11:token=a?module-path=%2Fm.so", "pkcs11:token=a?module-path=/m.so"),
    ],
)
def test_other_spellings_mean_the_same(text: str, canonical: str) -> None:
    assert format_uri(parse_uri(text)) == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a 'pkcs11:' URI"),
        ("doctor", "not a 'pkcs11:' URI"),
        ("PKCS11:token=a", "not a 'pkcs11:' URI"),
        ("yubikey:1", "not a 'pkcs11:' URI"),
        ("p11:token=a?pin-value=9731", "not a 'pkcs11:' URI"),
        ("pkcs11:", "neither a token nor a module"),
        ("pkcs11:?", "neither a token nor a module"),
        ("pkcs11:token=", "empty"),
        ("pkcs11:token", "not an attribute"),
        ("pkcs11:token=a;", "not an attribute"),
        ("pkcs11:;token=a", "not an attribute"),
        ("pkcs11:Token=a", "not an attribute"),
        ("pkcs11:x-vendor=a", "not an attribute"),
        ("pkcs11:token=a;token=a", "twice"),
        ("pkcs11:token=a?module-path=/a&module-path=/a", "twice"),
        ("pkcs11:token=a?token=a", "not an attribute"),
        ("pkcs11:module-path=/a", "not an attribute"),
        ("pkcs11:token=a b", "may not hold ' '"),
        ("pkcs11:token=ä", "may not hold 'ä'"),
        ("pkcs11:token=a/b", "may not hold '/'"),
        ("pkcs11:token=a%", "two hexadecimal digits"),
        ("pkcs11:token=a%2", "two hexadecimal digits"),
        ("pkcs11:token=a%+1", "two hexadecimal digits"),
        ("pkcs11:token=%FF", "not UTF-8"),
        ("pkcs11:token=%C0%80", "not UTF-8"),
        ("pkcs11:token=%00", "control characters"),
        ("pkcs11:token=%1B", "control characters"),
        ("pkcs11:token=%E2%80%AE", "control characters"),
        ("pkcs11:token=a?module-path=m.so", "absolute"),
        ("pkcs11:token=a?module-name=m", "named by its path"),
        ("pkcs11:token=a?pin-value=9731", "never part of a URI"),
        ("pkcs11:token=a?pin-source=file:/pin", "never part of a URI"),
        ("pkcs11:token=a;pin-value=9731", "never part of a URI"),
        ("pkcs11:slot-id=0", "never named by"),
        ("pkcs11:token=a;slot-description=b", "never named by"),
        ("pkcs11:token=a;object=kek", "not an object"),
        ("pkcs11:token=a;type=private", "not an object"),
        ("pkcs11:token=a;id=%01", "not an object"),
        ("pkcs11:library-version=3", "named by its path"),
    ],
)
def test_everything_else_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        parse_uri(text)
    assert refused.value.hint
    assert "9731" not in str(refused.value) + refused.value.hint


printable = st.text(min_size=1, max_size=40).filter(str.isprintable)


@given(printable, st.none() | printable, st.none() | printable, st.none() | printable, st.none() | printable)
def test_writing_and_reading_are_inverse(
    token: str, serial: str | None, manufacturer: str | None, model: str | None, path: str | None
) -> None:
    uri = TokenUri(token, serial, manufacturer, model, None if path is None else "/" + path)
    assert parse_uri(format_uri(uri)) == uri


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        uri = parse_uri("pkcs11:" + text)
    except UsageError:
        return
    assert parse_uri(str(uri)) == uri
