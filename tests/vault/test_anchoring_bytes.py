"""Anchors, in the bytes in which a token keeps them (docs/spec/audit.md)."""

from __future__ import annotations

import pytest

from medcrypt_hsm.errors import Malformed, NotAuthentic
from medcrypt_hsm.notation import canonical, ctx, lp
from medcrypt_hsm.vault.anchoring import Anchor, parse_anchor
from tests.support.vault_builder import SoftToken

DOCTOR, OTHER = SoftToken("doctor"), SoftToken("other")
ANCHOR = Anchor(bytes(range(16)), DOCTOR.id, 7, bytes(32), "2026-11-22T12:00:00Z", (DOCTOR.id,))


def test_its_bytes() -> None:
    assert ANCHOR.encode().decode() == (
        f'{{"audit_keys":["{DOCTOR.id.hex()}"],"hash":"{"00" * 32}","sequence":7,"time":"2026-11-22T12:00:00Z",'
        f'"token":"{DOCTOR.id.hex()}","vault":"000102030405060708090a0b0c0d0e0f","version":1}}'
    )
    signature = DOCTOR.sign(ANCHOR.to_sign)
    assert ANCHOR.signed(signature) == len(ANCHOR.encode()).to_bytes(4, "big") + ANCHOR.encode() + signature


def test_what_a_token_signed_is_read_again() -> None:
    assert parse_anchor(ANCHOR.signed(DOCTOR.sign(ANCHOR.to_sign)), DOCTOR.spki) == ANCHOR


def test_signed_by_another_key_or_altered() -> None:
    value = ANCHOR.signed(DOCTOR.sign(ANCHOR.to_sign))
    older = ANCHOR._replace(sequence=6).signed(value[-64:])
    for data, key in ((value, OTHER.spki), (older, DOCTOR.spki), (value[:-1], DOCTOR.spki), (b"", DOCTOR.spki)):
        with pytest.raises(NotAuthentic):
            parse_anchor(data, key)


@pytest.mark.parametrize("data", [canonical({"version": 2}), canonical({"version": 1}), canonical([]), b"not JSON"])
def test_signed_all_the_same_but_no_anchor(data: bytes) -> None:
    with pytest.raises(Malformed, match="the token's anchor cannot be read"):
        parse_anchor(lp(data) + DOCTOR.sign(ctx("medcrypt/anchor", data)), DOCTOR.spki)
