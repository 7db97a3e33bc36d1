"""An exported chat → MedCrypt's messages in it, parts brought together, read batch by batch, in the chat's order.

In: an ``Export`` and a function that decrypts a list of messages. Out: lists of ``Read``. A batch is bounded in number
and in size, and nothing is kept of it once it is handed out. If the parts of a message do not lie close together, the
file is read once more to collect all parts in it, as wire texts in a database without a name (vault/store/scratch.py).
What is not here: keys, files, and what the result looks like.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from medcrypt_hsm.errors import Malformed, MedcryptError
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.chats import Export, written
from medcrypt_hsm.messages.decrypt import BATCH, Opened
from medcrypt_hsm.messages.gc_pause import no_collections
from medcrypt_hsm.messages.plan import Dates
from medcrypt_hsm.messages.wire import Bad, Message, MessageV2
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.store.scratch import Parts

SOON = BATCH * 9 // 10  # a batch ends here, or after the last part of a message that has begun
MOST_CHARACTERS = 16 << 20  # of wire texts in a batch
MOST_PARTS = 2_000  # different texts that may say to be of one message; 999 can be
MOST_FETCHED = 2 * BATCH  # texts of a batch, with the parts that are fetched from later in the file
TOLD = Bad(0, 0, Malformed("an earlier batch has told of it"))  # stands for a part that was fetched before its turn
Decrypt = Callable[[Sequence[Message | Bad], Sequence[Dates]], list[Opened]]
_Key: TypeAlias = tuple[bytes, int, str, bytes | None, int]


class Origin(NamedTuple):
    """Where in the chat, and what the chat says of it: nobody has proven that."""

    position: int  # of the chat message in the file, from 1
    when: datetime | None
    edited: datetime | None
    sender: str
    chat: str


class Item(NamedTuple):
    number: int  # among MedCrypt's messages of the file, from 1
    message: Message | Bad
    origin: Origin


class Read(NamedTuple):
    """A message as read, and where it stood. ``number`` counts MedCrypt's messages of the file."""

    number: int
    opened: Opened
    origin: Origin

    def document(self) -> dict[str, Any]:
        """As it stands in JSON."""
        origin = self.origin
        return {
            **self.opened.document(),
            "number": self.number,
            "position": origin.position,
            "chat": origin.chat,
            "from": origin.sender,
            "date": written(origin.when),
            "edited": written(origin.edited),
        }


@dataclass(slots=True)
class Summary:
    """What a file held; complete when all was read."""

    chat_messages: int = 0
    without: int = 0  # of those, in which there is nothing of ours
    ok: int = 0
    seen: int = 0
    bad: dict[str, int] = field(default_factory=dict)  # an error's name → how many
    chats: int = 0
    date_order: str = ""
    ambiguous: bool = False
    first_error: MedcryptError | None = None

    @property
    def messages(self) -> int:
        return self.ok + self.seen + sum(self.bad.values())

    def count(self, opened: Opened) -> None:
        if opened.error is not None:
            self.bad[opened.error.name] = self.bad.get(opened.error.name, 0) + 1
            self.first_error = self.first_error or opened.error
        elif opened.seen:
            self.seen += 1
        else:
            self.ok += 1

    def document(self) -> dict[str, Any]:
        return {
            "chats": self.chats,
            "chat_messages": self.chat_messages,
            "without": self.without,
            "messages": self.messages,
            "ok": self.ok,
            "seen": self.seen,
            "bad": self.bad,
            "date_order": self.date_order or None,
            "ambiguous_dates": self.ambiguous,
        }


