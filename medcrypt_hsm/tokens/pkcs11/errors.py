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
from medcrypt_hsm.sentences import t, template

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
    pkcs11.PinIncorrect: (
        WrongPin,
        template("{token} refused the PIN"),
        "see 'medcrypt token list' before trying again",
    ),
    pkcs11.PinLenRange: (
        WrongPin,
        template("{token} does not take a PIN of that length"),
        "see its manual for the lengths it takes",
    ),
    pkcs11.PinInvalid: (WrongPin, template("{token} does not take those characters in a PIN"), "use digits"),
    pkcs11.PinTooWeak: (WrongPin, template("{token} finds that PIN too weak"), "choose a longer one"),
    pkcs11.PinExpired: (
        PinError,
        template("{token} wants its PIN changed first"),
        "change it with 'medcrypt token pin URI'",
    ),
    pkcs11.PinLocked: (PinLocked, template("{token} has locked its PIN"), None),
    pkcs11.UserPinNotInitialized: (
        TokenUnfit,
        template("{token} has no user PIN yet"),
        NO_PIN_HINT,
    ),
    pkcs11.UserAlreadyLoggedIn: (
        TokenError,
        template("{token} is already open in this program"),
        "close it there first",
    ),
    pkcs11.UserTooManyTypes: (
        TokenError,
        template("{token} has another user logged in"),
        "close the other program first",
    ),
    pkcs11.AnotherUserAlreadyLoggedIn: (
        TokenError,
        template("{token} has another user logged in"),
        "close the other program first",
    ),
    pkcs11.SessionExists: (
        TokenError,
        template("{token} is in use by another session"),
        "close the other program first",
    ),
    pkcs11.SessionCount: (
        TokenError,
        template("{token} has too many sessions open"),
        "close other programs that use it",
    ),
    pkcs11.DeviceMemory: (
        TokenError,
        template("{token} is full"),
        "destroy what is not needed on it, or use another token",
    ),
    pkcs11.HostMemory: (
        TokenError,
        template("{token} is out of memory on this machine"),
        "close other programs and try again",
    ),
    pkcs11.TokenWriteProtected: (TokenUnfit, template("{token} is write protected"), "take the write protection off"),
    pkcs11.KeyUnextractable: (TokenUnfit, template("{token} does not let its keys be wrapped"), None),
    pkcs11.KeyNotWrappable: (TokenUnfit, template("{token} does not let its keys be wrapped"), None),
}


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
        return TokenRemoved(t("{token} was removed while {doing}", token=place.title, doing=doing))
    if opening and isinstance(exc, _FORGED):
        return NotAuthentic(t("not authentic: {token} refused it while {doing}", token=place.title, doing=doing))
    for foreign, (ours, what, hint) in _PLAIN.items():
        if isinstance(exc, foreign):
            return ours(t(what, token=place.title), hint)
    if isinstance(exc, GONE):
        return TokenError(
            t("a key on {token} was destroyed by another program while {doing}", token=place.title, doing=doing),
            "run the command again",
        )
    if isinstance(exc, _SESSION):
        return TokenError(
            t("{token} ended the session while {doing}", token=place.title, doing=doing), "run the command again"
        )
    if isinstance(exc, _UNOFFERED):
        return TokenUnfit(
            t(
                "{token} does not offer what is needed for {doing} ({reason})",
                token=place.title,
                doing=doing,
                reason=words(exc),
            )
        )
    if isinstance(exc, _TEMPLATE):
        return TokenUnfit(
            t(
                "{token} refused the key attributes that are needed for {doing} ({reason})",
                token=place.title,
                doing=doing,
                reason=words(exc),
            )
        )
    return TokenError(
        t("{token} failed while {doing} ({reason})", token=place.title, doing=doing, reason=words(exc)),
        "run 'medcrypt token check URI'",
    )


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
