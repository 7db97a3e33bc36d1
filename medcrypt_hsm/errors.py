"""Every error of the program, as one flat tree.

    MedcryptError                 exit 1   failed, anything not below
    ├── Failed                    exit 1
    ├── UsageError                exit 2   wrong usage, unusable input
    ├── TokenError                exit 3   absent, removed, or lacking what is needed
    │   ├── TokenAbsent
    │   ├── TokenRemoved
    │   ├── TokenUnfit
    │   ├── TokenHeld                      another program has it
    │   ├── SessionEnded                   locked while a command used it
    │   └── NotTouched                     a key on it waited for a finger in vain
    ├── PinError                  exit 4   wrong, locked, or not given
    │   ├── WrongPin              .tries_left, None where the token cannot say
    │   ├── PinLocked
    │   ├── LastTry
    │   └── PinNeeded
    ├── NotAuthentic              exit 5   tampered, wrong key
    │   ├── Malformed                      not a message, payload or file of ours at all
    │   └── UnknownPairing                 no key here belongs to this message
    ├── Refused                   exit 6   policy says no
    │   ├── StaleMonth, FutureMonth, MonthsBehind, Unconfirmed, NonceReused, ClockBehind, Incomplete
    │   └── Shredded, OnHold
    └── VaultError                exit 7   missing, busy, damaged, rolled back, not verifiable
        ├── VaultMissing, VaultBusy, VaultDamaged, VaultForeign, VaultUnfinished
        ├── VaultRolledBack                the file is older than, or departs from, the token's anchor
        └── AuditBroken           .at      the log does not verify from this entry on

Each carries what happened (``message``), what to do (``hint``) and a stable name for scripts (``name``). Misuse of the
library by its caller is a plain ``RuntimeError`` or ``ValueError``, never one of these. No error ever holds a key, a
PIN, a share or a plaintext.
"""

from __future__ import annotations


class MedcryptError(Exception):
    """What happened, what to do about it, and the exit code that the command line gives it."""

    exit_code = 1
    name = "failed"
    hint = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint


class Failed(MedcryptError):
    """Something outside the tree below, a full disk for example."""


class UsageError(MedcryptError):
    exit_code = 2
    name = "usage"


class TokenError(MedcryptError):
    exit_code = 3
    name = "token"


class TokenAbsent(TokenError):
    name = "token-absent"
    hint = "plug the token in, or see 'medcrypt token list'"


class TokenRemoved(TokenError):
    name = "token-removed"
    hint = "put the token back and run the command again; nothing was left half done"


class TokenUnfit(TokenError):
    name = "token-unfit"
    hint = "see 'medcrypt token check URI' for what is missing"


class TokenHeld(TokenError):
    name = "token-held"
    hint = "close that program (for GnuPG: 'gpgconf --kill scdaemon') and run the command again"


class SessionEnded(TokenError):
    name = "session-ended"
    hint = "run the command again; it asks for the PIN"


class NotTouched(TokenError):
    name = "not-touched"
    hint = "run the command again, and touch the token when it blinks"


class PinError(MedcryptError):
    exit_code = 4
    name = "pin"


class WrongPin(PinError):
    name = "pin-wrong"

    def __init__(self, message: str, hint: str | None = None, *, tries_left: int | None = None) -> None:
        super().__init__(message, hint)
        self.tries_left = tries_left


class PinLocked(PinError):
    name = "pin-locked"
    hint = "unblock it with 'medcrypt token pin URI --unblock' and the security officer's PIN"


class LastTry(PinError):
    name = "pin-last-try"
    hint = "a wrong PIN now locks the token; add --last-try if you are sure of it"


class PinNeeded(PinError):
    name = "pin-needed"
    hint = "give it with --pin-source, or run at a terminal"


class NotAuthentic(MedcryptError):
    exit_code = 5
    name = "not-authentic"
    hint = "do not act on it; ask the sender to send it again"


class Malformed(NotAuthentic):
    name = "malformed"
    hint = "copy the whole message, from '[MEDCRYPT:' to ']', unchanged"


class UnknownPairing(NotAuthentic):
    name = "unknown-pairing"
    hint = "no patient of this vault uses it; see 'medcrypt patient list'"


class Refused(MedcryptError):
    exit_code = 6
    name = "refused"


class StaleMonth(Refused):
    name = "month-stale"
    hint = "read it on purpose with --archive"


class FutureMonth(Refused):
    name = "month-future"
    hint = "check this machine's clock and the sender's"


class Shredded(Refused):
    name = "shredded"
    hint = "it was done on purpose; 'medcrypt audit show --action month.shred' says when and by whom"


class OnHold(Refused):
    name = "on-hold"
    hint = "see 'medcrypt hold list'; lift it with 'medcrypt hold remove' when the reason has ended"


class MonthsBehind(Refused):
    name = "months-behind"


class Unconfirmed(Refused):
    name = "unconfirmed"
    hint = "compare the check code first: 'medcrypt patient confirm ID CODE'"


class NonceReused(Refused):
    name = "nonce-reused"
    hint = "the sender's program is faulty or hostile; pair again with 'medcrypt patient repair ID'"


class ClockBehind(Refused):
    name = "clock-behind"
    hint = "set this machine's clock"


class Incomplete(Refused):
    name = "incomplete"
    hint = "paste the missing parts together with these"


class VaultError(MedcryptError):
    exit_code = 7
    name = "vault"


class VaultMissing(VaultError):
    name = "vault-missing"
    hint = "name it with --vault or MEDCRYPT_VAULT, or make one with 'medcrypt vault create'"


class VaultBusy(VaultError):
    name = "vault-busy"
    hint = "another medcrypt command is writing to it; try again in a moment"


class VaultDamaged(VaultError):
    name = "vault-damaged"
    hint = "copy the file away, then restore a backup: 'medcrypt vault restore FILE'"


class VaultForeign(VaultError):
    name = "vault-foreign"


class VaultUnfinished(VaultError):
    name = "vault-unfinished"
    hint = "run the same 'medcrypt vault create' again; it clears away what was begun"


class VaultRolledBack(VaultError):
    name = "vault-rolled-back"
    hint = (
        "look for the newer file and put that back; if there is none, call the officer: 'medcrypt vault restore FILE' "
        "says what is lost and asks before it accepts an older one"
    )


class AuditBroken(VaultError):
    name = "audit-broken"
    hint = "copy the file away as evidence, then restore a backup: 'medcrypt vault restore FILE'"

    def __init__(self, message: str, hint: str | None = None, *, at: int | None = None) -> None:
        super().__init__(message, hint)
        self.at = at
