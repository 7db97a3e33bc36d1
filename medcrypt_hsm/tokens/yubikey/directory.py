"""The directory: which names stand for which slots and objects of a card. Bytes only; layout: docs/spec/tokens.md.

An entry for a key is written before the key is made, and outlives it until everything of it is gone. So a kill between
two APDUs leaves nothing of ours that no entry tells of, and ``Entry.holds`` tells from what the slot holds now whether
the key was made, or destroyed, already.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

MAGIC = b"MCD\x01"
NOTHING = bytes(32)  # the fingerprint of an empty slot
RETIRED = range(0x82, 0x96)  # the only slots that an entry may name: whoever has the management key can write one
PAIRS = 32  # of data objects
_HEAD = struct.Struct(">4sIB")
_ENTRY = struct.Struct(">BBBB32sB")


class State(enum.IntEnum):
    """How far the key of an entry has come. The fingerprint says what the slot held when the entry was written."""

    PENDING = 1  # fingerprint of what was there before: the key is made as soon as the slot holds another
    ACTIVE = 2  # fingerprint of the key
    DOOMED = 3  # fingerprint of the key that is being destroyed
    SPENT = 4  # no name; fingerprint of the key, of no use to anybody, that overwrote a destroyed one


class Kind(enum.IntEnum):
    KEK = 1
    SIGNING_KEY = 2
    OBJECT = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """``place`` is a slot (0x82 to 0x95), or for an object the index of its pair."""

    name: str
    kind: Kind
    place: int
    state: State = State.ACTIVE
    fingerprint: bytes = NOTHING

    def holds(self, now: bytes) -> bool:
        """Is the key that this entry names in its slot, which has the fingerprint ``now``?"""
        if self.state is State.PENDING:
            return now not in (self.fingerprint, NOTHING)
        return self.state is not State.SPENT and now == self.fingerprint

    def may_be_overwritten(self, now: bytes) -> bool:
        """Is whatever is in the slot ours and of no use, or nothing?"""
        if self.state is State.DOOMED:
            return now != self.fingerprint
        return now == NOTHING or (self.state in (State.PENDING, State.SPENT) and now == self.fingerprint)


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries as one of the two objects has them, and how often they have been written."""

    counter: int = 0
    entries: tuple[Entry, ...] = ()

    def key(self, name: str) -> Entry | None:
        return next((e for e in self.entries if e.name == name and e.kind is not Kind.OBJECT), None)

    def object(self, name: str) -> Entry | None:
        return next((e for e in self.entries if e.name == name and e.kind is Kind.OBJECT), None)

    def slot(self, slot: int) -> Entry | None:
        return next((e for e in self.entries if e.place == slot and e.kind is not Kind.OBJECT), None)

    def with_entry(self, entry: Entry) -> Directory:
        """With ``entry`` in place of whatever stood for its place."""
        return replace(self.without(entry), entries=(*self.without(entry).entries, entry))

    def without(self, entry: Entry) -> Directory:
        def same(other: Entry) -> bool:
            return other.place == entry.place and (other.kind is Kind.OBJECT) == (entry.kind is Kind.OBJECT)

        return replace(self, entries=tuple(e for e in self.entries if not same(e)))


def encode(directory: Directory) -> bytes:
    """The object's bytes: head, entries, SHA-256 over both."""
    body = _HEAD.pack(MAGIC, directory.counter, len(directory.entries))
    for entry in directory.entries:
        name = entry.name.encode()
        body += _ENTRY.pack(entry.state, entry.kind, entry.place, 0, entry.fingerprint, len(name)) + name
    return body + hashlib.sha256(body).digest()


def parse(data: bytes) -> Directory | None:
    """None for anything that ``encode`` does not make: torn, foreign, of a later version."""
    body, digest = data[:-32], data[-32:]
    if len(body) < _HEAD.size or hashlib.sha256(body).digest() != digest:
        return None
    magic, counter, count = _HEAD.unpack_from(body)
    at = _HEAD.size
    entries = []
    try:
        for _ in range(count):
            state, kind, place, _, fingerprint, length = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            if place not in (range(PAIRS) if kind == Kind.OBJECT else RETIRED):
                return None
            entries.append(Entry(body[at : at + length].decode(), Kind(kind), place, State(state), fingerprint))
            at += length
    except (struct.error, ValueError):
        return None
    directory = Directory(counter, tuple(entries))
    return directory if magic == MAGIC and encode(directory) == data else None


def newest(stored: Iterable[bytes]) -> Directory:
    """The valid one with the highest counter; an empty one if there is none."""
    valid = [directory for data in stored if (directory := parse(data)) is not None]
    return max(valid, key=lambda directory: directory.counter, default=Directory())
