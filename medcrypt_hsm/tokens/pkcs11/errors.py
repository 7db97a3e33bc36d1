"""Foreign errors are translated here, once: PKCS#11 return values, which python-pkcs11 raises as classes, to ours.

``translate`` is the table. ``token_errors`` wraps it for ordinary calls; the hot path in keys.py calls ``translate``
from a plain ``except``. What a token answers when it is pulled, or when a ciphertext is forged, differs by module and
is often the same CKR_GENERAL_ERROR for both, so the doubtful ones are settled by asking whether the token is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Protocol

import pkcs11
from pkcs11 import PKCS11Error

from medcrypt_hsm.errors import (
    MedcryptError,
    NotAuthentic,
    PinError,
    PinLocked,
    TokenError,
    TokenRemoved,
    TokenUnfit,
    WrongPin,
)

LOCK = RLock()
"""Held round every PKCS#11 call: python-pkcs11 initialises modules without threads, and SoftHSM2 crashes under them."""
GCM_ERRORS = (PKCS11Error, OverflowError)
"""What ``encrypt`` and ``decrypt`` raise; python-pkcs11 turns some lengths below a tag's into OverflowError."""
GONE = (
    pkcs11.ObjectHandleInvalid,
    pkcs11.KeyHandleInvalid,
    pkcs11.UnwrappingKeyHandleInvalid,
    pkcs11.WrappingKeyHandleInvalid,
)
"""The object of a handle is no longer there: destroyed by another program, or its token is gone."""
_REMOVED = (pkcs11.DeviceRemoved, pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised, pkcs11.SlotIDInvalid)
_SESSION = (pkcs11.SessionHandleInvalid, pkcs11.SessionClosed, pkcs11.UserNotLoggedIn)
_DOUBTFUL = (pkcs11.GeneralError, pkcs11.DeviceError, pkcs11.FunctionFailed, *GONE, *_SESSION)
_FORGED = (
    pkcs11.GeneralError,
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.WrappedKeyInvalid,
    pkcs11.WrappedKeyLenRange,
    OverflowError,
)
_UNOFFERED = (pkcs11.MechanismInvalid, pkcs11.MechanismParamInvalid, pkcs11.FunctionNotSupported, pkcs11.KeySizeRange)
_TEMPLATE = (
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.AttributeReadOnly,
    pkcs11.TemplateIncomplete,
    pkcs11.TemplateInconsistent,
    pkcs11.KeyTypeInconsistent,
)
NO_PIN_HINT = "set one with 'medcrypt token pin URI --unblock' and the security officer's PIN"
_PLAIN: dict[type[PKCS11Error], tuple[type[MedcryptError], str, str | None]] = {
    pkcs11.PinIncorrect: (WrongPin, "refused the PIN", "see 'medcrypt token list' before trying again"),
    pkcs11.PinLenRange: (WrongPin, "does not take a PIN of that length", "see its manual for the lengths it takes"),
    pkcs11.PinInvalid: (WrongPin, "does not take those characters in a PIN", "use digits"),
    pkcs11.PinTooWeak: (WrongPin, "finds that PIN too weak", "choose a longer one"),
    pkcs11.PinExpired: (PinError, "wants its PIN changed first", "change it with 'medcrypt token pin URI'"),
    pkcs11.PinLocked: (PinLocked, "has locked its PIN", None),
    pkcs11.UserPinNotInitialized: (
        TokenUnfit, "has no user PIN yet", NO_PIN_HINT,
    ),
    pkcs11.UserAlreadyLoggedIn: (TokenError, "is already open in this program", "close it there first"),
    pkcs11.UserTooManyTypes: (TokenError, "has another user logged in", "close the other program first"),
    pkcs11.AnotherUserAlreadyLoggedIn: (TokenError, "has another user logged in", "close the other program first"),
    pkcs11.SessionExists: (TokenError, "is in use by another session", "close the other program first"),
    pkcs11.SessionCount: (TokenError, "has too many sessions open", "close other programs that use it"),
    pkcs11.DeviceMemory: (TokenError, "is full", "destroy what is not needed on it, or use another token"),
    pkcs11.HostMemory: (TokenError, "is out of memory on this machine", "close other programs and try again"),
    pkcs11.TokenWriteProtected: (TokenUnfit, "is write protected", "take the write protection off"),
    pkcs11.KeyUnextractable: (TokenUnfit, "does not let its keys be wrapped", None),
    pkcs11.KeyNotWrappable: (TokenUnfit, "does not let its keys be wrapped", None),
}  # fmt: skip


class Place(Protocol):
    """Where a token is: enough to name it in an error and to see whether it is still there."""

    @property
    def title(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def present(self) -> bool: ...


def translate(exc: Exception, place: Place, doing: str, *, opening: bool = False) -> MedcryptError:
    """Our error for a foreign one. ``opening``: a GCM open or an AES-KW unwrap, where a refusal means forged.

    Raises RuntimeError for a call on a token that this program has closed itself: misuse.
    """
    if place.closed:
        raise RuntimeError(f"{place.title} was closed before {doing}") from exc
    if isinstance(exc, _REMOVED) or (isinstance(exc, _DOUBTFUL) and not place.present()):
        return TokenRemoved(f"{place.title} was removed while {doing}")
    if opening and isinstance(exc, _FORGED):
        return NotAuthentic(f"not authentic: {place.title} refused it while {doing}")
    for foreign, (ours, what, hint) in _PLAIN.items():
        if isinstance(exc, foreign):
            return ours(f"{place.title} {what}", hint)
    if isinstance(exc, GONE):
        return TokenError(
            f"a key on {place.title} was destroyed by another program while {doing}", "run the command again"
        )
    if isinstance(exc, _SESSION):
        return TokenError(f"{place.title} ended the session while {doing}", "run the command again")
    if isinstance(exc, _UNOFFERED):
        return TokenUnfit(f"{place.title} does not offer what is needed for {doing} ({words(exc)})")
    if isinstance(exc, _TEMPLATE):
        return TokenUnfit(f"{place.title} refused the key attributes that are needed for {doing} ({words(exc)})")
    return TokenError(f"{place.title} failed while {doing} ({words(exc)})", "run 'medcrypt token check URI'")


@contextmanager
def token_errors(place: Place, doing: str, *, opening: bool = False) -> Iterator[None]:
    """The lock, and our errors instead of the module's. ``doing`` completes "failed while …"."""
    if place.closed:
        raise RuntimeError(f"{place.title} was closed before {doing}")
    try:
        with LOCK:
            yield
    except GCM_ERRORS as exc:
        raise translate(exc, place, doing, opening=opening) from exc


def words(exc: Exception) -> str:
    """FunctionRejected → "function rejected"; python-pkcs11 puts unknown return values into its message."""
    name = type(exc).__name__
    if type(exc) is PKCS11Error:
        return str(exc) or "unknown error"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
