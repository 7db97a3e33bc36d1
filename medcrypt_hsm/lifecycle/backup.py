"""Backups: one SQLite file, consistent while others write, and opened and verified before it gets its name.

In: an unlocked vault, the name of a file that is not there yet. Out: that file, and what its verification found. Not
here: putting one back (restore.py), and which copies a re-key leaves of no use (certificate.py).
"""

from __future__ import annotations

from pathlib import Path

from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.audit.actions import VAULT_BACKUP
from medcrypt_hsm.vault.audit.verify import Verified
from medcrypt_hsm.vault.change import failures_recorded
from medcrypt_hsm.vault.store import atomic
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.unlocked import Unlocked


def backup(unlocked: Unlocked, target: Path) -> Verified:
    """A verified single-file copy at ``target``, which must not exist; recorded and anchored."""
    atomic.check_new(target)
    with unlocked.change(VAULT_BACKUP, target.name, outcome="intended"):
        pass
    unlocked.write_anchor()
    with failures_recorded(unlocked, VAULT_BACKUP, target.name):
        return _backup(unlocked, target)


def _backup(unlocked: Unlocked, target: Path) -> Verified:
    with atomic.written_whole(target) as partial:
        unlocked.file.copy_to(Location.parse(partial))
        copy = open_store(Location.parse(partial), in_use=False)
        try:
            return log.verify(unlocked.over(copy))  # every entry opened, every row against the log
        finally:
            copy.close()
