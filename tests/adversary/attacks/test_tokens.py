"""Several tokens that know different histories, and backups that somebody would have restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import AuditBroken, MedcryptError, VaultError, VaultForeign, VaultRolledBack
from medcrypt_hsm.lifecycle.restore import Loss
from tests.adversary.attacks.attack import Act, whole_file
from tests.adversary.attacks.hand import Hand
from tests.adversary.attacks.on_log import old_file_continued_by_the_removed_token
from tests.adversary.attacks.on_rows import delete
from tests.adversary.attacks.scene import EVERYBODY, OCTOBER, Scene
from tests.support.practice import pin
from tests.support.store import whole

BOTH_PROFILES = True


@pytest.mark.parametrize("what", ["shred", "erase", "remove-token", "sync"])
def test_nothing_is_made_or_destroyed_beside_a_token_that_saw_another_history(
    scene: Scene, hand: Hand, what: str
) -> None:
    before, held = hand.path.read_bytes(), {name: scene.objects(name) for name in scene.uris}
    with scene.practice.open(hand.path, token="doctor") as vault:
        acts: dict[str, Callable[[], object]] = {
            "shred": lambda: vault.months.shred([OCTOBER], EVERYBODY),
            "erase": lambda: vault.patients.erase("EXP-1", EVERYBODY),
            "remove-token": lambda: vault.tokens.remove("spare", EVERYBODY),
            "sync": lambda: vault.tokens.sync(EVERYBODY),
        }
        with pytest.raises(VaultRolledBack, match="older than the token remembers"):
            acts[what]()
    assert hand.path.read_bytes() == before
    assert {name: scene.objects(name) for name in scene.uris} == held


def test_a_token_vouches_for_what_it_saw_last_which_is_the_limit(scene: Scene, hand: Hand) -> None:
    """docs/threat-model.md: a token that lay in a safe opens the file that it knows; the others refuse that file."""
    whole(scene.files["forked"], hand.path)
    with scene.practice.open(hand.path, token="sleeper") as vault:
        vault.log.verify()
    for name in ("doctor", "spare"):
        with pytest.raises(VaultRolledBack, match="departs"):
            scene.practice.open(hand.path, token=name)


# Restoring


@dataclass(frozen=True)
class Backup:
    """``do`` makes the backup of the copy of the present file; it is restored over the present file."""

    name: str
    do: Act
    error: type[MedcryptError]
    words: str
    token: str = "doctor"
    anywhere: bool = True  # whether a vault is there or not

    def __str__(self) -> str:
        return self.name


NOT_VALID = "trusts a token that this one does not remember as valid"

BACKUPS = (
    Backup("of before the removed token was removed", whole_file("before"), VaultError, NOT_VALID),
    Backup("of before a re-key", whole_file("held once"), VaultError, "from before a re-key"),
    Backup("that the removed token went on with", old_file_continued_by_the_removed_token, VaultError, NOT_VALID),
    Backup("from which the removed token removed the doctor's", whole_file("usurped"), VaultForeign,
           "token doctor was removed"),
    Backup("the same, by the spare token", whole_file("usurped"), VaultError, NOT_VALID, token="spare"),
    Backup("of another history", whole_file("forked"), VaultError, NOT_VALID),
    Backup("of another vault", lambda hand: whole(hand.scene.other.path, hand.path), VaultForeign, "another vault",
           anywhere=False),
    Backup("without a hold", lambda hand: hand.sql("DELETE FROM trust WHERE kind = 'hold'"), AuditBroken,
           "trust state"),
    Backup("without a message seen", lambda hand: delete(hand, "seen", "EXP-1"), AuditBroken, "missing"),
    Backup("without its log's end", lambda hand: hand.sql(f"DELETE FROM entries WHERE sequence > {hand.scene.anchor}"),
           AuditBroken, "not the one that the log knows"),
)  # fmt: skip


@pytest.mark.parametrize("backup", BACKUPS, ids=str)
def test_no_such_backup_is_restored(scene: Scene, hand: Hand, backup: Backup) -> None:
    present = whole(scene.practice.path, hand.path.with_name("present.db"))
    backup.do(hand)
    before, held = (present.read_bytes(), hand.path.read_bytes()), scene.objects(backup.token)

    def never(loss: Loss) -> None:
        raise AssertionError("a person was asked to agree to it")

    over = {present: f"{backup.words}|re-keyed since this backup was made"}
    if backup.anywhere:  # somebody takes the present file away first
        over[hand.path.with_name("none.db")] = backup.words
    for path, words in over.items():
        with pytest.raises(backup.error, match=words) as caught:
            Vault.restore(path, hand.path, pin=pin, token=backup.token, agree=never, clock=scene.practice.clock)
        assert (type(caught.value), caught.value.exit_code) == (backup.error, 7)
    assert not hand.path.with_name("none.db").exists()
    assert (present.read_bytes(), hand.path.read_bytes()) == before
    assert scene.objects(backup.token) == held
