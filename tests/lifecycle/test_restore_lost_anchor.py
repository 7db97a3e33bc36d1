"""A token whose anchor is gone, or is no anchor, accepts the vault again by a restore of the vault's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import AuditBroken, VaultRolledBack
from medcrypt_hsm.lifecycle.restore import Loss
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import anchor_name
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from tests.support.practice import Practice, pin

BOTH_PROFILES = True

GARBAGE = [b"", b"\x00", b"no anchor", bytes(200), b"\xff" * 300]


def agree(loss: Loss) -> None: ...


def spoil(practice: Practice, value: bytes) -> None:
    """What any program of the user could have had a session do: the anchor becomes something else."""
    with practice.open() as vault:
        vault_id = bytes.fromhex(vault.status().vault_id)
    with open_token(practice.uri, pin) as token:
        token.put_object(anchor_name(vault_id), value)


def checkpoint(practice: Practice) -> Checkpoint:
    with practice.open() as vault:
        return Checkpoint.parse(vault.log.checkpoint().encode())


@pytest.mark.parametrize("value", GARBAGE)
def test_the_present_file_is_accepted_again(practice: Practice, value: bytes) -> None:
    spoil(practice, value)
    with pytest.raises(VaultRolledBack):
        practice.open()
    losses: list[Loss] = []
    with practice.restore(practice.path, losses=losses) as vault:
        assert vault.log.verify().sequence == losses[0].backup_ends + 1
        (restored,) = [entry for _, entry in vault.log.entries() if entry.action == "vault.restore"]
    assert restored.detail == {"abandoned_sequence": 0, "abandoned_hash": ""}
    assert (losses[0].anchor_lost, losses[0].entries_lost, losses[0].departs) == (True, 0, False)
    with practice.open() as vault:
        vault.log.verify()


def test_a_file_that_lacks_what_a_checkpoint_names_is_not_accepted(practice: Practice, saved: Path) -> None:
    newest = checkpoint(practice)
    spoil(practice, b"")
    practice.path.write_bytes(saved.read_bytes())
    before = practice.path.read_bytes()
    with pytest.raises(AuditBroken):
        Vault.restore(practice.path, saved, pin=pin, agree=agree, since=[newest], clock=practice.clock)
    assert practice.path.read_bytes() == before


def test_a_checkpoint_that_the_file_continues_vouches_for_it(practice: Practice) -> None:
    newest = checkpoint(practice)
    spoil(practice, b"")
    losses: list[Loss] = []
    with Vault.restore(
        practice.path, practice.path, pin=pin, agree=losses.append, since=[newest], clock=practice.clock
    ) as vault:
        vault.log.verify()
    assert losses[0].vouched == (newest.sequence,)
