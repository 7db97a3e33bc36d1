"""Files from elsewhere: what ``statements.read`` makes of any bytes is a statement, to the byte, or Malformed."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.statements import LARGEST, Approval, Drill, Request, RequestedBy, Signed

KINDS: tuple[Any, ...] = (Request, Approval, Drill)
NOW, THEN = "2026-11-22T12:00:00Z", "2026-11-23T12:00:00Z"
SPKI = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)
TOKEN = {"label": "nueva", "model": "SoftHSM v2", "serial": "00", "uri": "pkcs11:token=nueva"}
ENCLOSURE = RequestedBy("nueva", "EXP-1", "una razón", "guardia", TOKEN, "00" * 16).encode()


def _file(told: Any, enclosure: bytes) -> bytes:
    return Signed(told, statements.encode(told), bytes(64), enclosure).file()


ID, EMPTY = bytes(32), hashlib.sha256(b"").digest()
WHOLE = {
    Request: _file(
        Request(
            *(bytes(16), bytes(6), NOW, THEN, 5, ID, bytes(1216), "patient", SPKI, hashlib.sha256(ENCLOSURE).digest())
        ),
        ENCLOSURE,
    ),
    Approval: _file(Approval(bytes(16), bytes(6), ID, "ana", 1, ID, ID, NOW, hashlib.sha256(b"00").digest()), b"00"),
    Drill: _file(Drill(bytes(16), bytes(6), "ana", 1, ID, "ana", NOW, EMPTY), b""),
}


def read_or_malformed(data: bytes) -> None:
    """Under each kind: the very bytes again, or Malformed and nothing else."""
    for kind in KINDS:
        with suppress(Malformed):
            signed = statements.read(data, kind)
            assert signed.file() == data
            if kind is Request:
                statements.requested_by(signed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_one_is_read_as_its_own_kind_alone(kind: Any) -> None:
    assert statements.read(WHOLE[kind], kind).file() == WHOLE[kind]
    for other in set(KINDS) - {kind}:
        with pytest.raises(Malformed):
            statements.read(WHOLE[kind], other)


@given(st.binary(max_size=300))
@example(b"")
@example(b"\n\n\n")
@example(b"[" * 30000 + b"\n\n\n")
@example(b"{}\n\n\n")
@example(b"\xff\n\xff\n\xff\n")
@example(b"x" * (LARGEST + 1))
def test_any_bytes(data: bytes) -> None:
    read_or_malformed(data)


@settings(max_examples=300)
@given(st.sampled_from(KINDS), st.data())
def test_a_byte_of_one_altered_added_or_left_out(kind: Any, data: st.DataObject) -> None:
    whole = WHOLE[kind]
    at = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.binary(max_size=2))
    read_or_malformed(whole[:at] + new + whole[at + 1 :])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("\ud800")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=300)
@given(st.sampled_from(KINDS), st.data())
def test_a_member_of_another_kind(kind: Any, data: st.DataObject) -> None:
    """Canonical, and with the enclosure that it names: only the member is wrong."""
    statement, signature, enclosure, _ = WHOLE[kind].split(b"\n")
    value = json.loads(statement)
    member = data.draw(st.sampled_from([*sorted(value), "more"]))
    value[member] = data.draw(JSON)
    try:
        line = canonical(value)
    except (ValueError, UnicodeEncodeError):  # nothing that could be signed
        line = json.dumps(value).encode()
    read_or_malformed(b"\n".join((line, signature, enclosure, b"")))


@settings(max_examples=200)
@given(st.data())
def test_an_enclosure_of_another_form(data: st.DataObject) -> None:
    value = json.loads(ENCLOSURE)
    value[data.draw(st.sampled_from([*sorted(value), "more"]))] = data.draw(JSON)
    try:
        enclosure = canonical(value)
    except (ValueError, UnicodeEncodeError):
        enclosure = json.dumps(value).encode()
    digest = hashlib.sha256(enclosure).digest()
    told = Request(bytes(16), bytes(6), NOW, THEN, 5, ID, bytes(1216), "patient", SPKI, digest)
    read_or_malformed(_file(told, enclosure))
