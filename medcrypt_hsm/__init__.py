"""MedCrypt HSM: key management for encrypted doctor–patient messages, on hardware tokens.

``Vault`` is the library's way in (api/vault.py). Exported here is every name that one of its methods takes or returns,
``emergency`` with what custodians and requesters do without any of the vault's tokens, and what a vault file says
without its token. Each is imported when it is asked for, so that ``medcrypt --help`` is quick. Errors: errors.py.
"""

from __future__ import annotations

from medcrypt_hsm.errors import MedcryptError

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from typing import Any

    from medcrypt_hsm.api.base import OnMonthOpened, OpenOptions
    from medcrypt_hsm.api.chats import Chat, Chats, find_in_export
    from medcrypt_hsm.api.custodians import Custodians
    from medcrypt_hsm.api.files import Files
    from medcrypt_hsm.api.holds import Holds
    from medcrypt_hsm.api.log import Log, read_checkpoint, read_public_keys
    from medcrypt_hsm.api.months import Months
    from medcrypt_hsm.api.patients import Patients
    from medcrypt_hsm.api.rehearsal import Rehearsed, Step, rehearse
    from medcrypt_hsm.api.tokens import Tokens
    from medcrypt_hsm.api.vault import Vault
    from medcrypt_hsm.breakglass import emergency
    from medcrypt_hsm.breakglass.approve import Reviewed
    from medcrypt_hsm.breakglass.ceremony import PinOf
    from medcrypt_hsm.breakglass.emergency import Actor
    from medcrypt_hsm.breakglass.journal import Journal
    from medcrypt_hsm.breakglass.plan import Plan, read_plan
    from medcrypt_hsm.breakglass.request import RequestOptions
    from medcrypt_hsm.crypto.words import words as in_words
    from medcrypt_hsm.lifecycle.certificate import Certificate
    from medcrypt_hsm.lifecycle.enroll import TokenOptions
    from medcrypt_hsm.lifecycle.holds import Held
    from medcrypt_hsm.lifecycle.others import Agree, OtherTokens
    from medcrypt_hsm.lifecycle.restore import Loss
    from medcrypt_hsm.lifecycle.shares import ShareRecord
    from medcrypt_hsm.lifecycle.sync import Synced
    from medcrypt_hsm.messages.chats.conversation import Conversation, Read, Summary
    from medcrypt_hsm.messages.decrypt import Opened
    from medcrypt_hsm.messages.files import FileDone, Progress
    from medcrypt_hsm.messages.months import MonthsOpened
    from medcrypt_hsm.messages.patients import NewPairing, Pairing
    from medcrypt_hsm.messages.wire import Bad, Message, MessageV1, MessageV2
    from medcrypt_hsm.messages.wire import find as find_messages
    from medcrypt_hsm.month import Month
    from medcrypt_hsm.session.remote import SessionVault
    from medcrypt_hsm.session.start import start_session
    from medcrypt_hsm.tokens import Evidence, PinPrompt, TokenInfo, Touch
    from medcrypt_hsm.tokens.access import TokenAccess
    from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
    from medcrypt_hsm.vault.audit.entries import Entry
    from medcrypt_hsm.vault.audit.filter import EntryFilter, moment
    from medcrypt_hsm.vault.audit.statements import Approval, Drill, Request, RequestedBy, Signed, requested_by
    from medcrypt_hsm.vault.audit.trust import Policy, RegisteredToken, RetiredToken
    from medcrypt_hsm.vault.audit.trust_custody import BreakGlass
    from medcrypt_hsm.vault.audit.verify import Verified
    from medcrypt_hsm.vault.choosing import OnRecord, token_on_record
    from medcrypt_hsm.vault.clock import Clock
    from medcrypt_hsm.vault.export import Exported
    from medcrypt_hsm.vault.inspection import Status, status_of_file, verify_file
    from medcrypt_hsm.vault.opening import this_user
    from medcrypt_hsm.vault.store.rows import Location, Named
    from medcrypt_hsm.vault.store.surroundings import Surroundings, surroundings_of
    from medcrypt_hsm.version import VERSION as __version__

