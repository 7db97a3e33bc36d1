"""What a re-key owes custodians. Shares on their tokens, with real ones: tests/lifecycle/test_shares.py."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.lifecycle.custody_upkeep import NewCustody, known_ceremonies
from medcrypt_hsm.vault.audit import trust
from medcrypt_hsm.vault.audit.consent import Custody
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.audit.trust_custody import Custodian
from tests.support.practice import Practice, unlocked
from tests.support.store import open_at
from tests.support.two_readers_breakglass import Emergency
from tests.support.vault_builder import SoftToken


def state_of(log: Emergency, path: Path) -> TrustState:
    with closing(open_at(log.write(path))) as file, file.snapshot():
        return trust.parse(file.trust_rows())


def test_ceremonies_of_which_a_share_is_on_record(tmp_path: Path) -> None:
    log = Emergency().begin()
    assert known_ceremonies(state_of(log, tmp_path / "none.db")) == set()
    log.ceremony(log.doctor)
    first = bytes.fromhex(log.custody["ceremony"])
    assert known_ceremonies(state_of(log, tmp_path / "first.db")) == {first}
    log.rotated()
    second = bytes.fromhex(log.custody["ceremony"])
    assert known_ceremonies(state_of(log, tmp_path / "second.db")) == {first, second}
    log.destroy()
    assert known_ceremonies(state_of(log, tmp_path / "destroyed.db")) == {second}


def custody(*names: str) -> NewCustody:
    custodians = tuple(
        Custodian(name, SoftToken(name).spki, b"", os.urandom(32), x, f"pkcs11:token={name}", name, str(x), "soft",
                  "aes-kw", "token-claimed")
        for x, name in enumerate(names, 1)
    )  # fmt: skip
    return NewCustody(os.urandom(6), os.urandom(1216), 2, custodians, Secret(os.urandom(32)))


class NotThis(Exception):
    """Nothing of it is written: what a ceremony is without its re-key."""


def test_new_custodians_are_rows_and_the_old_ones_shares_old_ones(shared_practice: Practice) -> None:
    first, second = custody("ana", "berta"), custody("berta", "carla", "dora")
    with shared_practice.open() as vault:
        opened = unlocked(vault)

        def commit() -> None:
            with opened.change("vault.policy") as change:
                first.commit(opened, change, 2, b"escrowed")
                opened.state = trust.parse(opened.file.trust_rows())
                assert opened.state.breakglass is not None
                assert [held.name for held in opened.state.breakglass.in_order()] == ["ana", "berta"]
                assert change.detail["custody"] == Custody.of(opened.state.breakglass).value()
                second.commit(opened, change, 3, b"escrowed anew")
                found.append(trust.parse(opened.file.trust_rows()))
                raise NotThis

        found: list[TrustState] = []
        with pytest.raises(NotThis):
            commit()
    (state,) = found
    assert state.breakglass is not None
    assert (state.breakglass.ceremony, state.breakglass.escrow.generation) == (second.ceremony, 3)
    assert set(state.breakglass.custodians) == {"berta", "carla", "dora"}
    assert {(share.ceremony, share.name) for share in state.old_shares} == {
        (first.ceremony, "ana"), (first.ceremony, "berta")
    }  # fmt: skip


def test_no_seed_is_shown() -> None:
    made = custody("ana", "berta")
    assert repr(made) == f"NewCustody({made.ceremony.hex()})"
