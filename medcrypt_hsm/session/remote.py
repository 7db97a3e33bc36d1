"""``SessionVault``: what a session offers of a vault, to programs as ``Vault`` offers it.

    with SessionVault.find("practice.db") as vault:
        for message in vault.decrypt(pasted_text):
            print(message.patient, message.text)

In: a vault's path. Out: the same frozen values and the same errors as from an open vault, but the work is done, and
recorded, in the agent. What strangers wrote, chats and archives, is parsed here. Not here: everything else that a vault
can do; for that it is opened with its PIN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcrypt_hsm.api.chats import find_in_export
from medcrypt_hsm.errors import Malformed, SessionEnded
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.messages.months import MonthsOpened
from medcrypt_hsm.messages.patients import NewPairing, Pairing
from medcrypt_hsm.month import Month
from medcrypt_hsm.session import client, frames, said
from medcrypt_hsm.session.client import Line
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.store.rows import Location, Named
from medcrypt_hsm.vault.store.store import open_store

if TYPE_CHECKING:
    from medcrypt_hsm.api.base import OnMonthOpened
    from medcrypt_hsm.messages.chats.conversation import Conversation, Read, Summary
    from medcrypt_hsm.messages.files import FileDone, Progress
    from medcrypt_hsm.messages.plan import Dates
    from medcrypt_hsm.messages.wire import Bad, Message
    from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
    from medcrypt_hsm.vault.audit.entries import Entry
    from medcrypt_hsm.vault.audit.filter import EntryFilter
    from medcrypt_hsm.vault.audit.verify import Verified
    from medcrypt_hsm.vault.export import Exported
    from medcrypt_hsm.vault.inspection import Status


class SessionVault:
    """A vault that a session keeps unlocked, for this terminal. Use as a context manager: leaving hangs up."""

    def __init__(self, line: Line, on_month_opened: OnMonthOpened | None = None) -> None:
        self.line = line
        self.month: Month | None = None
        """Of the newest encryption: the month under which it was encrypted."""
        if on_month_opened is not None:
            tell = on_month_opened
            line.on_opened = lambda value: tell(_opened(vars(value)))

    @classmethod
    def find(
        cls, path: Named, *, on_month_opened: OnMonthOpened | None = None, touch: client.Touch | None = None
    ) -> SessionVault | None:
        """Of the session that serves this terminal; None where none does. Raises Failed for one that is silent."""
        line = client.find(Location.parse(path).text)
        if line is None:
            return None
        if not line.serves:
            line.close()
            return None
        line.touch = touch
        return cls(line, on_month_opened)

    def __enter__(self) -> SessionVault:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the session goes on."""
        self.line.close()

    @property
    def token_name(self) -> str:
        """The short name of the token in use."""
        return self.line.token

    # Messages

    def encrypt(self, patient_id: str, text: str) -> list[str]:
        """Wire texts for a patient, one a part."""
        answer = self.line.ask(frames.ENCRYPT, {"patient": patient_id, "text": text})
        with _as_promised():
            self.month = Month.parse(answer["month"])
            return [str(message) for message in answer["messages"]]

    def decrypt(
        self, text: str | Sequence[Message | Bad], *, archive: bool = False, month: Month | None = None
    ) -> list[Opened]:
        """Every message in any text, in order, each with its text or error; at most 10,000 at once.

        ``archive`` needs a session that was started for it.
        """
        texts = client.candidates(text) if isinstance(text, str) else [_wire_text(one) for one in text]
        if not texts:
            raise Malformed("there is no MedCrypt message in this text")
        client.check_bounds(texts)
        asked = {"texts": texts, "archive": archive, "month": None if month is None else str(month)}
        return self._results(frames.DECRYPT, asked, () if isinstance(text, str) else text)

    def _results(self, kind: int, asked: dict[str, Any], found: Sequence[Message | Bad]) -> list[Opened]:
        results: list[Opened] = []

        def take(some: dict[str, Any]) -> None:
            for number, version, patient, month, sender, part, text, error, seen in some["results"]:
                if error is None:
                    results.append(Opened(number, version, patient, month, sender, part, text, None, seen))
                    continue
                bad = found[number - 1] if found else None
                told = bad.error if isinstance(bad, wire.Bad) else said.error_of(error)
                results.append(Opened(number, version, patient, month, sender, part, text, told, seen))

        with _as_promised():
            self.line.ask(kind, asked, take)
        return results

    # Its parts

    @property
    def patients(self) -> Patients:
        return Patients(self)

    def pairing(self, pin: str) -> Pairer:
        """For tokens that serve one program at a time, alone."""
        return Pairer(self, pin)

    @property
    def months(self) -> Months:
        return Months(self)

    @property
    def files(self) -> Files:
        return Files(self)

    @property
    def chats(self) -> Chats:
        return Chats(self)

    @property
    def log(self) -> Log:
        return Log(self)

    def status(self) -> Status:
        from medcrypt_hsm.session import values
        from medcrypt_hsm.vault.inspection import Status

        with _as_promised():
            return values.made_of(Status, self.line.ask(frames.VAULT)["status"])


