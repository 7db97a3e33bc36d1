"""``Vault.files``: files for and from patients, with the vault's keys.

In: an open vault and paths. Out: new files, each there only when it is whole, and ``FileDone``. Not here: how they are
made (messages/files.py).
"""

from __future__ import annotations

from pathlib import Path

from medcrypt_hsm.api.base import Part
from medcrypt_hsm.messages import files
from medcrypt_hsm.messages.files import FileDone, Progress, silent
from medcrypt_hsm.month import Month


class Files(Part):
    """Files of an open vault's patients. Calls take turns with the vault's own."""

    @staticmethod
    def check_encrypt(source: Path, target: Path) -> None:
        """What is known without a vault: is there a file to read, and a place to write? Raises UsageError."""
        files.check_encrypt(source, target)

    @staticmethod
    def check_decrypt(source: Path, to: Path) -> None:
        """The same: is this an encrypted file, and is there a place to write? Raises Malformed, UsageError."""
        files.check_decrypt(source, to)

    def encrypt(self, patient_id: str, source: Path, target: Path, progress: Progress = silent) -> FileDone:
        """A file for a patient, in a new file. ``progress`` is told the bytes read, of how many."""
        with self._vault.working(entry_first=True) as unlocked:
            return files.encrypt(unlocked, patient_id, source, target, progress, self._vault.open_month_if_due)

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
        with self._vault.working(entry_first=True) as unlocked:
            opens = self._vault.open_month_if_due
            return files.decrypt(unlocked, source, to, progress, opens, archive=archive, month=month)
