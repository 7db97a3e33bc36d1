"""The tables of trust rows: the spec has the same, and what is written and what is read follow from them."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.crypto.p256 import P256_SPKI, fingerprint
from medcrypt_hsm.errors import VaultDamaged
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.vault.audit import trust
from medcrypt_hsm.vault.audit.actions import REASONS, SYNCING
from medcrypt_hsm.vault.audit.entries import PROFILES
from medcrypt_hsm.vault.audit.fields import NUMBER, OCTETS, TEXT, TIME, TIME_OR_EMPTY, Codec, Fields
from medcrypt_hsm.vault.audit.trust import FIELDS, TrustState
from medcrypt_hsm.vault.audit.trust_custody import BreakGlass, Custodian, Escrow, OldShare, Use
from medcrypt_hsm.vault.store.rows import TrustRow

SPEC = Path(__file__).parents[3] / "docs" / "spec"
SPKI = (P256_SPKI + b"\x04" + bytes(64)).hex()
TOKEN_ID = fingerprint(bytes.fromhex(SPKI)).hex()
TIME_TEXT, LATER = "2026-11-22T12:00:00Z", "2026-11-23T12:00:00Z"

VALUES_THAT_THE_SPEC_NAMES = {
    "policy": {"none"},
    "token": {*PROFILES, "never", "cached", "always"},
    "rekey": {*REASONS, SYNCING, trust.INTENDED, trust.COMMITTED},
    "retired": {trust.PRESENT, trust.ABSENT},
    "use": {"open", "done", "patient", "practice"},
}
CLASSES: dict[str, tuple[type, set[str]]] = {  # and the attributes that are no members of the row
    "vault": (TrustState, set(TrustState._fields) - FIELDS["vault"].attributes),
    "policy": (trust.Policy, set()),
    "token": (trust.RegisteredToken, {"name"}),
    "keyset": (trust.WrappedKeyset, set()),
    "month": (trust.MonthState, set()),
    "adding": (trust.Adding, {"name"}),
    "hold": (trust.Hold, {"name"}),
    "rekey": (trust.Rekey, set()),
    "retired": (trust.RetiredToken, {"name"}),
    "rows": (trust.Root, {"name"}),
    "doomed": (trust.OldKek, {"kek", "token"}),
    "breakglass": (BreakGlass, {"custodians", "escrow"}),
    "custodian": (Custodian, {"name"}),
    "escrow": (Escrow, set()),
    "oldshare": (OldShare, {"ceremony", "name"}),
    "use": (Use, {"request"}),
}


def of_the_spec() -> dict[str, str]:
    """The column "value" of the tables of trust rows, by kind."""
    found: dict[str, str] = {}
    for page in ("vault.md", "rekey.md", "breakglass.md"):
        for line in (SPEC / page).read_text().splitlines():
            if told := re.match(r"\| `([a-z]+)` \| [^|]+ \| `(\{.*?\})`", line):
                assert found.setdefault(told[1], told[2]) == told[2]
    return found


def kind_of(codec: Codec) -> str:
    """As the spec calls it."""
    if codec.check in (TIME.check, TIME_OR_EMPTY.check):
        return "time" if codec.check is TIME.check else "time, or empty"
    if codec.write is OCTETS.write:
        return "hex"
    return "number" if codec.read is NUMBER.read else "text"


def test_the_spec_has_every_kind() -> None:
    assert set(of_the_spec()) == set(FIELDS) == set(CLASSES)


@pytest.mark.parametrize("kind", FIELDS)
def test_the_spec_has_the_same_members(kind: str) -> None:
    words = set(re.findall(r'"([a-z0-9_-]+)"', of_the_spec()[kind]))
    named = VALUES_THAT_THE_SPEC_NAMES.get(kind, set())
    assert named <= words
    assert words - (named - set(FIELDS[kind].codecs)) == set(FIELDS[kind].codecs)


@pytest.mark.parametrize("kind", FIELDS)
def test_the_spec_has_them_of_the_same_kind(kind: str) -> None:
    for member, told in re.findall(r'"([a-z_]+)": ([^"}]+)', of_the_spec()[kind]):
        said = told.rstrip(", ")
        if re.fullmatch(r"[a-z]|[0-9]+|generation of .*", said):
            said = "number"
        elif "hex" in said:
            said = "hex"
        elif said in ("grade", ""):
            said = "text"
        assert kind_of(FIELDS[kind].codecs[member]) == said, member


@pytest.mark.parametrize("kind", FIELDS)
def test_each_attribute_is_in_the_table_or_in_the_name_of_the_row(kind: str) -> None:
    cls, beside = CLASSES[kind]
    found = {field.name for field in fields(cls)} if is_dataclass(cls) else set(cls._fields)  # type: ignore[attr-defined]
    assert found == FIELDS[kind].attributes | beside
    assert not FIELDS[kind].attributes & beside


def some(codec: Codec) -> Any:
    """What such a field may hold in JSON."""
    if codec.read is NUMBER.read:
        return 8  # the default of none
    if codec.check in (TIME.check, TIME_OR_EMPTY.check):
        return TIME_TEXT
    return "00" * 16 if codec.write is OCTETS.write else "text"


def rows(**changed: Any) -> list[TrustRow]:
    """One of each kind. ``changed``: members by kind."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    names = {
        "vault": "", "policy": "", "token": "doctor", "keyset": "7:doctor", "month": "2026-11", "adding": "spare",
        "hold": "0" * 16, "rekey": "", "retired": "old", "doomed": "6:doctor", "breakglass": "", "escrow": "",
        "rows": "sealed:patient", "oldshare": "00" * 6 + ":ana", "use": "00" * 32,
    }  # fmt: skip
    for kind, table in FIELDS.items():
        value = {member: some(codec) for member, codec in table.codecs.items()}
        known = {
            "audit_key": SPKI, "id": TOKEN_ID, "phase": "committed", "reason": "shred", "was": "absent",
            "scope": "patient", "ceremony": "00" * 6, "threshold": 2, "root": "00" * 32, "check": "00" * 32,
        }  # fmt: skip
        value |= {member: to for member, to in known.items() if member in value}
        value |= {"vault": {"id": "00" * 16}, "use": {"phase": "done"}, "hold": {"nonce": "00" * 12}}.get(kind, {})
        for name in ("ana", "berta") if kind == "custodian" else (names[kind],):
            found[kind, name] = value | changed.get(kind, {})
    return [(kind, name, canonical(value)) for (kind, name), value in sorted(found.items())]


