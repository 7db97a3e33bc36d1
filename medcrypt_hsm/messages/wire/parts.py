"""The parts of a long message, brought together: ``group_parts`` → ``Group`` → ``join`` → the whole text or an error.

It never gives a part of a text: a note that lacks its second page may say the opposite of what was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from medcrypt_hsm.errors import Incomplete, Malformed
from medcrypt_hsm.messages.wire.v2 import MessageV2
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import t

_Key: TypeAlias = tuple[bytes, Month, str, bytes, int]  # pairing, month, sender, message id, count


@dataclass(frozen=True, slots=True)
class Group:
    """The parts of one message, in order of their index, however they arrived.

    ``conflicting`` are the indexes that came more than once with different wire texts; the first text is the one kept
    in ``parts``.
    """

    pairing: bytes
    month: Month
    sender: str
    message_id: bytes | None
    count: int
    parts: tuple[MessageV2, ...]
    conflicting: tuple[int, ...] = ()

    @property
    def present(self) -> tuple[int, ...]:
        return tuple(message.part.index for message in self.parts)

    @property
    def missing(self) -> tuple[int, ...]:
        return tuple(sorted(set(range(1, self.count + 1)) - set(self.present)))

    def check(self) -> None:
        """Raises Malformed if a part came twice with other bytes, Incomplete if one is missing."""
        if self.conflicting:
            raise Malformed(
                t(
                    "part {numbers} of {count} came twice with different content",
                    numbers=_numbers(self.conflicting),
                    count=self.count,
                )
            )
        if self.missing:
            raise Incomplete(
                t("part {numbers} of {count} is missing", numbers=_numbers(self.missing), count=self.count)
            )


def group_parts(messages: Iterable[MessageV2]) -> list[Group]:
    """Gather parts with equal pairing, month, sender, message id and count, in order of first appearance.

    A message of one part is a group of its own each time it appears. A part that came again with the same text counts
    once. Give it authenticated messages: a forged part would spoil the message that it claims to belong to.
    """
    groups: list[Group | _Key] = []
    gathered: dict[_Key, dict[int, list[MessageV2]]] = {}
    for message in messages:
        pairing, month, sender, part = message.pairing, message.month, message.sender, message.part
        if part.message_id is None:
            groups.append(Group(pairing, month, sender, None, part.count, (message,)))
            continue
        key = (pairing, month, sender, part.message_id, part.count)
        if key not in gathered:
            groups.append(key)
        copies = gathered.setdefault(key, {}).setdefault(part.index, [])
        if all(message.text != copy.text for copy in copies):
            copies.append(message)
    return [group if isinstance(group, Group) else _group(group, gathered[group]) for group in groups]


def join(group: Group, plaintexts: Mapping[int, bytes]) -> str:
    """The whole text from the plaintext bytes of every part, by index.

    Raises Incomplete if a part or its plaintext is missing, Malformed if a part is in conflict or the whole is not
    UTF-8.
    """
    group.check()
    absent = tuple(index for index in group.present if index not in plaintexts)
    if absent:
        raise Incomplete(t("part {numbers} of {count} could not be read", numbers=_numbers(absent), count=group.count))
    data = b"".join(plaintexts[index] for index in group.present)
    text = data.decode("utf-8", "replace")
    # Compared, not caught: a UnicodeDecodeError carries the plaintext along.
    if text.encode() != data:
        raise Malformed("the message is authentic, but its content is not UTF-8 text", hint="tell its sender")
    return text


def _group(key: _Key, copies: dict[int, list[MessageV2]]) -> Group:
    indexes = sorted(copies)
    parts = tuple(copies[index][0] for index in indexes)
    return Group(*key, parts, tuple(index for index in indexes if len(copies[index]) > 1))


def _numbers(indexes: tuple[int, ...]) -> str:
    shown = ", ".join(str(index) for index in indexes[:10])
    return shown if len(indexes) <= 10 else t("{numbers} and {rest} more", numbers=shown, rest=len(indexes) - 10)
