"""``EntryFilter``: which audit entries a reader wants, by patient, actor, action and time.

In: what a person wrote, checked once when the filter is made. Out: yes or no for an opened entry, and what the log is
told of the reading. Not here: where entries come from (vault/log.py, vault/export.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.notation import parse_time
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.entries import Entry


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """All that is given must be so. ``since`` and ``until`` belong to it, and are as ``moment`` makes them."""

    patient: str | None = None
    actor: str | None = None
    action: str | None = None  # an exact name, or what stands before the point: "patient" for "patient.add" and others
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError."""
        for value in filter(lambda value: value is not None, asdict(self).values()):
            if not value or not _is_utf8(value):
                raise UsageError(
                    t("there is no entry of {value!a}", value=value), "leave the option out to see every entry"
                )
        for time in filter(None, (self.since, self.until)):
            _check(time, time)
        if self.since is not None and self.until is not None and self.since > self.until:
            raise UsageError(
                t("nothing lies between {since} and {until}", since=self.since, until=self.until),
                "exchange --since and --until",
            )

    def takes(self, entry: Entry) -> bool:
        return (
            (self.since is None or self.since <= entry.time)
            and (self.until is None or entry.time <= self.until)
            and (self.actor is None or self.actor == entry.actor)
            and (self.action is None or self.action in (entry.action, entry.action.partition(".")[0]))
            and (self.patient is None or self.patient == entry.subject or _names(entry.detail, self.patient))
        )

    def told(self) -> dict[str, Any]:
        """What the entry of a reading says of it: nothing where every entry was wanted."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return {"filter": given} if given else {}


EVERY_ENTRY = EntryFilter()


def moment(text: str, *, end: bool = False) -> str:
    """A time as entries have it, from ``YYYY-MM-DD`` (its first second, or its last) or a time. Raises UsageError."""
    day = len(text) == len("YYYY-MM-DD")
    return _check(f"{text}T23:59:59Z" if day and end else f"{text}T00:00:00Z" if day else text, text)


def _check(time: str, text: str) -> str:
    try:
        parse_time(time)
    except ValueError as exc:
        raise UsageError(
            t("{text!a} is not a time", text=text),
            "write a day as 2026-11-22, or a time in UTC as 2026-11-22T12:00:00Z",
        ) from exc
    return time


def _is_utf8(text: str) -> bool:
    """No lone surrogates, into which Python turns bytes of an argument that are no UTF-8: no entry could hold them."""
    return text == text.encode(errors="replace").decode()


def _names(detail: Any, patient: str) -> bool:
    """Does any member called ``patient`` name this one? Groups of messages, and the filter of another reading, do."""
    if isinstance(detail, Mapping):
        return detail.get("patient") == patient or any(_names(value, patient) for value in detail.values())
    # Lists within lists are not searched: the ten thousand messages of a group name nobody.
    return isinstance(detail, list) and any(isinstance(one, Mapping) and _names(one, patient) for one in detail)
