"""From the factory to ready, the PIN changed, the PIN unblocked by the PUK. Policy is in tokens/provision.py.

``initialize`` makes a new management key, sets how often PIN and PUK may be wrong, then the PUK, then the PIN: while
the PIN is the factory's, it can be run again from any point. The new management key is put where ykman looks for it
before it is the card's: a key that nobody knows would be the end of the card.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ykman.piv import (
    OBJECT_ID_PIVMAN_DATA,
    OBJECT_ID_PIVMAN_PROTECTED_DATA,
    get_pivman_data,
    get_pivman_protected_data,
)
from yubikit.core import BadResponseError, InvalidPinError
from yubikit.core.smartcard import SW, ApduError
from yubikit.piv import DEFAULT_MANAGEMENT_KEY, MANAGEMENT_KEY_TYPE, OBJECT_ID, SLOT, PivSession

from medcrypt_hsm.errors import (
    LastTry,
    PinLocked,
    PinNeeded,
    TokenError,
    TokenRemoved,
    TokenUnfit,
    UsageError,
    WrongPin,
)
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.yubikey import slots, storage
from medcrypt_hsm.tokens.yubikey.connection import Card, card_errors
from medcrypt_hsm.tokens.yubikey.discovery import (
    METADATA,
    find,
    pin_locked_hint,
    puk_locked_hint,
    refuse_problem,
    take,
)
from medcrypt_hsm.tokens.yubikey.login import LONGEST, SHORTEST, log_in, tries

FACTORY_PIN, FACTORY_PUK = "123456", "12345678"
PIN_TRIES = PUK_TRIES = 5  # of a person in a hurry: three are gone quickly, and 5 in a million guess nothing
_LAST_PUK_HINT = "a wrong PUK now locks it for ever; add --last-try if you are sure of it"
AES_MANAGEMENT_KEY = (5, 4, 0)  # the first firmware that takes one
_MINE = (OBJECT_ID_PIVMAN_DATA, OBJECT_ID_PIVMAN_PROTECTED_DATA)  # what an initialisation that was cut off leaves
_OTHERS = (0x5FFF10, 0x5FFF11, 0x5FFF12, 0x5FFF13, 0x5FFF14, 0x5FFF15)  # Microsoft's minidriver
_ALL_SLOTS = tuple(slot for slot in SLOT if slot is not SLOT.ATTESTATION)
_ALL_OBJECTS = tuple(
    object_id
    for object_id in (*OBJECT_ID, *_OTHERS, *storage.DIRECTORY)
    if object_id not in (*_MINE, OBJECT_ID.ATTESTATION, OBJECT_ID.DISCOVERY)
)


def check_new(secret: str, what: str, *, factory: str = "") -> None:
    """Before anything is sent. Raises UsageError."""
    if not (secret.isascii() and secret.isprintable() and SHORTEST <= len(secret) <= LONGEST):
        raise UsageError(
            t(
                "a YubiKey's {secret} has {least} to {most} characters: letters, digits, signs",
                secret=what,
                least=SHORTEST,
                most=LONGEST,
            ),
            t("choose another {secret}", secret=what),
        )
    if secret == factory:
        raise UsageError(
            t("that is the {secret} that every YubiKey has from the factory", secret=what),
            t("choose another {secret}", secret=what),
        )


@contextmanager
def _strong_enough(what: str) -> Iterator[None]:
    """Some keys, FIPS ones for example, refuse what is easily guessed."""
    try:
        yield
    except ApduError as exc:
        if exc.sw != SW.CONDITIONS_NOT_SATISFIED:
            raise
        hint = "choose another, without repeated or consecutive characters, and run the command again"
        raise UsageError(t("this YubiKey finds the new {secret} too easy to guess", secret=what), hint) from exc


def refuse_in_use(info: TokenInfo) -> None:
    """As far as can be seen without its PIN. Raises TokenError, TokenUnfit."""
    refuse_problem(info)
    card, info = take(int(info.serial))
    try:
        with card_errors(card, t("looking at what is on it")):
            _refuse_in_use(card, PivSession(card), info)
    finally:
        card.close()


def initialize(info: TokenInfo, puk: str, pin: str) -> TokenInfo:
    """Factory state to ready. Raises UsageError, TokenError, TokenUnfit, TokenRemoved."""
    check_new(puk, t("PUK"), factory=FACTORY_PUK)
    check_new(pin, t("PIN"), factory=FACTORY_PIN)
    refuse_problem(info)
    card, info = take(int(info.serial))
    try:
        with card_errors(card, t("setting it up")):
            session = PivSession(card)
            _refuse_in_use(card, session, info)
            _give_factory_pin(session, info)
            _new_management_key(session, info)
            session.set_pin_attempts(PIN_TRIES, PUK_TRIES)  # PIN and PUK are the factory's again
            with _strong_enough(t("PUK")):
                session.change_puk(FACTORY_PUK, puk)
            with _strong_enough(t("PIN")):
                session.change_pin(FACTORY_PIN, pin)
    except TokenRemoved as exc:
        exc.hint = t("put it back and run the same 'medcrypt token init {uri}' again", uri=info.uri)
        raise
    finally:
        card.close()
    return find(int(info.serial))


def change_pin(info: TokenInfo, old_prompt: PinPrompt, new_pin: str, *, last_try: bool) -> TokenInfo:
    """Raises UsageError, PinError, TokenError."""
    check_new(new_pin, t("PIN"), factory=FACTORY_PIN)

    def change(session: PivSession, old_pin: str) -> None:
        if get_pivman_data(session).has_derived_key:
            hint = t("change it with 'ykman --device {serial} piv access change-pin'", serial=info.serial)
            raise TokenUnfit(t("the management key of {token} is made from its PIN", token=info.label), hint)
        with _strong_enough(t("PIN")):
            session.change_pin(old_pin, new_pin)

    card, _, info = log_in(info, old_prompt, last_try=last_try, send=change)
    card.close()
    return find(int(info.serial))


def unblock(info: TokenInfo, puk_prompt: PinPrompt, new_pin: str, *, last_try: bool) -> TokenInfo:
    """A new PIN by the PUK. Raises UsageError, PinError, TokenError."""
    check_new(new_pin, t("PIN"), factory=FACTORY_PIN)
    refuse_risky_puk(info, last_try)
    puk = puk_prompt(info)
    if not puk:
        raise PinNeeded(t("no PUK was given for {token}", token=info.label))
    if not SHORTEST <= len(puk.encode()) <= LONGEST:
        words = t(
            "that cannot be the PUK of {token}, which has {least} to {most} characters",
            token=info.label,
            least=SHORTEST,
            most=LONGEST,
        )
        raise WrongPin(words, "it was not sent, and cost no try")
    card, info = take(int(info.serial))
    try:
        refuse_risky_puk(info, last_try)
        with card_errors(card, t("setting a new PIN with the PUK")):
            try:
                with _strong_enough(t("PIN")):
                    PivSession(card).unblock_pin(puk, new_pin)
            except InvalidPinError as exc:
                raise _wrong_puk(info, exc.attempts_remaining) from exc
    finally:
        card.close()
    return find(int(info.serial))


def refuse_risky_puk(info: TokenInfo, last_try: bool) -> None:
    """Before a PUK is asked for and again before it is sent. Raises TokenUnfit, PinLocked, LastTry."""
    refuse_problem(info)
    if "so-locked" in info.pin_flags:
        raise PinLocked(t("the PUK of {token} is locked", token=info.label), puk_locked_hint(info))
    if "so-final-try" in info.pin_flags and not last_try:
        raise LastTry(t("one try is left for the PUK of {token}", token=info.label), _LAST_PUK_HINT)


def _wrong_puk(info: TokenInfo, left: int) -> WrongPin | PinLocked:
    if left == 0:
        return PinLocked(
            t("{token} refused the PUK, and that was the last try: it is locked now", token=info.label),
            puk_locked_hint(info),
        )
    hint = _LAST_PUK_HINT if left == 1 else "check it before trying again"
    return WrongPin(t("{token} refused the PUK; {left}", token=info.label, left=tries(left)), hint, tries_left=left)


def _refuse_in_use(card: Card, session: PivSession, info: TokenInfo) -> None:
    """Keys, objects, or a PIN that is not the factory's, where the firmware tells."""
    reset = t(
        "'ykman --device {serial} piv reset' erases every key and object of its PIV application", serial=info.serial
    )
    if session.version >= METADATA and info.initialized:
        raise TokenError(
            t("{token} is in use already: its PIN is not the factory's", token=info.label), _in_use_hint(info)
        )
    if session.version >= METADATA and "locked" in info.pin_flags:
        hint = t(
            "reset its PIV application with 'ykman --device {serial} piv reset' and run this again", serial=info.serial
        )
        raise PinLocked(t("the PIN of {token} is locked", token=info.label), hint)
    if session.version < METADATA and (info.pin_tries or 0) < 2:  # to find out costs one
        raise TokenError(
            t("{token} has no tries to spare for its PIN, which is not the factory's", token=info.label),
            _in_use_hint(info),
        )
    found = [t("slot {slot:02X}", slot=slot) for slot in _ALL_SLOTS if _something_in(session, slot)]
    found += [t("object {object:06X}", object=object_id) for object_id in _ALL_OBJECTS if _readable(session, object_id)]
    if found:
        raise TokenError(
            t(
                "{token} is in use already: there is something in {places}",
                token=info.label,
                places=", ".join(found[:6]),
            ),
            reset,
        )


