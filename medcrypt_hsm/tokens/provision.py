"""A token's life before and beside vaults: made ready, its PIN changed, its PIN unblocked.

The PIN opens keys. What sets a locked or forgotten PIN anew is another secret, the *unblocking* one: a PKCS#11 token's
security officer's PIN (which erases the token too), or a PUK; ``TokenInfo.unblocked_by`` says which. Each function
names one token by URI, asks for at most one PIN, sends it once, and says what the token looks like after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medcrypt_hsm.errors import MedcryptError, TokenError, UsageError
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.access import no_such_kind
from medcrypt_hsm.tokens.uri import parse_uri


@dataclass(frozen=True, slots=True)
class Beginning:
    """A token as ``initialize`` would find it. ``erases``: keys that are on it will be gone, so a person must agree."""

    info: TokenInfo
    erases: bool


def begin(uri: str, label: str | None, *, modules: Sequence[str] = ()) -> Beginning:
    """What ``initialize`` would start with; refuses what it would refuse, before anybody is asked for a PIN.

    Raises UsageError (a label that the kind of token cannot have, or lacks), TokenAbsent, TokenUnfit, TokenError (in
    use).
    """
    match uri.partition(":")[0]:
        case "pkcs11":
            from medcrypt_hsm.tokens.pkcs11.modules import find

            _check_label(label)
            wanted = parse_uri(uri)
            info = find(wanted, modules, blank=True).info
            if info.initialized and not (wanted.serial or wanted.token):
                raise _in_use(info.label)
            return Beginning(info, erases=info.initialized)
        case "yubikey":
            from medcrypt_hsm.tokens.yubikey import discovery
            from medcrypt_hsm.tokens.yubikey.uri import serial_of

            _refuse_label(label)
            info = discovery.find(serial_of(uri))
            from medcrypt_hsm.tokens.yubikey import setup

            setup.refuse_in_use(info)
            return Beginning(info, erases=False)
        case _:
            raise no_such_kind()


def initialize(
    uri: str,
    label: str | None,
    unblocking: str,
    pin: str,
    *,
    allow_reinit: bool = False,
    modules: Sequence[str] = (),
) -> TokenInfo:
    """Make a blank token ready: its label where it has one, the unblocking secret, the PIN.

    ``allow_reinit``: erase a PKCS#11 token that is in use; the URI must name it then, and ``unblocking`` is its present
    SO PIN. A YubiKey in use is never erased.

    Raises UsageError, TokenAbsent, WrongPin (the SO PIN of a token in use), TokenError.
    """
    if uri.startswith("yubikey:"):
        from medcrypt_hsm.tokens.yubikey import discovery, setup
        from medcrypt_hsm.tokens.yubikey.uri import serial_of

        _refuse_label(label)
        return setup.initialize(discovery.find(serial_of(uri)), unblocking, pin)
    begin(uri, label, modules=modules)
    from medcrypt_hsm.tokens.pkcs11.modules import find
    from medcrypt_hsm.tokens.pkcs11.setup import init_token, pin_lengths, set_user_pin

    place = find(parse_uri(uri), modules, blank=True)
    if place.info.initialized and not allow_reinit:
        raise _in_use(place.info.label)
    least, most = pin_lengths(place)
    for secret, who in ((unblocking, t("security officer's PIN")), (pin, t("PIN"))):
        # Checked first: a token whose SO PIN is set and whose user PIN is refused would be left half ready.
        if not least <= len(secret.encode()) <= most:
            raise UsageError(
                t("the {secret} must have {least} to {most} bytes for this token", secret=who, least=least, most=most),
                "choose another PIN",
            )
    place = init_token(place, label or "", unblocking)
    try:
        return set_user_pin(place, lambda _: unblocking, pin)
    except MedcryptError as exc:
        exc.hint = t(
            "it is erased and labelled, but has no user PIN yet; {hint}", hint=exc.hint or t("set one with --unblock")
        )
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
    match uri.partition(":")[0]:
        case "pkcs11":
            from medcrypt_hsm.tokens.pkcs11.modules import find
            from medcrypt_hsm.tokens.pkcs11.setup import replace_user_pin

            return replace_user_pin(find(parse_uri(uri), modules), old_prompt, new_pin, last_try=last_try)
        case "yubikey":
            from medcrypt_hsm.tokens.yubikey import discovery, setup
            from medcrypt_hsm.tokens.yubikey.uri import serial_of

            return setup.change_pin(discovery.find(serial_of(uri)), old_prompt, new_pin, last_try=last_try)
        case _:
            raise no_such_kind()


def begin_unblock(uri: str, *, last_try: bool = False, modules: Sequence[str] = ()) -> TokenInfo:
    """What ``unblock`` would start with; refuses what it would refuse, before anybody is asked for a PIN.

    Raises UsageError, TokenAbsent, TokenUnfit, PinLocked, LastTry.
    """
    match uri.partition(":")[0]:
        case "pkcs11":
            from medcrypt_hsm.tokens.pkcs11.modules import find, refuse_risky_pin

            place = find(parse_uri(uri), modules)
            refuse_risky_pin(place.info, place.title, so=True, last_try=last_try)
            return place.info
        case "yubikey":
            from medcrypt_hsm.tokens.yubikey import discovery
            from medcrypt_hsm.tokens.yubikey.uri import serial_of

            info = discovery.find(serial_of(uri))
            from medcrypt_hsm.tokens.yubikey import setup

            setup.refuse_risky_puk(info, last_try)
            return info
        case _:
            raise no_such_kind()


def unblock(
    uri: str,
    unblocking_prompt: PinPrompt,
    new_pin: str,
    *,
    last_try: bool = False,
    modules: Sequence[str] = (),
) -> TokenInfo:
    """Set a locked or forgotten PIN anew with the unblocking secret. Raises PinError, TokenAbsent, TokenError."""
    match uri.partition(":")[0]:
        case "pkcs11":
            from medcrypt_hsm.tokens.pkcs11.modules import find
            from medcrypt_hsm.tokens.pkcs11.setup import set_user_pin

            return set_user_pin(find(parse_uri(uri), modules), unblocking_prompt, new_pin, last_try=last_try)
        case "yubikey":
            from medcrypt_hsm.tokens.yubikey import discovery, setup
            from medcrypt_hsm.tokens.yubikey.uri import serial_of

            return setup.unblock(discovery.find(serial_of(uri)), unblocking_prompt, new_pin, last_try=last_try)
        case _:
            raise no_such_kind()


def _refuse_label(label: str | None) -> None:
    if label is not None:
        raise UsageError("a YubiKey has no label: its serial number names it", "leave --label out")


def _check_label(label: str | None) -> None:
    if label is None:
        raise UsageError("a PKCS#11 token needs a label", "add --label L")
    if not label.strip() or not label.isprintable() or len(label.encode()) > 32:
        raise UsageError("a token's label has 1 to 32 bytes of printable UTF-8", "choose a shorter or plainer label")
    if label != label.strip():
        raise UsageError("a token's label cannot begin or end with a space", "the token pads labels with spaces")


def _in_use(label: str) -> TokenError:
    return TokenError(
        t("token {token!r} is in use already; initialising it would erase every key on it", token=label),
        "name a blank token, or name this one by its label or serial and confirm that it is to be erased",
    )
