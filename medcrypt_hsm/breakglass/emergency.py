"""What is done without any of the vault's tokens: request, approve, drill, decrypt, recover.

    from medcrypt_hsm import emergency

In: a vault's name, a token's URI, a PIN callback, files from elsewhere. Out: signed statements, texts, or an unlocked
vault on its new token. What fails leaves a note beside the vault, as a wrong PIN does. Not here: any rule of
break-glass (request.py, approve.py, recover.py, vault/audit/consent.py).
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
from medcrypt_hsm.given import read_given
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


def request(vault: Location, actor: Actor, options: RequestOptions, journal: Journal) -> Signed[Request]:
    """A request to the custodians of ``vault``. Its making is noted beside the vault."""
    options.check()
    with closing(open_store(vault)) as file, _noted(vault, BREAKGLASS_REQUEST, actor), actor.open() as token:
        made = requests.make(file, token, options, journal, actor.clock())
    with suppress(VaultError):
        notes.write(vault, BREAKGLASS_REQUEST, timestamp(actor.clock()), request=made.id.hex(), actor=actor.actor)
    return made


def approve(data: bytes, actor: Actor, journal: Journal, agree: Callable[[Reviewed], None]) -> Signed[Approval]:
    """A custodian's approval of the request in ``data``; ``agree`` is shown what it is for, and raises to stop."""
    request = statements.read(data, Request)
    with actor.open() as token:
        reviewed = approvals.review(token, request, journal, actor.clock())
        agree(reviewed)
        return approvals.approve(token, reviewed, journal, actor.actor, actor.clock())


def drill(actor: Actor, journal: Journal, ceremony: bytes | None = None) -> tuple[Signed[Drill], ShareRecord]:
    """That the share on a custodian's token opens and matches; ``ceremony`` where it holds those of several vaults."""
    with actor.open() as token:
        return drills.alone(token, journal, actor.actor, actor.clock(), ceremony)


def decrypt(
    vault: Location,
    actor: Actor,
    request: Signed[Request],
    given: Sequence[Signed[Approval]],
    found: Sequence[Message | Bad],
    *,
    month: Month | None = None,
    since: Sequence[Checkpoint] = (),
) -> list[Opened]:
    """One patient's messages, by consent of the custodians; the request is used then."""
    by = statements.requested_by(request)
    with (
        closing(open_store(vault)) as file,
        _noted(vault, BREAKGLASS_DECRYPT, actor, request),
        actor.open(by.token["uri"]) as token,
    ):
        return recovery.read(file, Emergency(request, given, token, since), found, month, actor.actor, actor.clock)


def recover(
    vault: Location,
    actor: Actor,
    request: Signed[Request],
    given: Sequence[Signed[Approval]],
    *,
    since: Sequence[Checkpoint] = (),
    options: TokenOptions = _ANY,
    end_session: Callable[[], object] = lambda: None,
) -> tuple[Unlocked, Certificate]:
    """The practice on the requester's token, which serves as ``options`` say; every other token is retired.

    The caller locks what it gets.
    """
    by = statements.requested_by(request)
    file = open_store(vault)
    try:
        with _noted(vault, BREAKGLASS_RECOVER, actor, request):
            token = actor.open(by.token["uri"])
            try:
                emergency = Emergency(request, given, token, since, options, end_session)
                return recovery.recover(file, emergency, actor.actor, actor.clock)
            except BaseException:
                token.close()
                raise
    except BaseException:
        file.close()
        raise


# Statements travel as files


def read_statement(path: Path, kind: type[T]) -> Signed[T]:
    """A statement from a file; where the file came from proves nothing. Raises UsageError, or Malformed."""
    return statements.read(file_that_was_sent(path), kind)


def file_that_was_sent(path: Path) -> bytes:
    """Its bytes, no more of them than a statement can have. Raises UsageError."""
    try:
        return read_given(path, statements.LARGEST)
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
def _noted(vault: Location, what: str, actor: Actor, request: Signed[Request] | None = None) -> Iterator[None]:
    """What fails leaves a note beside the vault: there may be no key to enter it in the log with."""
    try:
        yield
    except MedcryptError as exc:
        named = {} if request is None else {"request": request.id.hex()}
        with suppress(VaultError, OSError):  # the reason matters more than the note
            notes.write(vault, f"{what}: {exc.name}", timestamp(actor.clock()), actor=actor.actor, **named)
        raise