def _in_use_hint(info: TokenInfo) -> str:
    if "locked" in info.pin_flags:
        return pin_locked_hint(info)
    return t(
        "use it as it is with 'medcrypt vault create --token NAME={uri}', or see 'medcrypt token pin'", uri=info.uri
    )


def _something_in(session: PivSession, slot: SLOT) -> bool:
    """Without the PIN: before 5.3 an imported key without a certificate is not seen."""
    if session.version >= METADATA:
        return slots.read_key(session, slot) is not None
    return slots.attestation(session, slot) is not None


def _readable(session: PivSession, object_id: int) -> bool:
    try:
        return bool(storage.read(session, object_id))
    except ApduError:  # one that wants the PIN: SP 800-73 has some, and nothing tells whether anything is in them
        return False


def _give_factory_pin(session: PivSession, info: TokenInfo) -> None:
    """Before 5.3 only a try tells whether it is the factory's."""
    try:
        session.verify_pin(FACTORY_PIN)
    except InvalidPinError as exc:
        raise TokenError(
            t("{token} is in use already: its PIN is not the factory's", token=info.label), _in_use_hint(info)
        ) from exc


def _new_management_key(session: PivSession, info: TokenInfo) -> None:
    """Make one that is kept protected by the PIN; or give the one that an interrupted initialisation made."""
    protected = get_pivman_protected_data(session)
    candidates = [DEFAULT_MANAGEMENT_KEY, *([protected.key] if protected.key else [])]
    for key in candidates:
        if _authenticated(session, bytes(key)):
            break
    else:
        command = f"ykman --device {info.serial} piv reset"
        raise TokenError(
            t("{token} is in use already: its management key is not the factory's", token=info.label),
            t(
                "if nothing in its PIV application is needed, reset that with '{command}' and run this again",
                command=command,
            ),
        )
    kind = MANAGEMENT_KEY_TYPE.AES256 if session.version >= AES_MANAGEMENT_KEY else MANAGEMENT_KEY_TYPE.TDES
    if key is DEFAULT_MANAGEMENT_KEY:
        protected.key = os.urandom(kind.key_len)
        session.put_object(OBJECT_ID_PIVMAN_PROTECTED_DATA, protected.get_bytes())
        session.set_management_key(kind, protected.key)
    pivman = get_pivman_data(session)
    pivman.mgm_key_protected = True
    pivman.puk_blocked = False
    session.put_object(OBJECT_ID_PIVMAN_DATA, pivman.get_bytes())


def _authenticated(session: PivSession, key: bytes) -> bool:
    if len(key) != session.management_key_type.key_len:
        return False
    try:
        session.authenticate(key)
    except (ApduError, BadResponseError):
        return False
    return True
