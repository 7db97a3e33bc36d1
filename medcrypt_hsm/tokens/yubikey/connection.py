"""``Card``: an exclusive connection that yubikit can use; the one table from foreign errors to ours; and ``Piv``.

Foreign are: PC/SC results (a card pulled, held, a service stopped), status words of the card, and what yubikit makes of
answers that it cannot read. The first failure of a connection is kept: yubikit catches exceptions here and there, and
whatever it makes of one, the person is told what happened first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from yubikit.core import TRANSPORT, ApplicationNotAvailableError, BadResponseError, NotSupportedError, Version
from yubikit.core.smartcard import AID, SW, ApduError, SmartCardConnection, SmartCardProtocol
from yubikit.piv import MANAGEMENT_KEY_TYPE, PivSession

from medcrypt_hsm.errors import MedcryptError, NotTouched, TokenAbsent, TokenError, TokenRemoved, TokenUnfit
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.yubikey import pcsc

_NOTICED, _PAUSE = 1.0, 0.02  # seconds; pcscd looks at a reader every 0.4
_FULL = (SW.NO_SPACE, SW.MEMORY_FAILURE)
# Whatever yubikit raises, for answers that it cannot read ValueError and LookupError too.
_FOREIGN = (ApduError, BadResponseError, ApplicationNotAvailableError, NotSupportedError, ValueError, LookupError)
_PIV_OFF_HINT = "switch it on with 'ykman config usb --enable PIV'"


class Card(SmartCardConnection):
    """The card in ``reader``, for this program alone. ``title`` names it in errors. Raises TokenError."""

    def __init__(self, reader: str) -> None:
        self.reader = reader
        self.title = t("the YubiKey in reader '{reader}'", reader=reader)
        self.lock = RLock()  # two threads' APDUs must not mix
        self.closed = False
        self.failure: MedcryptError | None = None
        try:
            self._channel = pcsc.Channel(reader)
        except pcsc.PcscError as exc:
            raise pcsc.connecting(exc, self.title) from exc

    @property
    def transport(self) -> TRANSPORT:
        return TRANSPORT.USB

    def send_and_receive(self, apdu: bytes) -> tuple[bytes, int]:
        """Bytes and status word. Raises what ``failure`` is from then on."""
        if self.failure is not None:
            raise self.failure
        try:
            answer = self._channel.transmit(apdu)
        except pcsc.PcscError as exc:
            raise self._fail(exc) from exc
        if len(answer) < 2:  # no status word
            raise self._fail(None)
        return answer[:-2], int.from_bytes(answer[-2:], "big")

    def _fail(self, exc: pcsc.PcscError | None) -> MedcryptError:
        """Keep the failure, and let the reader go: while we hold it, a card that is put back cannot be reached."""
        self.failure = self._lost(exc)
        self._channel.close()
        return self.failure

    def _lost(self, exc: pcsc.PcscError | None) -> MedcryptError:
        if exc is not None and exc.no_service:
            words = t("{token} is out of reach: the smart card service (pcscd) was stopped", token=self.title)
            return TokenAbsent(words, pcsc.NO_SERVICE_HINT)
        if (exc is not None and exc.no_card) or self._goes():
            return TokenRemoved(t("{token} was removed", token=self.title))
        if exc is not None:
            words = t("{token} does not answer ({reason})", token=self.title, reason=exc)
        else:
            words = t("{token} does not answer", token=self.title)
        return TokenError(words, "take it out, put it back, and try again")

    def _goes(self) -> bool:
        """Is the card gone? A command during which it is pulled fails before the service has noticed why."""
        give_up = time.monotonic() + _NOTICED
        while self._channel.present():
            if time.monotonic() > give_up:
                return False
            time.sleep(_PAUSE)
        return True

    @property
    def alive(self) -> bool:
        """Whether this connection still reaches the card."""
        try:
            self.refuse_gone()
        except MedcryptError:
            return False
        return not self.closed

    def refuse_gone(self) -> None:
        """What was read before is not given out for a card that is not there. Raises ``failure``."""
        if self.failure is not None:
            raise self.failure
        if not self.closed:
            try:
                self._channel.look()
            except pcsc.PcscError as exc:
                raise self._fail(exc) from exc

    def close(self) -> None:
        """Reset the card and let it go. A second close does nothing."""
        if not self.closed:
            self.closed = True
            self._channel.close()


class Piv(PivSession):
    """The PIV application, selected anew: one command to the card where yubikit's own way in takes three.

    ``version`` is what the device said of itself. What kind of management key it has is asked when that is needed.
    """

    def __init__(self, card: Card, version: Version) -> None:  # in place of yubikit's, which asks for both
        self.protocol = SmartCardProtocol(card)
        self.protocol.select(AID.PIV)
        self.protocol.configure(version)
        self._version = version
        self._current_pin_retries = self._max_pin_retries = 3

    @property
    def management_key_type(self) -> MANAGEMENT_KEY_TYPE:
        kind: MANAGEMENT_KEY_TYPE | None = vars(self).get("_management_key_type")
        if kind is None:
            try:
                kind = self.get_management_key_metadata().key_type
            except NotSupportedError:  # before 5.3
                kind = MANAGEMENT_KEY_TYPE.TDES
            self._management_key_type = kind
        return kind


def translate(exc: Exception, card: Card, doing: str, *, touch: bool = False) -> MedcryptError:
    """Our error for a foreign one. ``touch``: it was asked of a key that waits for a finger."""
    if card.failure is not None:
        return _while(card.failure, doing)
    if isinstance(exc, ApduError):
        if exc.sw == SW.SECURITY_CONDITION_NOT_SATISFIED and touch:
            return NotTouched(t("{token} was not touched in time while {doing}", token=card.title, doing=doing))
        if exc.sw == SW.SECURITY_CONDITION_NOT_SATISFIED:
            return TokenError(
                t("{token} no longer counts the PIN as given while {doing}", token=card.title, doing=doing),
                "run the command again",
            )
        if exc.sw in _FULL:
            return TokenUnfit(
                t("{token} is full", token=card.title), "remove certificates or objects that are not needed from it"
            )
        return TokenError(
            t("{token} refused {doing} (status {status:04X})", token=card.title, doing=doing, status=exc.sw),
            "run 'medcrypt token check URI'",
        )
    if isinstance(exc, ApplicationNotAvailableError):
        return TokenUnfit(t("the PIV application of {token} is switched off", token=card.title), _PIV_OFF_HINT)
    if isinstance(exc, NotSupportedError):
        return TokenUnfit(t("{token} does not offer what is needed for {doing}", token=card.title, doing=doing))
    return TokenError(
        t("{token} answered something unexpected while {doing}", token=card.title, doing=doing),
        "run 'medcrypt token check URI'",
    )


def _while(failure: MedcryptError, doing: str) -> MedcryptError:
    if isinstance(failure, TokenRemoved):
        return TokenRemoved(t("{message} while {doing}", message=failure.message, doing=doing))
    return failure


@contextmanager
def card_errors(card: Card, doing: str, *, touch: bool = False) -> Iterator[None]:
    """The card's lock, and our errors instead of yubikit's. ``doing`` completes "failed while …"."""
    if card.closed:
        raise RuntimeError(f"{card.title} was closed before {doing}")
    with card.lock:
        try:
            card.refuse_gone()
            yield
        except _FOREIGN as exc:
            raise translate(exc, card, doing, touch=touch) from exc
        except TokenError as exc:
            if exc is card.failure:
                raise _while(exc, doing) from exc
            raise