class Conversation:
    """One going through an export. ``begin`` finds the first message of ours; ``read`` does the rest."""

    def __init__(self, export: Export) -> None:
        self.summary = Summary()
        self._export = export
        self._items = self._found(self.summary)
        self._back: list[Item] = []  # taken from the file, and not read yet
        self._parts: Parts | None = None
        self._at_end = False
        self._last_read = 0  # the number of a message

    def begin(self) -> None:
        """Before anybody is asked for a PIN. Raises Malformed if the file is no export, or has nothing of ours."""
        first = next(self._items, None)
        self._note()
        if first is None:
            many = self.summary.chat_messages
            raise Malformed(t("there is no MedCrypt message in this export; {count:,} others are", count=many))
        self._back.append(first)

    def read(self, decrypt: Decrypt, *, ahead: bool = False) -> Iterator[list[Read]]:
        """Raises what ``decrypt`` raises, OSError, Failed.

        ``ahead``: ``decrypt`` waits for another process, so that the next batch is looked for meanwhile.
        """
        try:
            work = self._next_work()
            while work is not None:
                finish = _begun(work, decrypt) if ahead else decrypt
                following = self._next_work() if ahead else None
                results = self._finish(work, finish)
                work = following
                if results:
                    yield results
                results = []  # not kept while the next ones are made
                if not ahead:
                    work = self._next_work()
        finally:
            if self._parts is not None:
                self._parts.close()

    @no_collections()
    def _next_work(self) -> _Work | None:
        """The next batch, or None at the end. It is empty where earlier batches have told of all its messages."""
        batch = self._gather()
        if not batch:
            return None
        fetched: list[Item] = []
        whole_file = self._at_end and self._last_read == 0
        if not whole_file and _scattered(batch):
            batch, fetched = self._fetch(batch, self._last_read + 1)
        self._last_read = batch[-1].number
        if self._parts is not None:
            self._parts.take([item.number for item in fetched], before=self._last_read + 1)
        return _Work([item for item in batch if item.message is not TOLD], fetched)

    @no_collections()
    def _finish(self, work: _Work, decrypt: Decrypt) -> list[Read]:
        results = _read(work.batch, work.fetched, decrypt)
        self._note()
        for result in results:
            self.summary.count(result.opened)
        return results

    def _note(self) -> None:
        export, summary = self._export, self.summary
        summary.chats, summary.date_order, summary.ambiguous = export.chats, export.date_order, export.ambiguous

    # From the file

    def _found(self, summary: Summary) -> Iterator[Item]:
        number = 0
        for position, told in enumerate(self._export.messages(), 1):
            summary.chat_messages = position
            if told.error is not None:
                found: list[Message | Bad] = [Bad(1, 0, told.error)]
            elif "[MEDCRYPT:" in told.text:
                found = wire.find(told.text)
            else:
                summary.without += 1
                continue
            origin = Origin(position, told.when, told.edited, told.sender, told.chat)
            for message in found:
                number += 1
                yield Item(number, message, origin)

    def _gather(self) -> list[Item]:
        """The next batch: until it is full, or nearly full and no message has begun whose parts are not all there."""
        batch: list[Item] = []
        begun: dict[_Key, set[int]] = {}
        characters = 0
        while len(batch) < BATCH and characters < MOST_CHARACTERS:
            item = self._back.pop() if self._back else next(self._items, None)
            if item is None:
                self._at_end = True
                break
            batch.append(item)
            message = item.message
            if isinstance(message, Bad):
                continue
            characters += len(message.text)
            if isinstance(message, MessageV2) and message.part.count > 1:
                indexes = begun.setdefault(_key(message), set())
                indexes.add(message.part.index)
                if len(indexes) == message.part.count:
                    del begun[_key(message)]
            if len(batch) >= SOON and not begun:
                break
        return batch

    # Parts from further on

    def _fetch(self, batch: list[Item], start: int) -> tuple[list[Item], list[Item]]:
        """The batch, and the parts that its messages lack, from the whole file.

        What an earlier batch has told of is marked ``TOLD``. What would be too much at once is left for the next batch.
        """
        if self._parts is None:
            self._parts = self._all_parts()
            self._parts.take(before=start)
        while True:
            fetched: list[Item] = []
            exchanged: dict[int, Message | Bad] = {}
            for key, own in _scattered(batch).items():
                self._fetch_message(key, own, fetched, exchanged)
                if len(batch) + len(fetched) > MOST_FETCHED and len(batch) > 1:
                    break
            else:
                return [item._replace(message=exchanged.get(item.number, item.message)) for item in batch], fetched
            half = len(batch) // 2
            self._back.extend(reversed(batch[half:]))
            self._at_end = False
            batch = batch[:half]

    def _fetch_message(
        self, key: _Key, own: list[Item], fetched: list[Item], exchanged: dict[int, Message | Bad]
    ) -> None:
        assert self._parts is not None
        texts = {item.message.text for item in own if isinstance(item.message, MessageV2)}
        parts = self._parts.of(_name(key), MOST_PARTS + 1)
        if len(parts) > MOST_PARTS:
            error = Malformed(
                t("more than {most:,} different texts claim to be parts of this one message", most=MOST_PARTS)
            )
            exchanged |= {item.number: Bad(item.number, 0, error) for item in own}
        elif texts <= {part.text for part in parts if part.taken}:
            exchanged |= {item.number: TOLD for item in own}
        else:
            for part in parts:
                if part.text not in texts:
                    fetched.append(Item(part.number, wire.parse(part.text), _origin(part.origin)))

    def _all_parts(self) -> Parts:
        parts = Parts()
        for item in self._found(Summary()):
            message = item.message
            if isinstance(message, MessageV2) and message.part.count > 1:
                parts.put(_name(_key(message)), item.number, message.text, _told(item.origin))
        return parts