class _Part:
    def __init__(self, vault: SessionVault) -> None:
        self._vault = vault
        self._line = vault.line


class Patients(_Part):
    """The patients, to be looked at."""

    def list(self) -> Pairings:
        with _as_promised():
            return [_pairing(value) for value in self._line.ask(frames.PATIENTS)["pairings"]]

    def show(self, patient_id: str) -> Pairings:
        with _as_promised():
            return [_pairing(value) for value in self._line.ask(frames.PATIENT, {"patient": patient_id})["pairings"]]


class Pairer(_Part):
    """Pairing, with the PIN of a token that serves one program at a time: the agent asks it whether that is right."""

    def __init__(self, vault: SessionVault, pin: str) -> None:
        super().__init__(vault)
        self._pin = pin

    def add(
        self, patient_id: str, *, label: str = "", protocol: str = "v2", secret: None = None, unconfirmed: bool = False
    ) -> NewPairing:
        """A secret of the practice's own does not go over a session."""
        asked = {"patient": patient_id, "label": label, "protocol": protocol, "unconfirmed": unconfirmed}
        return _made(self._ask(frames.ADD, asked))

    def confirm(self, patient_id: str, code: str) -> Pairing:
        return _pairing(self._ask(frames.CONFIRM, {"patient": patient_id, "code": code})["pairing"])

    def qr(self, patient_id: str) -> NewPairing:
        return _made(self._ask(frames.QR, {"patient": patient_id}))

    def repair(self, patient_id: str) -> NewPairing:
        return _made(self._ask(frames.REPAIR, {"patient": patient_id}))

    def _ask(self, kind: int, asked: dict[str, Any]) -> dict[str, Any]:
        return self._line.ask(kind, {"pin": self._pin, **asked})


class Months(_Part):
    def open(self) -> MonthsOpened | None:
        """The one month that is due; None if none is. Several at once need a person, and the PIN."""
        with _as_promised():
            opened = self._line.ask(frames.MONTH)["opened"]
            return None if opened is None else _opened(opened)


class Files(_Part):
    """Files, streamed by the agent from one open file to another; their names are given here."""

    def encrypt(self, patient_id: str, source: Path, target: Path, progress: Progress | None = None) -> FileDone:
        from medcrypt_hsm.messages import files
        from medcrypt_hsm.messages.files import FileDone, Input, silent
        from medcrypt_hsm.vault.store.atomic import Unfinished, taken

        files.check_encrypt(source, target)
        with Input.of_path(source, silent) as given, Unfinished(target.parent) as unfinished:
            told: list[dict[str, Any]] = []

            def named(some: dict[str, Any]) -> None:
                try:
                    unfinished.name([target.name])
                except FileExistsError as exc:
                    raise taken(target) from exc
                told.append(some)
                self._line.kept()

            asked = {"patient": patient_id, "name": source.name}
            with _as_promised():
                self._line.ask(frames.SEND_FILE, asked, named, (given.fileno(), unfinished.out.fileno()))
                (some,) = told
                return FileDone(
                    target, some["patient"], some["month"], "d", some["name"], some["media_type"], some["size"]
                )

    def decrypt(
        self,
        source: Path,
        to: Path,
        progress: Progress | None = None,
        *,
        archive: bool = False,
        month: Month | None = None,
    ) -> FileDone:
        from medcrypt_hsm.messages import files
        from medcrypt_hsm.messages.filenames import numbered, safe_name
        from medcrypt_hsm.messages.files import FileDone, Input, silent
        from medcrypt_hsm.vault.store.atomic import Unfinished

        files.check_decrypt(source, to)
        with Input.of_path(source, silent) as given, Unfinished(to) as unfinished:
            told: list[tuple[Path, dict[str, Any]]] = []

            def named(some: dict[str, Any]) -> None:
                told.append((unfinished.name(numbered(safe_name(some["name"]))), some))
                self._line.kept()

            asked = {"archive": archive, "month": None if month is None else str(month)}
            with _as_promised():
                self._line.ask(frames.TAKE_FILE, asked, named, (given.fileno(), unfinished.out.fileno()))
                ((path, some),) = told
                return FileDone(
                    path, some["patient"], some["month"], some["sender"], some["name"], some["media_type"],
                    some["size"], some["seen"],
                )  # fmt: skip


class Chats(_Part):
    def open(
        self, export: str | Path | Conversation, program: str | None = None, *, date_order: str | None = None
    ) -> Chat:
        if isinstance(export, (str, Path)):
            export = find_in_export(export, program, date_order=date_order)
        return Chat(self._vault, export)


