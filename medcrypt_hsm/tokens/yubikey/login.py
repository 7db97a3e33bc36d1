"""The PIN, asked for and sent once; and the management key, which the card keeps behind the PIN.

The PIN is asked for while nothing holds the card. Then the card is taken for this program alone, looked at again, and
the PIN goes to it once: not to another card that sits there now, and not to a last try that nobody allowed.
"""

from __future__ import annotations

from collections.abc import Callable

from ykman.piv import get_pivman_data, get_pivman_protected_data
from yubikit.core import InvalidPinError
from yubikit.core.smartcard import ApduError
from yubikit.piv import TOUCH_POLICY, PivSession

from medcrypt_hsm.errors import LastTry, PinLocked, PinNeeded, TokenUnfit, WrongPin
from medcrypt_hsm.tokens import PinPrompt, TokenInfo, Touch
from medcrypt_hsm.tokens.yubikey.connection import Card, card_errors
from medcrypt_hsm.tokens.yubikey.discovery import METADATA, pin_locked_hint, refuse_unusable, take

SHORTEST, LONGEST = 6, 8  # bytes of a PIN or PUK


def log_in(
    info: TokenInfo,
    prompt: PinPrompt,
    *,
    last_try: bool,
    send: Callable[[PivSession, str], None] = PivSession.verify_pin,
) -> tuple[Card, PivSession, TokenInfo]:
    """The card that ``info`` describes with its PIN verified, or whatever else ``send`` does with the PIN.

    Raises PinError, TokenAbsent, TokenHeld, TokenUnfit, TokenRemoved, TokenError; then the card is let go.
    """
    refuse_unusable(info, last_try=last_try)
    pin = prompt(info)
    if not pin:
        raise PinNeeded(f"no PIN was given for {info.label}")
    if not SHORTEST <= len(pin.encode()) <= LONGEST:
        words = f"that cannot be the PIN of {info.label}, which has {SHORTEST} to {LONGEST} characters"
        raise WrongPin(words, "it was not sent, and cost no try", tries_left=info.pin_tries)
    card, info = take(int(info.serial))
    try:
        refuse_unusable(info, last_try=last_try)
        with card_errors(card, "logging in"):
            session = PivSession(card)
            try:
                send(session, pin)
            except InvalidPinError as exc:
                raise wrong_pin(info, exc.attempts_remaining) from exc
    except BaseException:
        card.close()
        raise
    return card, session, info


def wrong_pin(info: TokenInfo, left: int) -> WrongPin | PinLocked:
    if left == 0:
        return PinLocked(
            f"{info.label} refused the PIN, and that was the last try: it is locked now", pin_locked_hint(info)
        )
    hint = LastTry.hint if left == 1 else "check it before trying again"
    return WrongPin(f"{info.label} refused the PIN; {tries(left)}", hint, tries_left=left)


def tries(left: int) -> str:
    return "one try is left" if left == 1 else f"{left} tries are left"


def authorize(card: Card, session: PivSession, info: TokenInfo, touch: Touch) -> None:
    """Give the management key that is kept behind the PIN, as ykman keeps it, so that the card can be written to.

    Raises TokenUnfit if none is kept there.
    """
    command = f"ykman --device {info.serial} piv access change-management-key --generate --protect"
    hint = f"have a new one made and kept on it: '{command}'"
    with card_errors(card, "reading its management key"):
        kept = get_pivman_data(session).has_stored_key
        key = get_pivman_protected_data(session).key if kept else None
        finger = (
            session.version >= METADATA and session.get_management_key_metadata().touch_policy is not TOUCH_POLICY.NEVER
        )
    if key is None:
        raise TokenUnfit(f"the management key of {info.label} is not kept on it behind the PIN", hint)
    with card_errors(card, "giving its management key", touch=finger):
        try:
            if finger:
                with touch(info):
                    session.authenticate(bytes(key))
            else:
                session.authenticate(bytes(key))
        except ApduError as exc:
            if finger or card.failure is not None:
                raise
            raise TokenUnfit(f"{info.label} refuses the management key that is kept on it", hint) from exc