_HOMES = {
    "api.base": ("OnMonthOpened", "OpenOptions"),
    "api.chats": ("Chat", "Chats", "find_in_export"),
    "api.custodians": ("Custodians",),
    "api.files": ("Files",),
    "api.holds": ("Holds",),
    "api.log": ("Log", "read_checkpoint", "read_public_keys"),
    "api.months": ("Months",),
    "api.patients": ("Patients",),
    "api.rehearsal": ("Rehearsed", "Step", "rehearse"),
    "api.tokens": ("Tokens",),
    "api.vault": ("Vault",),
    "breakglass.approve": ("Reviewed",),
    "breakglass.ceremony": ("PinOf",),
    "breakglass.emergency": ("Actor", "emergency"),
    "breakglass.journal": ("Journal",),
    "breakglass.plan": ("Plan", "read_plan"),
    "breakglass.request": ("RequestOptions",),
    "crypto.words": ("in_words",),
    "lifecycle.certificate": ("Certificate",),
    "lifecycle.enroll": ("TokenOptions",),
    "lifecycle.holds": ("Held",),
    "lifecycle.others": ("Agree", "OtherTokens"),
    "lifecycle.restore": ("Loss",),
    "lifecycle.shares": ("ShareRecord",),
    "lifecycle.sync": ("Synced",),
    "messages.chats.conversation": ("Conversation", "Read", "Summary"),
    "messages.decrypt": ("Opened",),
    "messages.files": ("FileDone", "Progress"),
    "messages.months": ("MonthsOpened",),
    "messages.patients": ("NewPairing", "Pairing"),
    "messages.wire": ("Bad", "Message", "MessageV1", "MessageV2", "find_messages"),
    "month": ("Month",),
    "session.remote": ("SessionVault",),
    "session.start": ("start_session",),
    "tokens": ("Evidence", "PinPrompt", "TokenInfo", "Touch"),
    "tokens.access": ("TokenAccess",),
    "vault.audit.checkpoints": ("Checkpoint",),
    "vault.audit.entries": ("Entry",),
    "vault.audit.filter": ("EntryFilter", "moment"),
    "vault.audit.statements": ("Approval", "Drill", "Request", "RequestedBy", "Signed", "requested_by"),
    "vault.audit.trust": ("Policy", "RegisteredToken", "RetiredToken"),
    "vault.audit.trust_custody": ("BreakGlass",),
    "vault.audit.verify": ("Verified",),
    "vault.choosing": ("OnRecord", "token_on_record"),
    "vault.clock": ("Clock",),
    "vault.export": ("Exported",),
    "vault.inspection": ("Status", "status_of_file", "verify_file"),
    "vault.opening": ("this_user",),
    "vault.store.rows": ("Location", "Named"),
    "vault.store.surroundings": ("Surroundings", "surroundings_of"),
    "version": ("__version__",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_CALLED_THERE = {"__version__": "VERSION", "find_messages": "find", "in_words": "words"}

__all__ = [  # written out for type checkers; a test holds it against the above and against the methods' types
    "Actor",
    "Agree",
    "Approval",
    "Bad",
    "BreakGlass",
    "Certificate",
    "Chat",
    "Chats",
    "Checkpoint",
    "Clock",
    "Conversation",
    "Custodians",
    "Drill",
    "Entry",
    "EntryFilter",
    "Evidence",
    "Exported",
    "FileDone",
    "Files",
    "Held",
    "Holds",
    "Journal",
    "Location",
    "Log",
    "Loss",
    "MedcryptError",
    "Message",
    "MessageV1",
    "MessageV2",
    "Month",
    "Months",
    "MonthsOpened",
    "Named",
    "NewPairing",
    "OnMonthOpened",
    "OnRecord",
    "OpenOptions",
    "Opened",
    "OtherTokens",
    "Pairing",
    "Patients",
    "PinOf",
    "PinPrompt",
    "Plan",
    "Policy",
    "Progress",
    "Read",
    "RegisteredToken",
    "Rehearsed",
    "Request",
    "RequestOptions",
    "RequestedBy",
    "RetiredToken",
    "Reviewed",
    "SessionVault",
    "ShareRecord",
    "Signed",
    "Status",
    "Step",
    "Summary",
    "Surroundings",
    "Synced",
    "TokenAccess",
    "TokenInfo",
    "TokenOptions",
    "Tokens",
    "Touch",
    "Vault",
    "Verified",
    "__version__",
    "emergency",
    "find_in_export",
    "find_messages",
    "in_words",
    "moment",
    "read_checkpoint",
    "read_plan",
    "read_public_keys",
    "rehearse",
    "requested_by",
    "start_session",
    "status_of_file",
    "surroundings_of",
    "this_user",
    "token_on_record",
    "verify_file",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_HOME_OF[name]}")
    return module if module.__name__.endswith(f".{name}") else getattr(module, _CALLED_THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
