"""Setting a PKCS#11 token up: C_InitToken, C_InitPIN, C_SetPIN on a ``SlotToken``. Policy is in tokens/provision.py."""

from __future__ import annotations

import contextlib

from pkcs11 import PKCS11Error

from medcrypt_hsm.errors import TokenError
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.pkcs11 import cryptoki
from medcrypt_hsm.tokens.pkcs11.errors import LOCK, token_errors
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken


def pin_lengths(place: SlotToken) -> tuple[int, int]:
    """The least and greatest length in bytes that the token takes."""
    with token_errors(place, t("reading its PIN lengths")):
        return cryptoki.pin_lengths(place.module.path, place.slot_id)


def init_token(place: SlotToken, label: str, so_pin: str) -> SlotToken:
    """Erase and label it, and find it again: its serial, on some modules its slot too, is new."""
    with LOCK:
        if place.slot_id in place.module.in_use:
            raise TokenError(t("{token} is open in this program", token=place.title), "close it there first")
        before = {token.info.serial for token in place.module.tokens()}
        with token_errors(place, t("initialising it")):
            cryptoki.init_token(place.module.path, place.slot_id, so_pin.encode(), label.encode())
        # Same slot first: only some modules move it, and those show it there until they are asked for their slots.
        with contextlib.suppress(PKCS11Error):
            now = SlotToken(place.module, place.token.slot.get_token())
            if now.info.initialized and now.info.label == label:
                return now
        named = [token for token in place.module.tokens() if token.info.label == label]
        new = [token for token in named if token.info.serial not in before] or named
    if len(new) != 1:
        raise TokenError(
            t("a token was initialised as {label!r} but is not found again", label=label), "see 'medcrypt token list'"
        )
    return new[0]


def set_user_pin(place: SlotToken, so_prompt: PinPrompt, new_pin: str, *, last_try: bool = False) -> TokenInfo:
    """C_InitPIN with the security officer logged in."""
    session, _ = place.login(so_prompt, so=True, last_try=last_try)
    try:
        with token_errors(place, t("setting the user PIN")):
            session.init_pin(new_pin)
    finally:
        place.logout(session)
    return SlotToken(place.module, place.token).reread()


def replace_user_pin(place: SlotToken, old_prompt: PinPrompt, new_pin: str, *, last_try: bool = False) -> TokenInfo:
    """C_SetPIN with the user logged in."""
    session, old_pin = place.login(old_prompt, last_try=last_try)
    try:
        with token_errors(place, t("changing the PIN")):
            session.set_pin(old_pin, new_pin)
    finally:
        place.logout(session)
    return SlotToken(place.module, place.token).reread()
