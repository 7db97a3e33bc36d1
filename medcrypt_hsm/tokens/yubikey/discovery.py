"""Which YubiKeys there are, what they say of themselves, and the one that a serial number names.

A key is looked at over a short exclusive connection, with no PIN verified, and let go before anybody is asked for a
PIN. One that another program holds is left to it; since that may be another command of ours that ends soon, we wait a
few seconds for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from medcrypt_hsm.errors import LastTry, PinLocked, TokenAbsent, TokenError, TokenHeld, TokenUnfit
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens import TokenInfo, let_go_of_readers
from medcrypt_hsm.tokens.yubikey.uri import format_uri

if TYPE_CHECKING:
    from yubikit.management import DeviceInfo
    from yubikit.piv import PivSession

    from medcrypt_hsm.tokens.yubikey.connection import Card, Piv

T = TypeVar("T")

PATIENCE = 5.0  # seconds
_PAUSE = 0.05
OLDEST = (4, 3, 0)
METADATA = (5, 3, 0)
PIV_SERIAL = (5, 0, 3)  # the first firmware whose PIV application tells the serial
MANUFACTURER = "Yubico"
_open_here: dict[int, tuple[Card, TokenInfo]] = {}  # by serial: nobody, not even this program, can look at these


def find(serial: int) -> TokenInfo:
    """What the key with this serial says of itself. Raises TokenAbsent, TokenHeld, TokenError."""
    if (mine := opened(serial)) is not None:
        return mine
    card, info = take(serial)
    card.close()
    return info


def take(serial: int) -> tuple[Card, TokenInfo]:
    """The key with this serial, for this program alone: with nothing selected and nothing verified.

    Raises TokenAbsent, TokenHeld, TokenError.
    """

    def look(card: Card) -> TokenInfo | None:
        device = _identify(card)
        if device.serial != serial:
            return None
        card.title = title(serial)
        return _describe(card, device)

    return _take(serial, look)


def take_again(known: TokenInfo) -> tuple[Card, Piv, TokenInfo]:
    """The key that was described as ``known``, for this program alone, its PIV application selected and looked at anew.

    That it is this very device, and how its secrets stand, is asked again over this connection; what never changes of a
    device (firmware, model) is not. Raises TokenAbsent, TokenHeld, TokenError.
    """
    serial, version = int(known.serial), tuple(map(int, known.firmware.split(".")))

    def look(card: Card) -> tuple[Piv, TokenInfo] | None:
        session = _by_piv_serial(card, serial, version)
        if session is None and _identify(card).serial != serial:
            return None
        card.title = title(serial)
        if session is None:
            session = _select_piv(card, version)
        return session, _looked_at(card, session, known)

    card, (session, info) = _take(serial, look)
    return card, session, info


def _take(serial: int, look: Callable[[Card], T | None]) -> tuple[Card, T]:
    """The first card that ``look`` takes for the one with this serial."""
    refuse_open(serial)
    give_up = time.monotonic() + PATIENCE
    left = _readers()
    others: list[str] = []
    while True:
        held: dict[str, TokenHeld] = {}
        for reader in left:
            try:
                card = _connect(reader)
            except TokenHeld as exc:
                held[reader] = exc
                continue
            except TokenError as exc:
                if not isinstance(exc, TokenAbsent):  # an empty reader is no problem
                    others.append(exc.message)
                continue
            try:
                if (seen := look(card)) is not None:
                    return card, seen
            except TokenError as exc:
                others.append(exc.message)
            except BaseException:
                card.close()
                raise
            card.close()
        if not held or time.monotonic() >= give_up:
            break
        left = list(held)
        time.sleep(_PAUSE)
    if held:
        first = next(iter(held.values()))
        raise TokenHeld(
            t("{reason}, so nobody can see whether it is {token}", reason=_by_whom(first), token=title(serial))
        ) from first
    raise TokenAbsent(joined("; ", (t("no {token} is plugged in", token=title(serial)), *others)))


def opened(serial: int) -> TokenInfo | None:
    """What the key with this serial said when this program opened it; None if it is not open, or gone since."""
    card, info = _open_here.get(serial, (None, None))
    return info if card is not None and card.alive else None


def refuse_open(serial: int) -> None:
    if opened(serial) is not None:
        raise TokenError(t("{token} is already open in this program", token=title(serial)), "close it there first")


def remember_open(card: Card, info: TokenInfo) -> None:
    _open_here[int(info.serial)] = (card, info)


def forget_open(card: Card, info: TokenInfo) -> None:
    if _open_here.get(int(info.serial), (None, None))[0] is card:
        del _open_here[int(info.serial)]


def list_infos() -> list[TokenInfo]:
    """Every YubiKey that can be seen; without a smart card service there are none, and nobody is told."""
    infos = []
    try:
        readers = _readers()
    except TokenError:
        return []
    here = {card.reader: info for card, info in _open_here.values() if card.alive}
    for reader in readers:
        if reader in here:
            infos.append(here[reader])
            continue
        try:
            card = _connect(reader)
        except TokenAbsent:
            continue
        except TokenHeld as exc:
            infos.append(_unseen(_by_whom(exc)))
            continue
        except TokenError as exc:
            infos.append(_unseen(exc.message))
            continue
        try:
            infos.append(_describe(card, _identify(card)))
        except TokenError as exc:
            infos.append(_unseen(exc.message))
        finally:
            card.close()
    return infos


def title(serial: int) -> str:
    return f"YubiKey {serial}"


def refuse_unusable(info: TokenInfo, *, last_try: bool) -> None:
    """Before a PIN is asked for and again before it is sent. Raises TokenUnfit, PinLocked, LastTry."""
    refuse_blank(info)
    if "locked" in info.pin_flags:
        raise PinLocked(t("the PIN of {token} is locked", token=info.label), pin_locked_hint(info))
    if "final-try" in info.pin_flags and not last_try:
        raise LastTry(t("one try is left for the PIN of {token}", token=info.label))


def refuse_blank(info: TokenInfo) -> None:
    """One with a secret that everybody knows: its PIN, or one that sets the PIN anew or overwrites keys."""
    refuse_problem(info)
    ykman = f"ykman --device {info.serial} piv access"
    by_init = t("set its PIN, PUK and management key with 'medcrypt token init {uri}'", uri=info.uri)
    by_ykman = t(
        "have a new one made and kept on it: '{command} change-management-key --generate --protect'", command=ykman
    )
    if "factory" in info.pin_flags:
        raise TokenUnfit(t("{token} still has its factory PIN", token=info.label), by_init)
    if "so-factory" in info.pin_flags:
        raise TokenUnfit(
            t("{token} still has its factory PUK", token=info.label),
            t("set one of your own: '{command} change-puk'", command=ykman),
        )
    if "management-factory" in info.pin_flags:
        if not info.initialized:
            by_ykman = t(
                "{hint}; if its PIN and PUK are your own already, {otherwise}", hint=by_init, otherwise=by_ykman
            )
        raise TokenUnfit(t("{token} still has its factory management key", token=info.label), by_ykman)


def refuse_problem(info: TokenInfo) -> None:
    if info.problem:
        raise TokenUnfit(info.problem, "use another token")


def puk_locked_hint(info: TokenInfo) -> str:
    command = f"ykman --device {info.serial} piv reset"
    return t("only a reset of its PIV application helps, which erases every key in it: '{command}'", command=command)


def pin_locked_hint(info: TokenInfo) -> str:
    if "so-locked" in info.pin_flags:
        return t("its PUK is locked too; {hint}", hint=puk_locked_hint(info))
    return t("set a new one with the PUK: 'medcrypt token pin {uri} --unblock'", uri=info.uri)


def _readers() -> Sequence[str]:
    """Raises TokenAbsent without a smart card service."""
    try:
        from medcrypt_hsm.tokens.yubikey import pcsc
    except ImportError as exc:  # pyscard is there, the PC/SC library of the system is not
        raise TokenAbsent("this machine has no smart card service", "install pcscd") from exc
    try:
        return pcsc.readers()
    except pcsc.PcscError as exc:
        raise pcsc.connecting(exc, "the list of readers") from exc


def _connect(reader: str) -> Card:
    from medcrypt_hsm.tokens.yubikey.connection import Card

    try:
        return Card(reader)
    except TokenHeld:
        if not let_go_of_readers():  # it may be a PKCS#11 module of this very program
            raise
        return Card(reader)


def _identify(card: Card) -> DeviceInfo:
    """Its serial and firmware, from the Management application, which every firmware since 4.1 answers."""
    from yubikit.core import ApplicationNotAvailableError, NotSupportedError
    from yubikit.management import ManagementSession

    from medcrypt_hsm.tokens.yubikey.connection import card_errors

    with card_errors(card, t("reading its serial number")):
        try:
            device = ManagementSession(card).read_device_info()
        except (ApplicationNotAvailableError, NotSupportedError) as exc:
            raise TokenUnfit(
                t("{token} is too old: firmware 4.3 is needed", token=card.title), "use another token"
            ) from exc
    if device.serial is None:
        raise TokenUnfit(
            t("{token} does not show its serial number", token=card.title), "make it visible with 'ykman otp settings'"
        )
    return device


def _by_piv_serial(card: Card, serial: int, version: tuple[int, ...]) -> Piv | None:
    """Its PIV application, if that is the one that tells this serial; None says nothing of what card it is."""
    from yubikit.core import ApplicationNotAvailableError
    from yubikit.core.smartcard import ApduError

    from medcrypt_hsm.tokens.yubikey.connection import card_errors

    if version < PIV_SERIAL:
        return None
    with card_errors(card, t("reading its serial number")):
        try:
            session = _select_piv(card, version)
            return session if session.get_serial() == serial else None
        except (ApplicationNotAvailableError, ApduError):  # another device, in whose place this one was
            return None


def _select_piv(card: Card, version: tuple[int, ...]) -> Piv:
    from yubikit.core import Version

    from medcrypt_hsm.tokens.yubikey.connection import Piv, card_errors

    with card_errors(card, t("looking at its PIN")):
        return Piv(card, Version(*version))


def _looked_at(card: Card, session: Piv, known: TokenInfo) -> TokenInfo:
    """``known`` with how its secrets stand now."""
    from medcrypt_hsm.tokens.yubikey.connection import card_errors

    with card_errors(card, t("looking at its PIN")):
        tries, flags = _secrets(session, before=known.pin_flags)
    factory = _is_factory(session.version, flags)
    return known._replace(initialized=not factory, user_pin_set=not factory, pin_flags=flags, pin_tries=tries)


def _describe(card: Card, device: DeviceInfo) -> TokenInfo:
    """Selects the PIV application. A key that cannot be used is described all the same, with its ``problem``."""
    from yubikit.management import CAPABILITY
    from yubikit.support import get_name

    from medcrypt_hsm.tokens.yubikey.connection import card_errors

    serial = int(device.serial or 0)
    card.title = title(serial)
    firmware = ".".join(map(str, device.version))
    problem, tries, flags = "", None, frozenset[str]()
    enabled = device.config.enabled_capabilities.get(card.transport)
    if device.version < OLDEST:
        problem = t(
            "{token} has firmware {firmware}: without attestation its public keys cannot be read (4.3 can)",
            token=card.title,
            firmware=firmware,
        )
    elif enabled is not None and CAPABILITY.PIV not in enabled:
        problem = t("the PIV application of {token} is switched off: 'ykman config usb --enable PIV'", token=card.title)
    else:
        with card_errors(card, t("looking at its PIN")):
            tries, flags = _secrets(_select_piv(card, device.version))
    factory = _is_factory(device.version, flags)
    return TokenInfo(
        uri=format_uri(serial),
        label=card.title,
        serial=str(serial),
        model=get_name(device, None),
        manufacturer=MANUFACTURER,
        initialized=not factory,
        user_pin_set=not factory,
        pin_flags=flags,
        problem=problem,
        firmware=firmware,
        pin_tries=tries,
        unblocked_by="puk",
    )


def _is_factory(version: tuple[int, ...], flags: frozenset[str]) -> bool:
    """Before 5.3 nothing tells whether the PIN is the factory's, and trying would cost a try.

    Whoever changes the PIN by the book changes the management key as well.
    """
    return ("factory" if version >= METADATA else "management-factory") in flags


def _secrets(session: PivSession, before: frozenset[str] | None = None) -> tuple[int, frozenset[str]]:
    """How many tries the PIN has left, and flags of PIN, (after ``so-``) PUK and (``management-``) management key.

    ``before``: what was found a moment ago. The factory's management key, which before 5.3 is found by trying it, is
    not tried again: only who has the key that it has now could have put it back.
    """
    if session.version < METADATA:
        tries = session.get_pin_attempts()
        flags = _flags(tries, 3, "")
        if before is not None:
            return tries, flags | (before & {"management-factory"})
        return tries, flags | {"management-factory"} if _factory_management_key(session) else flags
    pin, puk = session.get_pin_metadata(), session.get_puk_metadata()
    flags = _flags(pin.attempts_remaining, pin.total_attempts, "")
    flags |= _flags(puk.attempts_remaining, puk.total_attempts, "so-")
    if pin.default_value:
        flags |= {"factory"}
    if puk.default_value and puk.attempts_remaining:  # a locked one does nothing for anybody
        flags |= {"so-factory"}
    if session.get_management_key_metadata().default_value:
        flags |= {"management-factory"}
    return pin.attempts_remaining, flags


def _flags(left: int, of: int, prefix: str) -> frozenset[str]:
    if left == 0:
        return frozenset({f"{prefix}locked"})
    if left == 1:
        return frozenset({f"{prefix}final-try"})
    return frozenset({f"{prefix}count-low"} if left < of else ())


def _factory_management_key(session: PivSession) -> bool:
    """By trying it, which costs nothing."""
    from yubikit.core import BadResponseError
    from yubikit.core.smartcard import ApduError
    from yubikit.piv import DEFAULT_MANAGEMENT_KEY

    try:
        session.authenticate(DEFAULT_MANAGEMENT_KEY)
    except (ApduError, BadResponseError):
        return False
    return True


def _by_whom(exc: TokenHeld) -> str:
    from medcrypt_hsm.tokens.yubikey.pcsc import holders

    programs = holders()
    if not programs:
        return exc.message
    if len(programs) > 1:
        return t("{reason} (one of {programs})", reason=exc.message, programs=", ".join(programs))
    return t("{reason} ({program})", reason=exc.message, program=programs[0])


def _unseen(problem: str) -> TokenInfo:
    return TokenInfo("", "", "", "YubiKey", MANUFACTURER, False, False, frozenset(), problem)
