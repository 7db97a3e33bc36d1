"""``Vault.files``: files for and from patients, with the vault's keys. What they are is files.py's affair."""

from __future__ import annotations

from pathlib import Path

from medcrypt_hsm.api.base import Desk, one_at_a_time
from medcrypt_hsm.messages import files
from medcrypt_hsm.messages.files import FileDone, Progress, silent
from medcrypt_hsm.month import Month


class FileDesk(Desk):
    """Calls take turns with the vault's own."""

    @one_at_a_time
    def encrypt(self, patient_id: str, source: Path, target: Path, progress: Progress = silent) -> FileDone:
        """A file for a patient, in a new file. ``progress`` is told the bytes read, of how many."""
        with self._vault._work():
            made, self._vault.opened_month = files.encrypt(self._unlocked, patient_id, source, target, progress)
        return made

    @one_at_a_time
    def decrypt(
        self,
        source: Path,
        to: Path,
        progress: Progress = silent,
        *,
        archive: bool = False,
        month: Month | None = None,
    ) -> FileDone:
        """A new file in the directory ``to``, there only when all of it was authentic."""
        with self._vault._work():
            done, self._vault.opened_month = files.decrypt(self._unlocked, source, to, progress, archive, month)
        return done
