"""PC/SC as this backend needs it: readers, and one exclusive connection to the card in one of them.

Exclusive, so that no other program can use the PIN that is verified in it; and the card is reset on leaving, so that no
other program inherits it. Other programs are never disturbed: a card that one of them holds is left to it, and
``holders`` says which that may be. The only user of pyscard.
"""

from __future__ import annotations

import os
from pathlib import Path

from smartcard import scard

from medcrypt_hsm.errors import TokenAbsent, TokenError, TokenHeld
from medcrypt_hsm.sentences import t

YUBIKEY_READER = "yubikey"  # every CCID reader of the vendor's has it in its name; other readers are left alone
NO_SERVICE_HINT = "start it, for example with 'systemctl start pcscd', and see 'medcrypt token list'"
_LIBRARY = "libpcsclite.so"


def _codes(*names: str) -> frozenset[int]:
    return frozenset(getattr(scard, f"SCARD_{name}") & 0xFFFFFFFF for name in names)


_NO_SERVICE = _codes("E_NO_SERVICE", "E_SERVICE_STOPPED", "E_INVALID_HANDLE", "E_SERVER_TOO_BUSY")
_DENIED = _codes("W_SECURITY_VIOLATION", "E_NO_ACCESS")
_HELD = _codes("E_SHARING_VIOLATION")
_NO_CARD = _codes(
    "E_NO_SMARTCARD", "W_REMOVED_CARD", "E_READER_UNAVAILABLE", "E_UNKNOWN_READER", "W_RESET_CARD",
    "E_NO_READERS_AVAILABLE",
)  # fmt: skip


class PcscError(Exception):
    """A PC/SC call that failed. ``code`` is its unsigned result; the properties say what it means."""

    def __init__(self, code: int) -> None:
        self.code = code & 0xFFFFFFFF
        super().__init__(scard.SCardGetErrorMessage(code).rstrip(". "))

    @property
    def no_service(self) -> bool:
        return self.code in _NO_SERVICE

    @property
    def held(self) -> bool:
        """Another program has the card."""
        return self.code in _HELD

    @property
    def denied(self) -> bool:
        """This user may not use the service: polkit's rule for whoever does not sit at the machine."""
        return self.code in _DENIED

    @property
    def no_card(self) -> bool:
        """Nothing in the reader, no such reader any more, or another card than before."""
        return self.code in _NO_CARD


def _check(code: int) -> None:
    if code != scard.SCARD_S_SUCCESS:
        raise PcscError(code)


class _Context:
    """A connection to the smart card service. A new one each time: one that outlives the service is dead."""

    def __enter__(self) -> int:
        code, self._context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
        _check(code)
        return int(self._context)

    def __exit__(self, *exc: object) -> None:
        scard.SCardReleaseContext(self._context)


def readers() -> list[str]:
    """The readers that are YubiKeys by their name. Raises PcscError when the service is not there."""
    with _Context() as context:
        code, names = scard.SCardListReaders(context, [])
        if code & 0xFFFFFFFF in _codes("E_NO_READERS_AVAILABLE"):
            return []
        _check(code)
    return [name for name in names if YUBIKEY_READER in name.lower()]


class Channel:
    """The card in ``reader``, for this program alone, until ``close``. Raises PcscError."""

    def __init__(self, reader: str) -> None:
        self._context = _Context()
        context = self._context.__enter__()
        protocols = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        code, self._card, protocol = scard.SCardConnect(context, reader, scard.SCARD_SHARE_EXCLUSIVE, protocols)
        if code != scard.SCARD_S_SUCCESS:
            self._context.__exit__()
            raise PcscError(code)
        self._closed = False
        self._header = scard.SCARD_PCI_T0 if protocol == scard.SCARD_PROTOCOL_T0 else scard.SCARD_PCI_T1

    def transmit(self, apdu: bytes) -> bytes:
        """One command APDU to the card; what it answers, its status word at the end (ISO/IEC 7816-3)."""
        code, answer = scard.SCardTransmit(self._card, self._header, list(apdu))
        _check(code)
        return bytes(byte & 0xFF for byte in answer)

    def look(self) -> None:
        """Raises PcscError unless this very card is still there, unreset."""
        code, *_ = scard.SCardStatus(self._card)
        _check(code)

    def present(self) -> bool:
        try:
            self.look()
        except PcscError:
            return False
        return True

    def close(self) -> None:
        """Reset the card and let it go; one that is gone needs neither. A second close does nothing."""
        if not self._closed:
            self._closed = True
            scard.SCardDisconnect(self._card, scard.SCARD_RESET_CARD)
            self._context.__exit__()


def no_service() -> TokenAbsent:
    return TokenAbsent("the smart card service (pcscd) is not running", NO_SERVICE_HINT)


def connecting(exc: PcscError, title: str) -> TokenError:
    """Our error for a connection that was not made."""
    if exc.no_service:
        return no_service()
    if exc.denied:
        hint = "log in at the machine itself, or have polkit allow 'org.debian.pcsc-lite.access_card' and 'access_pcsc'"
        return TokenError("this user may not use the smart card service (pcscd)", hint)
    if exc.held:
        return TokenHeld(t("{token} is in use by another program", token=title))
    if exc.no_card:
        return TokenAbsent(t("{token} is not plugged in", token=title))
    return TokenError(
        t("{token} cannot be connected to ({reason})", token=title, reason=exc),
        "take it out, put it back, and try again",
    )


def holders() -> list[str]:
    """Programs that have the PC/SC library loaded, this one apart, as ``name id``: one of them holds the card.

    Only those that /proc lets this user see. Looks at every process of the machine, so it is asked once, at the end.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) != os.getpid() and _LIBRARY in (process / "maps").read_text(errors="replace"):
                found.append(f"{(process / 'comm').read_text(errors='replace').strip()} {process.name}")
        except OSError:  # another user's, or just ended
            continue
    return sorted(found)
