"""Statements of break-glass: what one may say. That no other bytes are one: tests/properties/test_statements.py."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from medcrypt_hsm.errors import Malformed, NotAuthentic, UsageError
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.statements import Request, RequestedBy, Signed
from tests.support.vault_builder import SoftToken

WHO = SoftToken("who")
TOKEN = {"label": "nueva", "model": "SoftHSM v2", "serial": "00", "uri": "pkcs11:token=nueva"}
BY = RequestedBy("nueva", "EXP-1", "la doctora no despierta", "guardia", TOKEN, "00" * 16)
REQUEST = Request(
    bytes(16),
    bytes(6),
    "2026-11-22T12:00:00Z",
    "2026-11-25T12:00:00Z",
    5,
    bytes(32),
    bytes(1216),
    "patient",
    WHO.spki,
    sha256(BY.encode()).digest(),
)


def signed(told: Request, by: RequestedBy = BY) -> Signed[Request]:
    told = replace(told, enclosed=sha256(by.encode()).digest())
    made = Signed(told, statements.encode(told), bytes(64), by.encode())
    return replace(made, signature=WHO.sign(made.to_sign))


def test_a_request_as_a_file_and_as_the_log_quotes_it() -> None:
    made = signed(REQUEST)
    assert statements.read(made.file(), Request) == made
    made.verify(WHO.spki)
    assert statements.requested_by(made) == BY
    quoted = statements.from_log(made.quoted(), Request)
    assert (quoted.id, quoted.enclosure) == (made.id, b"")
    assert statements.signer_id(made.told) == WHO.id
    with pytest.raises(NotAuthentic):
        made.verify(SoftToken("other").spki)


@pytest.mark.parametrize(
    "told",
    [
        replace(REQUEST, expires="2026-11-25T12:00:01Z"),  # BG-4: three days
        replace(REQUEST, expires=REQUEST.created),
        replace(REQUEST, scope="everybody"),
        replace(REQUEST, sequence=0),
        replace(REQUEST, signer=WHO.spki[:-1]),
        replace(REQUEST, key=bytes(1215)),
    ],
)
def test_signed_all_the_same_but_no_request(told: Request) -> None:
    with pytest.raises(Malformed, match="that is not a break-glass request, or it was altered"):
        statements.read(signed(told).file(), Request)


@pytest.mark.parametrize(
    "by", [replace(BY, patient=""), replace(BY, name="bg-1"), replace(BY, reason=""), replace(BY, salt="00")]
)
def test_an_enclosure_fits_its_request(by: RequestedBy) -> None:
    """A request for one patient names one; nobody takes a guest's name; a reason is given."""
    with pytest.raises(Malformed):
        statements.requested_by(signed(REQUEST, by))


def test_what_a_person_may_be_called() -> None:
    assert statements.is_name("dr-garcia_2")
    assert not any(map(statements.is_name, ("", "dr garcia", "garcía", "x" * 33)))
    statements.check_person("Dra. García")
    with pytest.raises(UsageError, match="a name of 201 characters is too long"):
        statements.check_person("x" * 201)
    with pytest.raises(UsageError, match="not Unicode text"):
        statements.check_person("Garc\udceda")
