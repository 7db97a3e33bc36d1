"""``Signers``: whose audit keys count at a place in the log."""

from __future__ import annotations

from typing import Any

import pytest

from medcrypt_hsm.errors import AuditBroken
from medcrypt_hsm.vault.audit.chain_signers import Introduced, NewKek, Rekeyed, Signers
from tests.support.vault_builder import SoftToken

DOCTOR, SPARE = SoftToken("doctor"), SoftToken("spare")
REKEYED = Rekeyed(9, "2026-11-22T12:00:00Z", 2)


def detail(token: SoftToken, **changed: object) -> dict[str, object]:
    told = {"audit_key": token.spki.hex(), "id": token.id.hex(), "name": token.name, "serial": "1", "model": "soft"}
    return told | {"profile": "aes-kw", "kek": "", "attestation": "token-claimed"} | changed


def introduced(token: SoftToken, at: int = 1, **changed: object) -> Introduced:
    return Introduced.parse(detail(token, **changed), at, 1, ())


def two() -> Signers:
    """The doctor's token, introduced by entry 1, and a spare one by entry 5."""
    signers = Signers({}, {})
    for token, at in ((DOCTOR, 1), (SPARE, 5)):
        signers.name(introduced(token, at))
        signers.add(introduced(token, at))
    return signers


@pytest.mark.parametrize(
    "changed",
    [
        {"id": SPARE.id.hex()},  # another key's fingerprint
        {"audit_key": DOCTOR.spki[:-1].hex()},
        {"name": "bg-12345678"},  # a guest's
        {"name": 7},
        {"profile": "rot13"},
        {"attestation": "sworn"},
        {"kek": SPARE.spki.hex()},  # an aes-kw KEK has no public key
        {"profile": "p256-hpke"},  # and one of this profile has
    ],
)
def test_what_no_honest_program_introduces(changed: dict[str, Any]) -> None:
    with pytest.raises(AuditBroken, match="audit entry 5 introduces no usable token") as caught:
        introduced(DOCTOR, 5, **changed)
    assert caught.value.at == 5


def test_a_custodians_token_is_no_doctors() -> None:
    """BG-1."""
    held = {"serial": "1", "model": "soft"}
    with pytest.raises(AuditBroken):
        Introduced.parse(detail(DOCTOR), 5, 1, [held])
    assert Introduced.parse(detail(DOCTOR), 5, 1, [held | {"serial": "2"}]).id == DOCTOR.id


def test_the_first_key_vouches_for_itself_unless_the_token_remembers_another() -> None:
    Signers({DOCTOR.id: DOCTOR.spki}, {}).name(introduced(DOCTOR))
    with pytest.raises(AuditBroken, match="begins with another key than the token remembers"):
        Signers({SPARE.id: SPARE.spki}, {}).name(introduced(DOCTOR))


def test_a_key_and_a_name_come_once() -> None:
    for again in (introduced(SPARE, 7, name="third"), introduced(SoftToken("new"), 7, name="spare")):
        with pytest.raises(AuditBroken, match="audit entry 7 introduces a key or a name twice"):
            two().name(again)
    for id_, name in ((SPARE.id, "bg-1"), (bytes(32), "spare")):
        with pytest.raises(AuditBroken, match="opens with a key or a name that was there before"):
            two().name_guest(id_, name, 7)


def test_a_key_counts_from_its_introduction_until_a_rekey_retires_it() -> None:
    signers = two()
    signers.retire(SPARE.id, REKEYED)
    assert signers.keys == {DOCTOR.id: DOCTOR.spki}
    counted = {at: len(signers.keys_at(at)) for at in (0, 1, 4, 5, 8, 9)}
    assert counted == {0: 0, 1: 1, 4: 1, 5: 2, 8: 2, 9: 1}
    with pytest.raises(KeyError):
        signers.retire(SPARE.id, REKEYED)
    assert signers.names[SPARE.id] == "spare"  # what it signed keeps its name


def test_a_new_root_key_is_of_a_token_that_is_there_and_of_the_new_generation() -> None:
    signers, kek = two(), NewKek("device-attested", 2, "")
    signers.take_kek("spare", kek, 2)
    assert (signers.introduced[SPARE.id].kek, signers.introduced[SPARE.id].told["attestation"]) == (2, kek.attestation)
    for name, made in (
        ("spare", kek._replace(generation=1)),
        ("spare", kek._replace(attestation="sworn")),
        ("spare", kek._replace(kek=SPARE.spki.hex())),
        ("third", kek),
    ):
        with pytest.raises(ValueError):
            signers.take_kek(name, made, 2)
