"""What an agent does for one connection: whole operations of the library, each with its audit entry.

In: requests that were checked (requests.py), the unlocked vault. Out: answers. No operation takes or gives a key, a
handle, a signature, a nonce, or an object of the token: nonces, entries, heads and anchors are made here, from what the
vault itself says. Not here: sockets that wait, and time (agent.py); files (transfer.py).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from medcrypt_hsm.crypto.secret import wipe_text
from medcrypt_hsm.errors import MedcryptError, TokenError, UsageError
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.decrypt import Opened, decrypt
from medcrypt_hsm.messages.months import MonthsOpened, is_archived
from medcrypt_hsm.month import Month
from medcrypt_hsm.session import frames, said, transfer
from medcrypt_hsm.session.frames import ProtocolError, encode
from medcrypt_hsm.vault.audit.filter import EntryFilter
from medcrypt_hsm.vault.opening import noted

if TYPE_CHECKING:
    from medcrypt_hsm.api.vault import Vault
    from medcrypt_hsm.messages.patients import NewPairing
    from medcrypt_hsm.session.desk import Desk
    from medcrypt_hsm.session.whose import Peer
    from medcrypt_hsm.vault.log import Pages
    from medcrypt_hsm.vault.unlocked import Unlocked

Answer = dict[str, Any]
_ROWS = 1000  # results that one frame holds at most; and those whose texts together reach frames.PIECE
ARCHIVE = "run the command again with --no-session, or start the session with --archive"


class Service:
    """One connection: a command, with its requests one after the other."""

    def __init__(self, desk: Desk, connection: socket.socket, peer: Peer) -> None:
        self.desk = desk
        self.peer = peer
        self.elsewhere: dict[str, int] = {}  # what this command was told of other terminals
        self._connection = connection
        self._pages: Pages | None = None
        self._export = ""  # the name of the file that an export which has not ended is written to
        self.own: Vault | None = None  # what one touch has unlocked for this connection alone
        self.kept: ExitStack | None = None

    def answer(self, kind: int, asked: dict[str, Any], fds: Sequence[int]) -> bytes:
        """The frame that answers. Raises ProtocolError for what has no place here, OSError where nobody listens."""
        do = OPERATIONS.get(kind)
        if do is None:
            raise ProtocolError("no request")
        try:
            if kind in (frames.SEND_FILE, frames.TAKE_FILE):
                answer = transfer.stream(self, kind, asked, fds)
            else:
                with self.desk.turn(self) as vault:
                    answer = do(self, vault, asked)
                # Told when others have their turn: a command that does not listen stops nobody.
                self._tell(answer.pop("results", ()))
            return encode(frames.DONE, answer)
        except (ProtocolError, OSError):
            raise
        except Exception as exc:
            self.desk.judge(exc)
            return encode(frames.ERROR, said.error_value(exc))

    def say(self, kind: int, value: Answer) -> None:
        """A frame before the answer."""
        self._connection.sendall(encode(kind, value))

    def month_opened(self, opened: MonthsOpened) -> None:
        """Said before anything else is done, so that its checkpoint is not lost."""
        self.say(frames.OPENED, _months(opened))

    def await_kept(self) -> bool:
        """Whether the command says that what it got is where it belongs."""
        self._connection.settimeout(60)
        found = frames.receive(self._connection, {frames.KEPT: frames.SHORT})
        self._connection.settimeout(None)
        return found is not None and not found[1] and not found[2]

    def is_gone(self) -> bool:
        """Has the command gone away, or said something in the middle of an operation?"""
        with suppress(BlockingIOError):
            self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return True
        return False

    def close(self) -> None:
        """The connection's end: an export that was not kept is one that failed."""
        try:
            if self._export:
                with suppress(Exception), self.desk.turn(self) as vault:
                    from medcrypt_hsm.vault.audit.actions import AUDIT_EXPORT
                    from medcrypt_hsm.vault.change import enter_failure

                    gone = MedcryptError("the command that wrote it has ended")
                    enter_failure(vault._unlocked, AUDIT_EXPORT, self._export, gone)
        finally:
            if self.kept is not None:
                self.kept.close()

    # Messages

    def _encrypt(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        texts = vault.encrypt(asked["patient"], asked["text"])
        return {"messages": texts, "month": str(vault.month)}

    def _decrypt(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        month = _month(asked["month"])
        found = _messages(asked["texts"])
        with vault._vault.working() as unlocked:
            self.refuse_archive(unlocked, asked["archive"], month)
            return {"results": vault.decrypt(found, archive=asked["archive"], month=month)}

    def _import(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        found = _messages(asked["texts"])
        dates = [(_moment(written), _moment(edited)) for written, edited in asked["dates"]]
        if len(dates) != len(found):
            raise ProtocolError("another number of dates")
        with vault._vault.working() as unlocked:
            self.refuse_archive(unlocked, True, None)
            vault._vault.open_month_if_due()
            return {"results": decrypt(unlocked, found, archive=True, month=_month(asked["month"]), dates=dates)}

    def _tell(self, results: Sequence[Opened]) -> None:
        """In pieces, so that the command reads one while the next is written."""
        rows: list[object] = []
        size = 0
        for one in results:
            error = None if one.error is None else said.error_value(one.error)
            rows.append([*one[:7], error, one.seen])
            size += 100 + len(one.text or "")
            if len(rows) == _ROWS or size > frames.PIECE:
                self.say(frames.SOME, {"results": rows})
                rows, size = [], 0
        if rows:
            self.say(frames.SOME, {"results": rows})

    def refuse_archive(self, unlocked: Unlocked, wanted: bool, month: Month | None) -> None:
        """Raises UsageError where archived months are wanted, and the session was not started for them."""
        wanted = wanted or (month is not None and is_archived(unlocked, month))
        if wanted and not self.desk.archive:
            raise UsageError("this session was not started for archived months, imports and exports", ARCHIVE)

    # Patients, months, the vault

    def _patients(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        return {"pairings": [_fields(pairing) for pairing in vault.patients.list()]}

    def _patient(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        return {"pairings": [_fields(pairing) for pairing in vault.patients.show(asked["patient"])]}

    def _open_month(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        opened = vault.months.open()
        return {"opened": None if opened is None else _months(opened)}

    def _status(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        from medcrypt_hsm.session import values

        return {"status": values.value_of(vault.status())}

    # The log

    def _log(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        from medcrypt_hsm.vault.audit.actions import AUDIT_SHOW
        from medcrypt_hsm.vault.log import Pages

        where = EntryFilter(**asked["filter"])
        with vault._vault.working() as unlocked:
            unlocked.record(AUDIT_SHOW, detail=where.told())
            self._pages = Pages(unlocked, where)
        return self._page(vault)

    def _start_export(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        from medcrypt_hsm.vault.audit.actions import AUDIT_EXPORT, INTENDED
        from medcrypt_hsm.vault.export import FORMATS
        from medcrypt_hsm.vault.log import Pages

        self.refuse_archive(vault._unlocked, True, None)
        where = EntryFilter(**asked["filter"])
        if asked["format"] not in FORMATS or self._export or not asked["name"]:
            raise ProtocolError("no export")
        with vault._vault.working() as unlocked:
            with unlocked.change(AUDIT_EXPORT, asked["name"], outcome=INTENDED) as change:
                change.detail |= {"format": asked["format"]} | where.told()
            self._export, self._pages = asked["name"], Pages(unlocked, where)
        return self._page(vault)

    def _more(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        return self._page(vault)

    def _page(self, vault: Vault) -> Answer:
        if self._pages is None:
            raise ProtocolError("no log was asked for")
        with vault._vault.working(anchor=False) as unlocked:
            page = self._pages.next(unlocked)
        more = not self._pages.at_end
        if not more:
            self._pages = None
        entries = [
            [sequence, e.time, e.actor, e.token, e.action, e.subject, e.outcome, dict(e.detail), hash_.hex()]
            for sequence, e, hash_ in page
        ]
        return {"entries": entries, "more": more}

    def _kept(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        if not self._export or self._pages is not None:
            raise ProtocolError("there is nothing to keep")
        self._export = ""
        return {}

    def _verify(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        from medcrypt_hsm.session import values
        from medcrypt_hsm.vault.audit.checkpoints import Checkpoint

        notes = [Checkpoint.parse(note.encode()) for note in asked["since"]]
        return {"verified": values.value_of(vault.log.verify(notes))}

    def _checkpoint(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        return {"checkpoint": vault.log.checkpoint()}

    # Pairing, with the PIN, where the token serves one program

    def _add(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        self._check_pin(vault._unlocked, asked)
        made = vault.patients.add(
            asked["patient"], label=asked["label"], protocol=asked["protocol"], unconfirmed=asked["unconfirmed"]
        )
        return _made(made)

    def _confirm(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        self._check_pin(vault._unlocked, asked)
        return {"pairing": _fields(vault.patients.confirm(asked["patient"], asked["code"]))}

    def _qr(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        self._check_pin(vault._unlocked, asked)
        return _made(vault.patients.qr(asked["patient"]))

    def _repair(self, vault: Vault, asked: dict[str, Any]) -> Answer:
        self._check_pin(vault._unlocked, asked)
        return _made(vault.patients.repair(asked["patient"]))

    def _check_pin(self, unlocked: Unlocked, asked: dict[str, Any]) -> None:
        """The token itself is asked whether this is its PIN. Raises PinError, TokenError."""
        check = getattr(unlocked.token, "check_pin", None)
        pin = asked.pop("pin")
        try:
            if check is None:
                raise TokenError("a session does not do that", "run the command again with --no-session")
            with noted(unlocked.file.location, unlocked.registered.name, unlocked.clock.machine):
                check(pin)
        finally:
            wipe_text(pin)


def _messages(texts: Sequence[str | None]) -> list[wire.Message | wire.Bad]:
    try:
        return wire.exactly(texts)
    except ValueError:
        raise ProtocolError("not a wire text") from None


def _month(text: str | None) -> Month | None:
    try:
        return None if text is None else Month.parse(text)
    except ValueError:
        raise ProtocolError("not a month") from None


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise ProtocolError("not a time") from None


def _months(opened: MonthsOpened) -> Answer:
    return {
        "months": [str(month) for month in opened.months],
        "pairings": opened.pairings,
        "checkpoint": opened.checkpoint,
    }


def _fields(pairing: Any) -> Answer:
    return {
        **{name: getattr(pairing, name) for name in pairing._fields},
        "pairing": pairing.pairing.hex(),
    }


def _made(made: NewPairing) -> Answer:
    return {
        "pairing": _fields(made.pairing),
        "payload": made.payload,
        "expires": made.expires.isoformat(),
        "weak": made.weak,
    }


OPERATIONS: dict[int, Callable[[Service, Vault, dict[str, Any]], Answer]] = {
    frames.ENCRYPT: Service._encrypt,
    frames.DECRYPT: Service._decrypt,
    frames.IMPORT: Service._import,
    frames.PATIENTS: Service._patients,
    frames.PATIENT: Service._patient,
    frames.MONTH: Service._open_month,
    frames.VAULT: Service._status,
    frames.LOG: Service._log,
    frames.EXPORT: Service._start_export,
    frames.MORE: Service._more,
    frames.KEPT: Service._kept,
    frames.VERIFY: Service._verify,
    frames.CHECKPOINT: Service._checkpoint,
    frames.ADD: Service._add,
    frames.CONFIRM: Service._confirm,
    frames.QR: Service._qr,
    frames.REPAIR: Service._repair,
    frames.SEND_FILE: Service._encrypt,  # streamed by transfer.py
    frames.TAKE_FILE: Service._decrypt,
}
