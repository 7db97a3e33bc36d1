"""``Vault.log``: the audit log read, verified, and what an officer keeps of it elsewhere.

In: an open vault; checkpoints and public keys that were kept elsewhere, as files. Out: entries, exports, ``Verified``.
Not here: how a log is verified without a vault's token (``verify_file``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcrypt_hsm.api.base import Part
from medcrypt_hsm.crypto.p256 import spki_of_pem
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.given import read_given
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault import export as exports
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.audit.actions import AUDIT_ANCHOR
from medcrypt_hsm.vault.audit.checkpoints import LARGEST, Checkpoint
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.filter import EVERY_ENTRY, EntryFilter
from medcrypt_hsm.vault.audit.verify import Verified, public_key_pem
from medcrypt_hsm.vault.export import Exported

_LARGEST_PEM = 1 << 20  # bytes; a public key has 200


class Log(Part):
    """The audit log of an open vault. Calls take turns with the vault's own."""

    def entries(self, where: EntryFilter = EVERY_ENTRY) -> list[tuple[int, Entry]]:
        """Those that ``where`` takes, with their sequences, oldest first. Reading the log is recorded in it."""
        with self._vault.working() as unlocked:
            return log.show(unlocked, where)

    @staticmethod
    def check_export(target: str | Path, format: str = "jsonl") -> None:
        """Before a vault is opened: may ``export`` write this there? Raises UsageError."""
        exports.check(Path(target), format)

    def export(self, target: str | Path, *, format: str = "jsonl", where: EntryFilter = EVERY_ENTRY) -> Exported:
        """Entries for other programs in a new file: ``jsonl``, ``csv`` or ``cef``."""
        with self._vault.working() as unlocked:
            return exports.export(unlocked, Path(target), format, where)

    def verify(self, since: Sequence[Checkpoint] = ()) -> Verified:
        """Chain, heads, every entry and every row; the log continues each of ``since``. Raises AuditBroken."""
        with self._vault.working(anchor=False) as unlocked:
            return log.verify(unlocked, since)

    def anchor(self) -> int:
        """Make the token remember the newest head, recorded; its sequence."""
        with self._vault.working(anchor=False) as unlocked:
            unlocked.record(AUDIT_ANCHOR)
            return unlocked.write_anchor().sequence

    def checkpoint(self) -> str:
        """The newest head as a signed note."""
        with self._vault.working(anchor=False) as unlocked:
            return unlocked.log.checkpoint()

    def public_keys(self) -> dict[str, str]:
        """Short name of each token → its audit key in PEM."""
        with self._vault.working(anchor=False) as unlocked:
            return {name: public_key_pem(token.audit_key) for name, token in unlocked.state.tokens.items()}


def read_checkpoint(path: Path) -> Checkpoint:
    """From a file. Raises UsageError, or Malformed for what is no checkpoint."""
    try:
        note = read_given(path, LARGEST)
    except OSError as exc:
        raise UsageError(
            t("{path} cannot be read: {reason}", path=path, reason=exc.strerror), "name a file with a checkpoint"
        ) from exc
    return Checkpoint.parse(note)


def read_public_keys(path: Path) -> list[bytes]:
    """Every public key in a PEM file, as DER. Raises UsageError."""
    hint = "save it with 'medcrypt audit public-key'"
    try:
        pem = read_given(path, _LARGEST_PEM)
    except OSError as exc:
        raise UsageError(t("{path} cannot be read: {reason}", path=path, reason=exc.strerror), hint) from exc
    if len(pem) > _LARGEST_PEM:  # a key that was cut off at the end must not be passed over
        raise UsageError(t("{path} has more than {most:,} bytes", path=path, most=_LARGEST_PEM), hint)
    blocks = pem.split(b"-----BEGIN ")[1:]
    try:
        keys = [spki_of_pem(b"-----BEGIN " + block) for block in blocks]
    except ValueError as exc:
        raise UsageError(t("{path} holds something that is no public key in PEM", path=path), hint) from exc
    if not keys:
        raise UsageError(t("{path} holds no public key in PEM", path=path), hint)
    return keys