class Chat:
    """One exported chat: parsed here, opened in the agent, which works on one batch while the next is parsed."""

    def __init__(self, vault: SessionVault, conversation: Conversation) -> None:
        self._vault = vault
        self._conversation = conversation

    @property
    def summary(self) -> Summary:
        return self._conversation.summary

    def read(self, *, month: Month | None = None) -> Iterator[list[Read]]:
        """Batches in the chat's order, as archive reading; needs a session that was started for it."""
        return self._conversation.read(lambda found, dates: self._decrypt(found, dates, month), ahead=True)

    def save(self, out: Path, *, month: Month | None = None) -> None:
        from medcrypt_hsm.messages.chats import saving

        saving.save(out, self.read(month=month), self.summary)

    def _decrypt(self, found: Sequence[Message | Bad], dates: Sequence[Dates], month: Month | None) -> list[Opened]:
        asked = {
            "texts": [_wire_text(one) for one in found],
            "dates": [[_time(written), _time(edited)] for written, edited in dates],
            "month": None if month is None else str(month),
        }
        return self._vault._results(frames.IMPORT, asked, found)


class Log(_Part):
    def pages(self, kind: int, asked: dict[str, Any]) -> Iterator[list[tuple[int, Entry, bytes]]]:
        from medcrypt_hsm.vault.audit.entries import Entry

        answer = self._line.ask(kind, asked)
        while True:
            with _as_promised():
                yield [(row[0], Entry(*row[1:8]), bytes.fromhex(row[8])) for row in answer["entries"]]
                if not answer["more"]:
                    return
            answer = self._line.ask(frames.MORE)

    def entries(self, where: EntryFilter | None = None) -> list[tuple[int, Entry]]:
        """Those that ``where`` takes, with their sequences, oldest first. Reading the log is recorded in it."""
        pages = self.pages(frames.LOG, {"filter": _given(where)})
        return [(sequence, entry) for page in pages for sequence, entry, _ in page]

    def export(self, target: str | Path, *, format: str = "jsonl", where: EntryFilter | None = None) -> Exported:
        """Entries for other programs in a new file; needs a session that was started with ``archive``."""
        from medcrypt_hsm.vault import export
        from medcrypt_hsm.vault.export import Exported, Told

        path = Path(target)
        export.check(path, format)
        pages = self.pages(frames.EXPORT, {"filter": _given(where), "format": format, "name": path.name})
        told = (Told(sequence, entry, hash_) for page in pages for sequence, entry, hash_ in page)
        count = export.write_whole(path, format, told)
        self._line.ask(frames.KEPT)
        return Exported(format, count)

    def verify(self, since: Sequence[Checkpoint] = ()) -> Verified:
        from medcrypt_hsm.session import values
        from medcrypt_hsm.vault.audit.verify import Verified

        with _as_promised():
            answer = self._line.ask(frames.VERIFY, {"since": [note.encode() for note in since]})
            return values.made_of(Verified, answer["verified"])

    def checkpoint(self) -> str:
        with _as_promised():
            return str(self._line.ask(frames.CHECKPOINT)["checkpoint"])


Pairings = list[Pairing]


def token_in_use(path: Named, name: str) -> TokenInfo | None:
    """The token ``name`` as the vault's file has it, if it serves one program at a time: whose PIN is to be asked for.

    What the agent says of it does not count: nobody is asked for a PIN because a socket said so.
    """
    with closing(open_store(Location.parse(path))) as file:
        token = peek(file).tokens.get(name)
    if token is None or token.uri.startswith("pkcs11:"):
        return None
    return TokenInfo(token.uri, token.label, token.serial, token.model, "", True, True, frozenset(), name=name)


class _as_promised:
    """Around what takes an answer apart: one of another form is an agent that is none."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, (KeyError, ValueError, TypeError, IndexError)):
            raise SessionEnded("the session answered with something that this program never says") from exc


def _wire_text(message: Message | Bad) -> str | None:
    return None if isinstance(message, wire.Bad) else message.text


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _given(where: EntryFilter | None) -> dict[str, Any]:
    if where is None:
        return {}
    names = ("patient", "actor", "action", "since", "until")
    return {name: value for name in names if (value := getattr(where, name)) is not None}


def _opened(value: dict[str, Any]) -> MonthsOpened:
    with _as_promised():
        return MonthsOpened(tuple(map(Month.parse, value["months"])), value["pairings"], value["checkpoint"])


def _pairing(value: dict[str, Any]) -> Pairing:
    return Pairing(**{**value, "pairing": bytes.fromhex(value["pairing"])})


def _made(value: dict[str, Any]) -> NewPairing:
    expires = datetime.fromisoformat(value["expires"])
    return NewPairing(_pairing(value["pairing"]), value["payload"], expires, value["weak"])
