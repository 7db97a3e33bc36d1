"""TODO."""

from __future__ import annotations

from pathlib import Path

from medcrypt_hsm.errors import (
    MedcryptError,
)
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.audit.actions import VAULT_BACKUP
from medcrypt_hsm.vault.audit.verify import Verified
from medcrypt_hsm.vault.store import atomic
from medcrypt_hsm.vault.store.file import VaultFile
from medcrypt_hsm.vault.unlocked import Unlocked


def backup(unlocked: Unlocked, target: Path) -> Verified:
    """A verified single-file copy at ``target``, which must not exist; recorded and anchored."""
    atomic.check_new(target)
    with unlocked.change(VAULT_BACKUP, target.name, outcome="intended"):
        pass
    unlocked.write_anchor()
    try:
        return _backup(unlocked, target)
    except (MedcryptError, OSError) as exc:
        with unlocked.change(VAULT_BACKUP, target.name, outcome=getattr(exc, "name", "") or MedcryptError.name):
            pass
        raise


def _backup(unlocked: Unlocked, target: Path) -> Verified:
    with atomic.written_whole(target) as partial:
        unlocked.file.copy_to(partial)
        copy = VaultFile.open(partial, in_use=False)
        try:
            return log.verify(unlocked.over(copy))  # every entry opened, every row against the log
        finally:
            copy.close()
