"""What each token remembers of the log for itself, and which files it then opens no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medcrypt_hsm.errors import UsageError, VaultRolledBack
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name
from medcrypt_hsm.vault.anchoring import parse_anchor
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.store import rows


class TestEachRemembers:
    def test_the_first_anchor_is_of_the_head_before_and_without_its_own_key(self, two: Practice) -> None:
        status = two.status()
        ids = {token.name: token for token in status.tokens}
        vault_id = bytes.fromhex(status.vault_id)
        with open_token(ids["spare"].uri, pin) as token:
            (value,) = token.read_objects(anchor_name(vault_id))
            anchor = parse_anchor(value, token.public_key(audit_key_name(vault_id)))
        told = [json.loads(row[1][1:]) if row[1][:1] == b"\0" else None for row in rows(two.path, "entries")]
        (introduced,) = [n for n, entry in enumerate(told, 1) if entry and entry["subject"] == "spare"]
        assert (anchor.sequence, anchor.hash) == (introduced - 1, rows(two.path, "entries")[introduced - 2][2])
        assert anchor.audit_keys == (ids["doctor"].id,)

    def test_it_learns_of_its_own_key_at_its_first_use(self, two: Practice) -> None:
        with two.open(token="spare") as vault:
            before = vault.status().anchor
            vault.encrypt("EXP-1", "x")
            after = unlocked(vault).anchor
        assert before is not None
        assert after is not None
        assert after.sequence > before
        assert len(after.audit_keys) == 2

    def test_a_file_is_as_old_as_the_token_that_looks(self, two: Practice) -> None:
        with two.open(token="spare") as vault:
            vault.encrypt("EXP-1", "la segunda")
        old = two.copy("old.db")
        with two.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "después")
            vault.log.anchor()
        newest = two.copy("newest.db")
        put_back(two, old)
        with two.open(token="spare") as vault:  # it has not seen beyond: the docs say so
            vault.log.verify()
        with pytest.raises(VaultRolledBack, match="older than the token remembers"):
            two.open(token="doctor")
        put_back(two, newest)
        with two.open(token="doctor") as vault:
            vault.log.verify()

    def test_what_departs_is_found_when_the_other_is_next_used(self, two: Practice) -> None:
        old = two.copy("old.db")
        with two.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "a")
            vault.log.anchor()
        put_back(two, old)
        with two.open(token="spare") as vault:  # another history goes on with the token that knows nothing of it
            for _ in range(6):
                vault.encrypt("EXP-1", "b")
        with pytest.raises(VaultRolledBack, match="departs"):
            two.open(token="doctor")

    def test_a_restore_with_one_is_needed_with_the_other_too(self, two: Practice) -> None:
        saved = two.path.with_name("saved.db")
        with two.open(token="doctor") as vault:
            vault.backup(saved)
        with two.open(token="spare") as vault:
            (lost,) = vault.encrypt("EXP-1", "se pierde")
            vault.log.anchor()
        with two.open(token="doctor") as vault:
            vault.log.anchor()
        two.restore(saved, token="doctor").close()
        with two.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "sigue")
        with pytest.raises(VaultRolledBack):
            two.open(token="spare")
        with two.restore(two.path, token="spare") as vault:  # of the vault as it is
            vault.log.verify()
            assert statuses(vault.decrypt(lost)) == ["ok"]  # the key is the same; that it was seen is forgotten
        for name in ("spare", "doctor"):
            with two.open(token=name) as vault:
                vault.log.verify()

    def test_a_backup_from_before_the_token_was_added_does_not_know_it(
        self, two: Practice, uris: dict[str, str]
    ) -> None:
        saved = two.copy("saved.db")
        two.add("third", uris["third"], using="doctor")
        with pytest.raises(UsageError, match="has no token third"):
            two.restore(saved, token="third")
        with two.restore(saved, token="doctor") as vault:
            assert vault.log.verify().keys == ("doctor", "spare")
        with pytest.raises(UsageError, match="has no token third"):
            two.open(token="third")
        with pytest.raises(VaultRolledBack, match="history that this file does not have"):
            two.add("third", uris["third"], using="doctor")

    def test_a_token_without_its_anchor_opens_nothing_though_the_others_do(self, two: Practice) -> None:
        status = two.status()
        (spare,) = [token for token in status.tokens if token.name == "spare"]
        with open_token(spare.uri, pin) as token:
            token.destroy(anchor_name(bytes.fromhex(status.vault_id)))
        with pytest.raises(VaultRolledBack, match="holds no anchor"):
            two.open(token="spare")
        two.open(token="doctor").close()


def put_back(practice: Practice, file: Path) -> None:
    for beside in practice.path.parent.glob("vault.db-*"):
        beside.unlink()
    shutil.copy(file, practice.path)