class _Work(NamedTuple):
    """A batch that is to be opened, and the parts that it lacks, from further on."""

    batch: list[Item]
    fetched: list[Item]

    @property
    def items(self) -> list[Item]:
        return self.batch + self.fetched


def _begun(work: _Work, decrypt: Decrypt) -> Decrypt:
    """``decrypt`` for this batch, begun in a thread of its own that waits for it; what gives its results."""
    results: list[list[Opened]] = []
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            if work.items:
                results.append(_decrypt_items(work.items, decrypt))
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()

    def finish(found: Sequence[Message | Bad], dates: Sequence[Dates]) -> list[Opened]:
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    return finish


def _decrypt_items(items: list[Item], decrypt: Decrypt) -> list[Opened]:
    return decrypt([item.message for item in items], [(item.origin.when, item.origin.edited) for item in items])


def _key(message: MessageV2) -> _Key:
    part = message.part
    return (message.pairing, message.month.ordinal, message.sender, part.message_id, part.count)


def _key_of(item: Item) -> _Key | None:
    return _key(item.message) if isinstance(item.message, MessageV2) and item.message.part.count > 1 else None


def _name(key: _Key) -> str:
    pairing, month, sender, message_id, count = key
    return f"{pairing.hex()} {month} {sender} {(message_id or b'').hex()} {count}"


def _scattered(batch: list[Item]) -> dict[_Key, list[Item]]:
    """The messages of which not every part is here, with those that are."""
    here: dict[_Key, list[Item]] = {}
    for item in batch:
        key = _key_of(item)
        if key is not None:
            here.setdefault(key, []).append(item)
    return {key: own for key, own in here.items() if len({_index(item) for item in own}) < key[4]}


def _index(item: Item) -> int:
    return item.message.part.index if isinstance(item.message, MessageV2) else 0


def _told(origin: Origin) -> str:
    when, edited = (None if moment is None else moment.isoformat() for moment in (origin.when, origin.edited))
    return json.dumps([origin.position, when, edited, origin.sender, origin.chat])


def _origin(told: str) -> Origin:
    position, when, edited, sender, chat = json.loads(told)
    return Origin(position, _moment(when), _moment(edited), sender, chat)


def _moment(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)


def _read(batch: list[Item], fetched: list[Item], decrypt: Decrypt) -> list[Read]:
    """Results in order. A bad part that was fetched stands after the batch's first part of the message it claims."""
    items = batch + fetched
    if not items:
        return []
    opened = _decrypt_items(items, decrypt)
    if not fetched:
        return [Read(items[one.number - 1].number, one, items[one.number - 1].origin) for one in opened]
    first: dict[_Key | None, int] = {}
    for index, item in enumerate(batch):
        first.setdefault(_key_of(item), index)
    places = []
    for one in opened:
        index = one.number - 1
        item = items[index]
        stands = index if index < len(batch) else first[_key_of(item)]
        places.append((stands, index, Read(item.number, one, item.origin)))
    return [read for _, _, read in sorted(places, key=lambda place: place[:2])]
