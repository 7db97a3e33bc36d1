"""A token's life before and beside vaults: made ready, its PIN changed, its PIN unblocked.

PIN of the *user* opens keys; that of the *security officer* (SO) only sets the user's PIN and erases the token. Each
function names one token by URI, asks for at most one PIN, sends it once, and says what the token looks like after.
"""

from __future__ import annotations

from collections.abc import Sequence

from medcrypt_hsm.errors import MedcryptError, TokenError, UsageError
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.uri import parse_uri


def initialize(
    uri: str,
    label: str,
    so_pin: str,
    user_pin: str,
    *,
    allow_reinit: bool = False,
    modules: Sequence[str] = (),
) -> TokenInfo:
    """Give a blank token a label and both PINs. ``allow_reinit``: erase one that is in use; the URI must name it then.

    Raises UsageError, TokenAbsent, WrongPin (the SO PIN of a token in use), TokenError.
    """
    from medcrypt_hsm.tokens.pkcs11 import find
    from medcrypt_hsm.tokens.pkcs11.setup import init_token, pin_lengths, set_user_pin

    if not label.strip() or not label.isprintable() or len(label.encode()) > 32:
        raise UsageError("a token's label has 1 to 32 bytes of printable UTF-8", "choose a shorter or plainer label")
    if label != label.strip():
        raise UsageError("a token's label cannot begin or end with a space", "the token pads labels with spaces")
    wanted = parse_uri(uri)
    place = find(wanted, modules, blank=True)
    if place.info.initialized and not (allow_reinit and (wanted.serial or wanted.token)):
        raise TokenError(
            f"{place.title} is in use already; initialising it would erase every key on it",
            "name a blank token, or name this one by its label or serial and confirm that it is to be erased",
        )
    least, most = pin_lengths(place)
    for pin, who in ((so_pin, "security officer's PIN"), (user_pin, "PIN")):
        # Checked first: a token whose SO PIN is set and whose user PIN is refused would be left half ready.
        if not least <= len(pin.encode()) <= most:
            raise UsageError(f"the {who} must have {least} to {most} bytes for this token", "choose another PIN")
    place = init_token(place, label, so_pin)
    try:
        return set_user_pin(place, lambda _: so_pin, user_pin)
    except MedcryptError as exc:
        exc.hint = f"it is erased and labelled, but has no user PIN yet; {exc.hint or 'set one with --unblock'}"
        raise


def change_pin(
    uri: str,
    old_prompt: PinPrompt,
    new_pin: str,
    *,
    last_try: bool = False,
    modules: Sequence[str] = (),
) -> TokenInfo:
    """Change the user's PIN. Raises PinError, TokenAbsent, TokenError."""
    from medcrypt_hsm.tokens.pkcs11 import find
    from medcrypt_hsm.tokens.pkcs11.setup import replace_user_pin

    return replace_user_pin(find(parse_uri(uri), modules), old_prompt, new_pin, last_try=last_try)


def unblock(
    uri: str,
    so_prompt: PinPrompt,
    new_pin: str,
    *,
    last_try: bool = False,
    modules: Sequence[str] = (),
) -> TokenInfo:
    """Set a locked or forgotten user PIN anew with the SO PIN. Raises PinError, TokenAbsent, TokenError."""
    from medcrypt_hsm.tokens.pkcs11 import find
    from medcrypt_hsm.tokens.pkcs11.setup import set_user_pin

    return set_user_pin(find(parse_uri(uri), modules), so_prompt, new_pin, last_try=last_try)
