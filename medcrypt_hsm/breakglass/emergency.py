"""What is done without any of the vault's tokens: request, approve, drill, decrypt, recover.

    from medcrypt_hsm import emergency

In: a vault's name, a token's URI, a PIN callback, files from elsewhere. Out: signed statements, texts, or an unlocked
vault on its new token. What fails leaves a note beside the vault, as a wrong PIN does. Not here: any of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medcrypt_hsm.breakglass import approve as approvals
from medcrypt_hsm.breakglass import drill as drills
from medcrypt_hsm.breakglass import recover as recovery
from medcrypt_hsm.breakglass import request as requests
from medcrypt_hsm.breakglass.approve import Reviewed
from medcrypt_hsm.breakglass.journal import Journal
from medcrypt_hsm.breakglass.recover import Emergency
from medcrypt_hsm.breakglass.request import RequestOptions
from medcrypt_hsm.errors import MedcryptError, UsageError, VaultError
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.lifecycle.shares import ShareRecord
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.messages.wire import Bad, Message
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import timestamp
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import PinPrompt, Token
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.tokens.uri import stored_uri
from medcrypt_hsm.vault import notes
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_DECRYPT, BREAKGLASS_RECOVER, BREAKGLASS_REQUEST
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.statements import Approval, Drill, Request, Signed
from medcrypt_hsm.vault.audit.trust_custody import CEREMONY_BYTES, BreakGlass
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.store import atomic
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.unlocked import Unlocked

_ANY = TokenOptions()
T = TypeVar("T", Request, Approval, Drill)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and how their token is reached. ``uri`` may be left out where a request names the token."""

    pin: PinPrompt | TokenAccess
    actor: str
    uri: str = ""
    clock: Clock = system_clock

    def open(self, uri: str = "") -> Token:
        return TokenAccess.of(self.pin).open(self.uri or stored_uri(uri))


def request(vault: Location, hand: Actor, asked: RequestOptions, journal: Journal) -> Signed[Request]:
    """A request to the custodians of ``vault``. Its making is noted beside the vault."""
    asked.check()
    with closing(open_store(vault)) as file, _noted(vault, BREAKGLASS_REQUEST, hand), hand.open() as token:
        made = requests.make(file, token, asked, journal, hand.clock())
    with suppress(VaultError):
        notes.write(vault, BREAKGLASS_REQUEST, timestamp(hand.clock()), request=made.id.hex(), actor=hand.actor)
    return made


def approve(data: bytes, hand: Actor, journal: Journal, agree: Callable[[Reviewed], None]) -> Signed[Approval]:
    """A custodian's approval of the request in ``data``; ``agree`` is shown what it is for, and raises to stop."""
    asked = statements.read(data, Request)
    with hand.open() as token:
        reviewed = approvals.review(token, asked, journal, hand.clock())
        agree(reviewed)
        return approvals.approve(token, reviewed, journal, hand.actor, hand.clock())


def drill(hand: Actor, journal: Journal, ceremony: bytes | None = None) -> tuple[Signed[Drill], ShareRecord]:
    """That the share on a custodian's token opens and matches; ``ceremony`` where it holds those of several vaults."""
    with hand.open() as token:
        return drills.alone(token, journal, hand.actor, hand.clock(), ceremony)


def decrypt(
    vault: Location,
    hand: Actor,
    asked: Signed[Request],
    given: Sequence[Signed[Approval]],
    found: Sequence[Message | Bad],
    *,
    month: Month | None = None,
    since: Sequence[Checkpoint] = (),
) -> list[Opened]:
    """One patient's messages, by consent of the custodians; the request is used then."""
    by = statements.requested_by(asked)
    with (
        closing(open_store(vault)) as file,
        _noted(vault, BREAKGLASS_DECRYPT, hand, asked),
        hand.open(by.token["uri"]) as token,
    ):
        return recovery.read(file, Emergency(asked, given, token, since), found, month, hand.actor, hand.clock)


def recover(
    vault: Location,
    hand: Actor,
    asked: Signed[Request],
    given: Sequence[Signed[Approval]],
    *,
    since: Sequence[Checkpoint] = (),
    options: TokenOptions = _ANY,
) -> tuple[Unlocked, Certificate]:
    """The practice on the requester's token, which serves as ``options`` say; every other token is retired.

    The caller locks what it gets.
    """
    by = statements.requested_by(asked)
    file = open_store(vault)
    try:
        with _noted(vault, BREAKGLASS_RECOVER, hand, asked):
            token = hand.open(by.token["uri"])
            try:
                emergency = Emergency(asked, given, token, since, options)
                return recovery.recover(file, emergency, hand.actor, hand.clock)
            except BaseException:
                token.close()
                raise
    except BaseException:
        file.close()
        raise


# Statements travel as files


def read_statement(path: Path, kind: type[T]) -> Signed[T]:
    """Not believed for where it came from. Raises UsageError, or Malformed for what is none."""
    return statements.read(file_that_was_sent(path), kind)


def file_that_was_sent(path: Path) -> bytes:
    """As far as a statement can be long. Raises UsageError."""
    try:
        with path.open("rb") as file:
            return file.read(statements.LARGEST + 1)
    except OSError as exc:
        raise UsageError(
            t("{path} cannot be read: {reason}", path=path, reason=exc.strerror), "name the file that was sent"
        ) from exc


def check_new(out: Path) -> None:
    """Before anybody is asked for a PIN: can there be a new file of this name? Raises UsageError."""
    atomic.check_new(out)


def write(out: Path, signed: Signed[T]) -> None:
    """A new file of mode 0600. Raises UsageError."""
    atomic.write_new(out, signed.file())


def ceremony_id(text: str) -> bytes:
    """As people write it. Raises UsageError."""
    try:
        found = bytes.fromhex(text)
        if len(found) != CEREMONY_BYTES:
            raise ValueError("another length")
    except ValueError as exc:
        raise UsageError(
            t("{text!r} is no ceremony's id", text=text), "it has 12 hex digits, for example 0123456789ab"
        ) from exc
    return found


def custodians_of(vault: Location) -> BreakGlass:
    """Whom a request to ``vault`` goes to; not verified. Raises UsageError where it has none."""
    with closing(open_store(vault)) as file:
        found = peek(file).breakglass
    if found is None:
        raise UsageError("this vault has no custodians", "hold a ceremony: 'medcrypt breakglass ceremony'")
    return found


@contextmanager
def _noted(vault: Location, what: str, hand: Actor, asked: Signed[Request] | None = None) -> Iterator[None]:
    """What fails leaves a note beside the vault: there may be no key to enter it in the log with."""
    try:
        yield
    except MedcryptError as exc:
        named = {} if asked is None else {"request": asked.id.hex()}
        with suppress(VaultError, OSError):  # the reason matters more than the note
            notes.write(vault, f"{what}: {exc.name}", timestamp(hand.clock()), actor=hand.actor, **named)
        raise
