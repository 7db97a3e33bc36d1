"""Every action that an audit entry can be of, and what holds of each (docs/spec/audit.md).

One table: the name as the log has it, what it is called in other programs, how severe it is there, whether it stands in
the clear. All code takes the names from here, and nobody else writes one out. Not here: what an action's ``detail``
holds, which the code that writes the entry decides.
"""

from __future__ import annotations

from typing import NamedTuple

DONE, INTENDED, UNDONE = "done", "intended", "undone"  # outcomes; every other one is the name of an error

EVERYDAY, KEYS_CHANGE, FAILED, ALARM, OVER_ALL = 3, 5, 7, 8, 9
"""Severities, 0 to 10: ``FAILED`` and ``ALARM`` (not authentic) come from outcomes, whatever the action."""


class Action(NamedTuple):
    says: str  # in words, for people and for other programs
    severity: int  # of what was done; a failure may raise it
    clear: tuple[str, ...]  # the outcomes that it may have in the clear, so that a stranger can follow it; else sealed
    title: str  # of the certificate that a re-key for it ends with; else empty
    by_guest: bool  # may who opens one patient's messages by break-glass write it?


ACTIONS: dict[str, Action] = {}


def _action(
    name: str,
    says: str,
    severity: int = EVERYDAY,
    *,
    clear: tuple[str, ...] = (),
    title: str = "",
    by_guest: bool = False,
) -> str:
    ACTIONS[name] = Action(says, severity, clear, title, by_guest)
    return name


AUDIT_ANCHOR = _action("audit.anchor", "Newest head remembered by the token")
AUDIT_EXPORT = _action("audit.export", "Audit log exported")
AUDIT_SHOW = _action("audit.show", "Audit log read")

BREAKGLASS_CEREMONY = _action("breakglass.ceremony", "Break-glass ceremony", KEYS_CHANGE, title="Break-glass ceremony")
BREAKGLASS_CLOSE = _action("breakglass.close", "Use of break-glass ended", KEYS_CHANGE, clear=(DONE,))
BREAKGLASS_DRILL = _action("breakglass.drill", "Break-glass drill", KEYS_CHANGE)
BREAKGLASS_OPEN = _action("breakglass.open", "Vault opened by break-glass", OVER_ALL, clear=(DONE,))
BREAKGLASS_READ = _action("breakglass.read", "Patient's messages read by break-glass", OVER_ALL, by_guest=True)
BREAKGLASS_RECOVER = _action(
    "breakglass.recover", "Practice recovered by break-glass", OVER_ALL, title="Practice recovered"
)
BREAKGLASS_REPLACE = _action("breakglass.replace", "Custodian replaced", KEYS_CHANGE, title="Custodian replaced")
BREAKGLASS_ROTATE = _action("breakglass.rotate", "Break-glass rotated", KEYS_CHANGE, title="Break-glass rotated")

HOLD_ADD = _action("hold.add", "Hold put on", KEYS_CHANGE)
HOLD_LIST = _action("hold.list", "Holds listed", KEYS_CHANGE)
HOLD_REMOVE = _action("hold.remove", "Hold lifted", KEYS_CHANGE)

KEK_DESTROY = _action("kek.destroy", "Old root key destroyed", KEYS_CHANGE)

MESSAGE_DECRYPT = _action("message.decrypt", "Messages decrypted", by_guest=True)
MESSAGE_ENCRYPT = _action("message.encrypt", "Message encrypted")
MESSAGE_FAILED = _action("message.failed", "Messages could not be decrypted", by_guest=True)

MONTH_DERIVE = _action("month.derive", "Key of a month derived")
MONTH_OPEN = _action("month.open", "Month opened")
MONTH_SHRED = _action("month.shred", "Months shredded", KEYS_CHANGE, title="Months shredded")

NOTES = _action("notes", "Failures before an unlock", FAILED)

PATIENT_ADD = _action("patient.add", "Patient paired")
PATIENT_CONFIRM = _action("patient.confirm", "Check code of a patient compared")
PATIENT_ERASE = _action("patient.erase", "Patient erased", KEYS_CHANGE, title="Patient erased")
PATIENT_LIST = _action("patient.list", "Patients listed")
PATIENT_QR = _action("patient.qr", "Pairing code shown")
PATIENT_REMOVE = _action("patient.remove", "Patient removed")
PATIENT_REPAIR = _action("patient.repair", "Patient paired again")
PATIENT_SHOW = _action("patient.show", "Patient looked at")

SESSION_END = _action("session.end", "Session ended")
SESSION_START = _action("session.start", "Session started")

SHARE_DESTROY = _action("share.destroy", "Old shares destroyed", KEYS_CHANGE)

TOKEN_ADD = _action("token.add", "Adding a token", KEYS_CHANGE)
TOKEN_INTRODUCE = _action("token.introduce", "Token introduced", KEYS_CHANGE, clear=(DONE,))
TOKEN_REMOVE = _action("token.remove", "Token removed, or adding it given up", KEYS_CHANGE, title="Token removed")

VAULT_BACKUP = _action("vault.backup", "Vault backed up", KEYS_CHANGE)
VAULT_BIND = _action("vault.bind", "Vault's rows bound", KEYS_CHANGE)
VAULT_CREATE = _action("vault.create", "Vault made", KEYS_CHANGE)
VAULT_POLICY = _action("vault.policy", "Policy changed", KEYS_CHANGE)
VAULT_REKEY = _action("vault.rekey", "Vault re-keyed", KEYS_CHANGE, clear=(INTENDED, DONE, UNDONE))
VAULT_RESTORE = _action("vault.restore", "Vault restored from a backup", OVER_ALL, clear=(DONE,))
VAULT_SYNC = _action("vault.sync", "Token brought up to date", KEYS_CHANGE, clear=(INTENDED, DONE, UNDONE))

CLEAR_ACTIONS = {name: action.clear for name, action in ACTIONS.items() if action.clear}
GUEST_ACTIONS = frozenset(name for name, action in ACTIONS.items() if action.by_guest)

# What notes beside a vault and custodians' journals tell of, besides actions: none of these is ever an entry's.
BREAKGLASS_APPROVE = "breakglass.approve"
BREAKGLASS_DECRYPT = "breakglass.decrypt"
BREAKGLASS_REQUEST = "breakglass.request"

# What a new keyset is for, as the clear entries of a re-key tell it; a stranger learns no more of it than this.
SHRED, ERASE, REMOVE, SYNCING = "shred", "erase", "remove-token", "sync"
CEREMONY, ROTATE, REPLACE, RECOVER = "ceremony", "rotate", "replace", "recover"
NEW_CUSTODY = (CEREMONY, ROTATE, REPLACE)  # those that make a new break-glass key
REASONS = (SHRED, ERASE, REMOVE, *NEW_CUSTODY, RECOVER)