def test_what_is_read_is_written_again_to_the_byte() -> None:
    state = trust.parse(rows())
    assert {(kind, name): canonical(FIELDS[kind].value(told)) for kind, name, told in state.rows()} == {
        (kind, name): value for kind, name, value in rows()
    }
    trust.check_form(rows(), state)


CASES = [(kind, member) for kind, table in FIELDS.items() for member in table.codecs]


def cases(*kinds: str) -> list[tuple[str, str]]:
    return [(kind, member) for kind, member in CASES if kind_of(FIELDS[kind].codecs[member]) in kinds]


@pytest.mark.parametrize(("kind", "member"), CASES)
def test_a_row_without_a_member_cannot_be_read(kind: str, member: str) -> None:
    found = [
        (row, name, canonical({m: v for m, v in parsed(value).items() if (row, m) != (kind, member)}))
        for row, name, value in rows()
    ]
    if FIELDS[kind].codecs[member].default is None:
        with pytest.raises(VaultDamaged):
            trust.parse(found)
    else:  # it may be left out, and is as if its default stood there
        trust.check_form(found, trust.parse(found))


@pytest.mark.parametrize("kind", FIELDS)
def test_a_row_with_a_member_more_is_not_of_the_form(kind: str) -> None:
    found = rows(**{kind: {"more": "text"}})
    with pytest.raises(ValueError, match="not canonical"):
        trust.check_form(found, trust.parse(found))


@pytest.mark.parametrize(("kind", "member"), cases("number"))
@pytest.mark.parametrize("value", [-1, 1 << 63, True, 7.0, "7"])
def test_a_number_has_one_form(kind: str, member: str, value: object) -> None:
    refused(kind, member, value)


@pytest.mark.parametrize(("kind", "member"), cases("time", "time, or empty"))
@pytest.mark.parametrize("value", ["yesterday", "2026-11-22", 7, None])
def test_a_time_has_one_form(kind: str, member: str, value: object) -> None:
    refused(kind, member, value)


@pytest.mark.parametrize(("kind", "member"), cases("hex"))
@pytest.mark.parametrize("value", ["AB" * 16, "ab ab", "a", "text", 7, None])
def test_octets_have_one_form(kind: str, member: str, value: object) -> None:
    refused(kind, member, value)


@pytest.mark.parametrize(("kind", "member"), cases("text"))
@pytest.mark.parametrize("value", [7, None, ["text"]])
def test_a_text_is_text(kind: str, member: str, value: object) -> None:
    refused(kind, member, value)


def refused(kind: str, member: str, value: object) -> None:
    found = rows(**{kind: {member: value}})
    with pytest.raises((VaultDamaged, ValueError)):
        trust.check_form(found, trust.parse(found))


def parsed(value: bytes) -> dict[str, Any]:
    return dict(json.loads(value))


def test_a_table_reads_what_it_writes() -> None:
    table = Fields(one=TEXT, two=OCTETS.called("second"))

    class Told:
        one, second = "a", b"\x01"

    assert table.value(Told()) == {"one": "a", "two": "01"}
    assert table.read({"one": "a", "two": "01", "three": None}) == {"one": "a", "second": b"\x01"}
