"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    pass

SHRED, ERASE, REMOVE, SYNCING = "shred", "erase", "remove-token", "sync"
CEREMONY, ROTATE, REPLACE, RECOVER = "ceremony", "rotate", "replace", "recover"
NEW_CUSTODY = (CEREMONY, ROTATE, REPLACE)  # those that make a new break-glass key
REASONS = (SHRED, ERASE, REMOVE, *NEW_CUSTODY, RECOVER)  # for a new keyset
INTRODUCE = "token.introduce"
RESTORE = "vault.restore"
REKEY = "vault.rekey"
SYNC = "vault.sync"
DONE, INTENDED, UNDONE = "done", "intended", "undone"
BG_OPEN, BG_CLOSE = "breakglass.open", "breakglass.close"
CLEAR_ACTIONS = {
    INTRODUCE: (DONE,),
    RESTORE: (DONE,),
    REKEY: (INTENDED, DONE, UNDONE),
    SYNC: (INTENDED, DONE, UNDONE),
    BG_OPEN: (DONE,),
    BG_CLOSE: (DONE,),
}
"""What stands in the clear, so that a stranger can follow it, with the outcomes that it may have."""
NAMES = {
    "audit.anchor": "Newest head remembered by the token",
    "audit.export": "Audit log exported",
    "audit.show": "Audit log read",
    "hold.add": "Hold put on",
    "hold.list": "Holds listed",
    "hold.remove": "Hold lifted",
    "kek.destroy": "Old root key destroyed",
    "message.decrypt": "Messages decrypted",
    "message.encrypt": "Message encrypted",
    "message.failed": "Messages could not be decrypted",
    "month.derive": "Key of a month derived",
    "month.open": "Month opened",
    "month.shred": "Months shredded",
    "notes": "Failures before an unlock",
    "session.end": "Session ended",
    "session.start": "Session started",
    "patient.add": "Patient paired",
    "patient.confirm": "Check code of a patient compared",
    "patient.erase": "Patient erased",
    "patient.list": "Patients listed",
    "patient.qr": "Pairing code shown",
    "patient.remove": "Patient removed",
    "patient.repair": "Patient paired again",
    "patient.show": "Patient looked at",
    "token.add": "Adding a token",
    "token.introduce": "Token introduced",
    "token.remove": "Token removed, or adding it given up",
    "vault.backup": "Vault backed up",
    "vault.create": "Vault made",
    "vault.policy": "Policy changed",
    "vault.rekey": "Vault re-keyed",
    "vault.restore": "Vault restored from a backup",
    "vault.sync": "Token brought up to date",
}
