"""Tables of fields, and the forms that values in entries in the clear have."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from medcrypt_hsm.errors import NotAuthentic
from medcrypt_hsm.vault.audit import fields
from medcrypt_hsm.vault.audit.fields import EXACT_TIME, NUMBER, OCTETS, TIME_OR_EMPTY, Fields
from tests.support.vault_builder import SoftToken

HOLD = Fields(entry=NUMBER, id=OCTETS.called("hold_id"), lifted=TIME_OR_EMPTY)
DER = SoftToken("doctor").spki


class Hold(NamedTuple):
    hold_id: bytes
    entry: int
    lifted: str = ""


def test_a_table_writes_and_reads_by_the_members_names() -> None:
    value = {"entry": 7, "id": "c0ffee", "lifted": ""}
    assert HOLD.value(Hold(b"\xc0\xff\xee", 7)) == value
    assert Hold(**HOLD.read(value)) == Hold(b"\xc0\xff\xee", 7)
    assert HOLD.attributes == {"hold_id", "entry", "lifted"}


def test_what_can_be_read_is_not_yet_of_the_form() -> None:
    """A damaged file is refused when it is read, a log that is not as the spec has it when it is verified."""
    with pytest.raises(KeyError):
        HOLD.read({"entry": 7, "id": "c0ffee"})
    told = Hold(**HOLD.read({"entry": -7, "id": "c0ffee", "lifted": "yesterday"}))
    with pytest.raises(ValueError, match="not a number in range"):
        HOLD.check(told)
    with pytest.raises(ValueError):
        HOLD.check(told._replace(entry=7))
    HOLD.check(told._replace(entry=7, lifted="2026-11-22T12:00:00Z"))


@pytest.mark.parametrize("value", [True, -1, 1 << 63, 7.0, "7", None])
def test_a_number_is_one_and_in_range(value: Any) -> None:
    with pytest.raises(ValueError, match="not a number in range"):
        fields.number(value)


def test_a_text_is_one_that_can_be_signed_again() -> None:
    assert fields.exact_text("Señora") == "Señora"
    with pytest.raises(TypeError, match="not text"):
        fields.exact_text(7)
    with pytest.raises(UnicodeEncodeError):
        fields.exact_text("\ud83d")


def test_codecs_of_one_size_or_of_few_values() -> None:
    assert fields.exact_octets(2).read("c0ff") == fields.sized_octets(2).read("C0FF") == b"\xc0\xff"
    for codec, value in (
        (fields.exact_octets(2), "C0FF"),
        (fields.exact_octets(2), "c0ffee"),
        (fields.sized_octets(2), "c0ffee"),
        (fields.one_of("open", "done"), "shut"),
        (EXACT_TIME, "2026-11-22 12:00:00"),
    ):
        with pytest.raises(ValueError):
            codec.read(value)


def test_an_introduction_tells_what_a_stranger_needs_and_no_more() -> None:
    row = dict.fromkeys((*fields.TOLD, "uri", "label", "touch"), "x")
    assert set(fields.introduction(row, "doctor")) == {"name", *fields.TOLD}


def test_a_kek_has_a_public_key_where_its_profile_has_one() -> None:
    fields.check_kek("p256-hpke", DER.hex())
    fields.check_kek("aes-kw", "")
    assert fields.p256_key(DER.hex()) == DER
    for profile, kek in (("aes-kw", DER.hex()), ("aes-kw", None), ("p256-hpke", ""), ("p256-hpke", DER[:-1].hex())):
        with pytest.raises((ValueError, NotAuthentic)):
            fields.check_kek(profile, kek)


def test_lists_are_sorted_and_name_everything_once() -> None:
    assert fields.texts(["2026-09", "2026-10"], re.compile(r"\d{4}-\d\d")) == ["2026-09", "2026-10"]
    assert fields.token_ids(["00ff", "01ff"]) == [b"\x00\xff", b"\x01\xff"]
    for value in (["01", "00"], ["00", "00"], ["0"], ["0G"], [7], "00", {"00": 1}):
        with pytest.raises(ValueError, match="not a sorted list"):
            fields.texts(value, fields.HEX)
    fields.refs(["record:log::00000001"])
    for value in ([], [7], "record", None):
        with pytest.raises(ValueError, match="not a list of rows"):
            fields.refs(value)


def test_members_are_those_that_are_named() -> None:
    fields.only({"generation": 2, "keks": {}}, "generation", "keks")
    fields.only({"generation": 2, "keks": {}}, "generation", optional=("keks", "writes"))
    for detail in ({"generation": 2}, {"generation": 2, "keks": {}, "more": 1}):
        with pytest.raises(ValueError, match="it has other members than the spec's"):
            fields.only(detail, "generation", "keks")
