"""The PIN, asked for and sent once; and the management key, which the card gives only after the PIN.

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
from medcrypt_hsm.sentences import counted, t
from medcrypt_hsm.tokens import PinPrompt, TokenInfo, Touch
from medcrypt_hsm.tokens.yubikey.connection import Card, card_errors
from medcrypt_hsm.tokens.yubikey.discovery import METADATA, pin_locked_hint, refuse_unusable, take_again

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
        raise PinNeeded(t("no PIN was given for {token}", token=info.label))
    if not SHORTEST <= len(pin.encode()) <= LONGEST:
        words = t(
            "that cannot be the PIN of {token}, which has {least} to {most} characters",
            token=info.label,
            least=SHORTEST,
            most=LONGEST,
        )
        raise WrongPin(words, "it was not sent, and cost no try", tries_left=info.pin_tries)
    card, session, info = take_again(info)
    try:
        refuse_unusable(info, last_try=last_try)
        with card_errors(card, t("logging in")):
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
            t("{token} refused the PIN, and that was the last try: it is locked now", token=info.label),
            pin_locked_hint(info),
        )
    hint = LastTry.hint if left == 1 else "check it before trying again"
    return WrongPin(t("{token} refused the PIN; {left}", token=info.label, left=tries(left)), hint, tries_left=left)


def tries(left: int) -> str:
    return counted(left, "one try is left", "{count} tries are left")


def authorize(card: Card, session: PivSession, info: TokenInfo, touch: Touch) -> None:
    """Give the management key that is kept on the card, protected by the PIN, as ykman keeps it: for writing to it.

    Raises TokenUnfit if none is kept there.
    """
    command = f"ykman --device {info.serial} piv access change-management-key --generate --protect"
    hint = t("have a new one made and kept on it: '{command}'", command=command)
    with card_errors(card, t("reading its management key")):
        kept = get_pivman_data(session).has_stored_key
        key = get_pivman_protected_data(session).key if kept else None
        finger = (
            session.version >= METADATA and session.get_management_key_metadata().touch_policy is not TOUCH_POLICY.NEVER
        )
    if key is None:
        raise TokenUnfit(t("the management key of {token} is not kept on it behind the PIN", token=info.label), hint)
    with card_errors(card, t("giving its management key"), touch=finger):
        try:
            if finger:
                with touch(info):
                    session.authenticate(bytes(key))
            else:
                session.authenticate(bytes(key))
        except ApduError as exc:
            if finger or card.failure is not None:
                raise
            raise TokenUnfit(
                t("{token} refuses the management key that is kept on it", token=info.label), hint
            ) from exc
