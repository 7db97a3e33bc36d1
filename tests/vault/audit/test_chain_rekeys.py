"""``Rekeys``: what the log may tell of re-keys, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from medcrypt_hsm.vault.audit.actions import DONE, INTENDED, UNDONE, VAULT_REKEY, VAULT_SYNC
from medcrypt_hsm.vault.audit.chain_rekeys import Rekeys
from medcrypt_hsm.vault.audit.chain_signers import Introduced, Rekeyed, Signers
from medcrypt_hsm.vault.audit.chain_uses import Uses
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.store.rows import EntryRow
from tests.support.vault_builder import SoftToken

DOCTOR, SPARE = SoftToken("doctor"), SoftToken("spare")
TIME = "2026-11-22T12:00:00Z"
REKEY = {"generation": 2, "keks": {}, "log_key": 2, "retired": [], "shredded": ["2026-09"], "erased": []}


class Log:
    """Re-keys of a vault with two tokens, entry by entry, all signed by the doctor's."""

    def __init__(self, *, whole: bool = True) -> None:
        self.rekeys, self.uses, self.signers = Rekeys(whole=whole), Uses(whole=whole), Signers({}, {})
        for token in (DOCTOR, SPARE):
            told = {"profile": "aes-kw", "kek": "", "attestation": "token-claimed"}
            self.signers.add(Introduced(token.name, token.spki, told, 1, 2))
        self.at = 2

    def tell(self, outcome: str, detail: dict[str, Any], action: str = VAULT_REKEY) -> Log:
        self.at += 1
        entry = Entry(TIME, "mara", "doctor", action, "", outcome, detail)
        self.rekeys.take(entry, EntryRow(self.at, b"", b"", b"", DOCTOR.id, b""), self.signers, self.uses)
        return self

    def intend(self, reason: str = "shred", generation: int = 2, action: str = VAULT_REKEY) -> Log:
        return self.tell(INTENDED, {"generation": generation, "reason": reason}, action)


def test_intended_and_done() -> None:
    kek = {"doctor": {"attestation": "token-claimed", "generation": 2, "kek": ""}}
    log = Log().intend().tell(DONE, REKEY | {"keks": kek, "retired": [SPARE.id.hex()], "erased": ["c0ffee0123456789"]})
    done = Rekeyed(4, TIME, 2)
    assert (log.rekeys.generation, log.rekeys.log_key, log.rekeys.done) == (2, 2, {4: done})
    assert (log.rekeys.shredded, log.rekeys.erased) == ({"2026-09": done}, {"c0ffee0123456789": done})
    assert (set(log.signers.keys), log.signers.retired) == ({DOCTOR.id}, {SPARE.id: done})
    assert log.signers.introduced[DOCTOR.id].kek == 2


def test_intended_and_undone_and_intended_again() -> None:
    log = Log().intend().tell(UNDONE, {"generation": 2}).intend().tell(DONE, REKEY)
    assert log.rekeys.generation == 2


def test_a_token_is_synced_within_its_generation() -> None:
    log = Log().intend().tell(DONE, REKEY)
    kek = {"spare": {"attestation": "token-claimed", "generation": 2, "kek": ""}}
    log.intend("sync", 2, VAULT_SYNC).tell(DONE, {"generation": 2, "keks": kek}, VAULT_SYNC)
    assert log.rekeys.generation == 2
    assert log.signers.introduced[SPARE.id].kek == 2


@pytest.mark.parametrize(
    ("outcome", "detail", "words"),
    [
        (INTENDED, {"generation": 2, "reason": "shred"}, "another one has not ended"),
        (DONE, REKEY | {"generation": 3}, "its generation does not follow"),
        (DONE, REKEY | {"log_key": 3}, "its log key does not follow"),
        (DONE, REKEY | {"shredded": ["2026-13"]}, "not a sorted list"),
        (DONE, REKEY | {"erased": ["c0ffee"]}, "not a pairing"),
        (DONE, REKEY | {"retired": [DOCTOR.id.hex()]}, "a token retires itself"),
        (DONE, REKEY | {"custody": {}}, "custodians, or none, against its reason"),
        (DONE, REKEY | {"more": 1}, "other members than the spec's"),
        (UNDONE, {"generation": 2, "keks": {}}, "other members than the spec's"),
    ],
)
def test_what_cannot_follow_an_intent(outcome: str, detail: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Log().intend().tell(outcome, detail)


def test_what_cannot_begin() -> None:
    with pytest.raises(ValueError, match="it was not intended"):
        Log().tell(DONE, REKEY)
    with pytest.raises(ValueError, match="no known reason"):
        Log().intend("curiosity")
    with pytest.raises(ValueError, match="a recovery without break-glass"):
        Log().intend("recover")
    with pytest.raises(ValueError, match="a month is shredded twice"):
        Log().intend().tell(DONE, REKEY).intend(generation=3).tell(DONE, REKEY | {"generation": 3, "log_key": 3})


def test_a_walk_that_began_at_an_anchor_takes_the_first_one_as_it_is() -> None:
    """Its intent, and the generation before it, are further back than the walk."""
    log = Log(whole=False).tell(DONE, REKEY | {"generation": 8, "log_key": 8})
    assert (log.rekeys.generation, log.rekeys.log_key) == (8, 8)
    with pytest.raises(ValueError, match="it was not intended"):
        log.tell(DONE, REKEY | {"generation": 9, "log_key": 9, "shredded": []})
